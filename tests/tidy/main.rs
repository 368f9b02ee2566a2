//! The house checks itself: what ARCHITECTURE.md and the glossary say of the source is true.
//!
//! Each check is a function from a source file to findings. It runs over the whole tree, and over
//! a violation planted in its own test, so that a check that sees nothing is noticed.
//! [`source`] tells code from comments; [`arrows`] who imports whom; [`doors`] what only one room
//! may do; [`shape`] lengths, signs and leftovers; [`words`] one word for each idea.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests look at the real machine")]

mod arrows;
mod doors;
mod shape;
mod source;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use source::{Finding, Source};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the house.
fn house() -> Vec<Source> {
    let mut waiting: Vec<PathBuf> = ["src", "tests", "examples", "benches", "tools"]
        .map(|room| root().join(room))
        .into();
    let mut sources = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            if !path.ends_with("target") {
                waiting.extend(
                    std::fs::read_dir(path)
                        .unwrap()
                        .map(|item| item.unwrap().path()),
                );
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/");
            sources.push(Source::new(&name, &std::fs::read_to_string(path).unwrap()));
        }
    }
    assert!(sources.len() > 50, "the house is not where it was");
    sources
}

fn refuse(findings: impl IntoIterator<Item = Finding>) {
    let findings: BTreeSet<String> = findings.into_iter().map(|f| f.to_string()).collect();
    let findings: Vec<_> = findings.into_iter().collect();
    assert!(findings.is_empty(), "\n\n{}\n", findings.join("\n"));
}

#[test]
fn imports_follow_the_arrows() {
    refuse(house().iter().flat_map(arrows::check));
}

#[test]
fn no_arrow_is_allowed_that_nobody_needs() {
    refuse(arrows::unused(&house()));
}

#[test]
fn only_the_doors_are_unsafe_or_name_the_machine_or_a_file() {
    refuse(house().iter().flat_map(doors::check));
}

#[test]
fn files_and_functions_are_short_and_signed_and_nothing_is_left_lying_about() {
    refuse(house().iter().flat_map(shape::check));
}

#[test]
fn comments_say_one_word_for_each_idea() {
    refuse(house().iter().flat_map(words::check));
}

#[test]
fn pages_for_people_are_short() {
    for (page, lines_max) in [("README.md", 200), ("ARCHITECTURE.md", 250)] {
        if let Ok(text) = std::fs::read_to_string(root().join(page)) {
            refuse(shape::long_page(page, &text, lines_max));
        }
    }
}
