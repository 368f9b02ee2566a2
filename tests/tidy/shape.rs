//! How long things are, that every file has a sign, and that nothing is left lying about.

use crate::source::{Finding, Source, has_word};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// What is written down to be seen to later belongs where such things are kept.
const LEFTOVERS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// Words about how the source came about, instead of what it is.
const MAKING: &[&str] = &["session", "sessions", "helper agent", "prompt"];

/// Refuses what is too long, unsigned or left over.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = long_page(
        &source.path,
        &"\n".repeat(source.lines.len()),
        FILE_LINES_MAX,
    );
    findings.extend(long_functions(source));
    if !source
        .lines
        .first()
        .is_some_and(|line| line.comment.starts_with("//!"))
    {
        findings.push(source.finding(1, "has no sign: begin with `//!` and what it is for"));
    }
    for (number, line) in source.numbered() {
        let comment = &line.comment;
        for word in LEFTOVERS
            .iter()
            .chain(MAKING)
            .filter(|word| has_word(comment, word))
        {
            findings.push(source.finding(number, format!("says \"{word}\" in a comment")));
        }
        let is_doc = comment.starts_with("///") || comment.starts_with("//!");
        if !is_doc && comment.trim_end().ends_with(';') {
            findings.push(source.finding(number, "comments code out, or ends like it"));
        }
    }
    findings
}

/// Refuses a page with more than `lines_max` lines.
pub(crate) fn long_page(path: &str, text: &str, lines_max: usize) -> Vec<Finding> {
    let lines = text.lines().count();
    let finding = Finding {
        path: path.to_owned(),
        line: lines,
        what: format!("has {lines} lines; at most {lines_max} are pleasant to read"),
    };
    Vec::from_iter((lines > lines_max).then_some(finding))
}

/// Functions that are too long, found by counting braces.
fn long_functions(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.numbered() {
        if !is_function(&line.code) {
            continue;
        }
        let lines = function_lines(source.lines[number - 1..].iter().map(|line| &*line.code));
        if lines > FUNCTION_LINES_MAX {
            let what = format!("a function of {lines} lines; at most {FUNCTION_LINES_MAX}");
            findings.push(source.finding(number, what));
        }
    }
    findings
}

fn is_function(code: &str) -> bool {
    let name = code.split("fn ").nth(1).unwrap_or_default();
    has_word(code, "fn") && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// How many lines a function takes that begins on the first of `lines`; none without a body.
fn function_lines<'a>(lines: impl Iterator<Item = &'a str>) -> usize {
    let mut depth = 0_usize;
    let mut brackets = 0_usize;
    for (count, line) in (1..).zip(lines) {
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth <= 1 => return count,
                '}' => depth -= 1,
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                // Not the one in an array's type.
                ';' if depth == 0 && brackets == 0 => return 0,
                _ => {}
            }
        }
    }
    0
}

#[test]
fn what_is_too_long_is_found() {
    let found = |text: &str| check(&Source::new("src/a.rs", text)).len();
    let file = |lines: usize| format!("//! Sign.\n{}", "const A: u8 = 1;\n".repeat(lines - 1));
    assert_eq!(found(&file(FILE_LINES_MAX)), 0);
    assert_eq!(found(&file(FILE_LINES_MAX + 1)), 1);
    let function = |lines: usize| {
        let body = "    if a { b(\"}\") }\n".repeat(lines - 3);
        format!("//! Sign.\nfn none(a: [u8; 2]);\npub(crate) fn f(\n) {{\n{body}}}\n")
    };
    assert_eq!(found(&function(FUNCTION_LINES_MAX)), 0);
    assert_eq!(found(&function(FUNCTION_LINES_MAX + 1)), 1);
    assert_eq!(long_page("README.md", "a\nb\n", 1).len(), 1);
    assert_eq!(long_page("README.md", "a\nb\n", 2).len(), 0);
}

#[test]
fn what_is_unsigned_or_left_over_is_found() {
    let found = |text: &str| check(&Source::new("src/a.rs", text)).len();
    assert_eq!(found("use std::fmt;\n"), 1);
    assert_eq!(found("//! Sign.\n// TODO: later\n"), 1);
    assert_eq!(found("//! Sign.\n/// Made in a session.\n"), 1);
    assert_eq!(found("//! Sign.\n// let a = 1;\n"), 1);
    assert_eq!(
        found("//! Sign.\n/// let a = 1;\nlet b = \"TODO\"; // b, because of a\n"),
        0
    );
}
