//! Damage is found, and told with its place; never a panic, never a wrong value.
//!
//! Every bit, byte, length, sector, record and file of fixture stores is damaged. Each case ends
//! in `Corrupt`, in the exact content, or without commits at the end of the active segment whose
//! records were all damaged themselves: nothing can prove that those were ever whole. The counts
//! of the verdicts are pinned, so that a change shows.

#![allow(
    clippy::cast_possible_truncation,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::semicolon_if_nothing_returned,
    clippy::type_complexity,
    reason = "fixtures are small, their names lower case, and lies are told in tables of closures"
)]

mod cases;
mod compacted;
mod fixtures;
mod format;
mod hint_format;
mod hint_lies;
mod hints;
mod hostile;
mod open_store;
mod verdict;

use std::time::Instant;

use cases::Damage;
use fixtures::Fixture;

/// Does all damage to `fixture`, and compares the verdicts with `pinned`, a line for each kind.
fn check(fixture: &Fixture, pinned: &[&str]) {
    let begun = Instant::now();
    let mut damage = Damage::new(fixture);
    let kinds: [(&str, fn(&mut Damage<'_>)); 7] = [
        ("bits", |damage| damage.bits()),
        ("bytes", |damage| damage.bytes()),
        ("truncations", |damage| damage.truncations()),
        ("sectors", |damage| damage.sectors()),
        ("records", |damage| damage.records()),
        ("files", |damage| damage.whole_files()),
        ("lock and state", |damage| damage.lock_and_state()),
    ];
    let mut lines = Vec::new();
    for (name, kind) in kinds {
        kind(&mut damage);
        lines.push(format!("{name}: {}", damage.line()));
    }
    eprintln!(
        "{}: {} cases in {:?}",
        fixture.name,
        damage.count(),
        begun.elapsed()
    );
    assert_eq!(lines, pinned, "the verdicts have changed");
}

#[test]
fn damage_to_an_active_segment_is_found() {
    let pinned = [
        "bits: 10624 Exact, 22296 Corrupt, 640 Less(1)",
        "bytes: 1328 Exact, 4349 Corrupt, 131 Less(1)",
        "truncations: 4195 Corrupt",
        "sectors: 30 Corrupt, 3 Less(3), 1 Less(11)",
        "records: 779 Corrupt, 1 Less(2)",
        "files: 4 Exact, 16 Corrupt",
        "lock and state: 1074 Exact",
    ];
    check(&fixtures::active_only(), &pinned);
}

#[test]
fn damage_to_sealed_segments_is_found() {
    let pinned = [
        "bits: 10624 Exact, 41528 Corrupt, 608 Less(1)",
        "bytes: 1328 Exact, 7957 Corrupt, 122 Less(1)",
        "truncations: 956 Exact, 5639 Corrupt",
        "sectors: 79 Corrupt",
        "records: 1770 Corrupt",
        "files: 26 Exact, 170 Corrupt",
        "lock and state: 1074 Exact",
    ];
    check(&fixtures::sealed_segments(), &pinned);
}

#[test]
fn damage_to_a_store_closed_cleanly_is_found() {
    let pinned = [
        "bits: 15360 Exact, 18200 Corrupt",
        "bytes: 1920 Exact, 3475 Corrupt",
        "truncations: 4195 Corrupt",
        "sectors: 31 Corrupt",
        "records: 630 Corrupt",
        "files: 4 Exact, 16 Corrupt",
        "lock and state: 1074 Exact",
    ];
    check(&fixtures::closed_cleanly(), &pinned);
}

#[test]
fn damage_to_nested_batches_and_tombstones_is_found() {
    let pinned = [
        "bits: 4480 Exact, 11032 Corrupt, 1664 Less(1)",
        "bytes: 560 Exact, 2063 Corrupt, 387 Less(1)",
        "truncations: 2147 Corrupt",
        "sectors: 7 Corrupt, 2 Less(5), 1 Less(13)",
        "records: 189 Corrupt, 1 Less(2)",
        "files: 5 Exact, 15 Corrupt",
        "lock and state: 1074 Exact",
    ];
    check(&fixtures::nested_batches(), &pinned);
}

#[test]
fn damage_to_an_allocated_tail_is_found() {
    let pinned = [
        "bits: 29888 Exact, 3224 Corrupt, 448 Less(1)",
        "bytes: 3736 Exact, 604 Corrupt, 82 Less(1)",
        "truncations: 4195 Corrupt",
        "sectors: 9 Corrupt",
        "records: 9 Corrupt, 1 Less(2)",
        "files: 4 Exact, 16 Corrupt",
        "lock and state: 1074 Exact",
    ];
    check(&fixtures::allocated_tail(), &pinned);
}

#[test]
fn damage_to_a_repaired_store_is_found() {
    let pinned = [
        "bits: 15872 Exact, 17176 Corrupt, 512 Less(1)",
        "bytes: 1984 Exact, 3324 Corrupt, 99 Less(1)",
        "truncations: 4195 Corrupt",
        "sectors: 26 Corrupt, 4 Less(1), 1 Less(9)",
        "records: 495 Corrupt, 1 Less(2)",
        "files: 4 Exact, 16 Corrupt",
        "lock and state: 1074 Exact",
    ];
    check(&fixtures::repaired(), &pinned);
}

#[test]
fn damage_to_a_seal_mark_before_the_last_commit_is_found() {
    let pinned = [
        "bits: 2336 Exact, 2072 Corrupt, 480 Less(1)",
        "bytes: 292 Exact, 386 Corrupt, 90 Less(1)",
        "truncations: 611 Corrupt",
        "sectors: 2 Corrupt",
        "records: 3 Corrupt",
        "files: 5 Exact, 15 Corrupt",
        "lock and state: 1074 Exact",
    ];
    check(&fixtures::one_after_the_mark(), &pinned);
}
