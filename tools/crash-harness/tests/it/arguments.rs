//! What people ask for is answered, or refused with a message and the code 2.

use crate::support::Report;

#[test]
fn wrong_arguments_are_refused_with_a_message() {
    let wrong: &[&[&str]] = &[
        &["--kills", "0"],
        &["--kills", "-3"],
        &["--kills", "many"],
        &["--kills", "5", "--minutes", "5"],
        &["--minutes", "0"],
        &["--modes", "none"],
        &["--modes", ""],
        &["--writers", "0"],
        &["--writers", "5"],
        &["--processes", "0"],
        &["--processes", "5"],
        &["--processes", ""],
        &["--patience", "0"],
        &["--jobs", "0"],
        &["--seed", "-1"],
        &["--planted", "nothing"],
        &["--directory", "/there/is/no/such/directory"],
        &["somewhere"],
        &["child"],
    ];
    for arguments in wrong {
        let report = Report::of(arguments);
        assert_eq!(report.code, Some(2), "{arguments:?}: {}", report.text);
        assert!(!report.text.contains("panicked"), "{}", report.text);
        assert!(report.text.len() > 20, "{arguments:?} without a message");
    }
}

#[test]
fn help_tells_what_is_done_and_hides_what_the_program_tells_itself() {
    let report = Report::of(&["--help"]);
    assert_eq!(report.code, Some(0));
    for word in ["SIGKILL", "Exit code", "--minutes", "--seed", "--keep"] {
        assert!(report.text.contains(word), "{word}");
    }
    assert!(!report.text.contains("planted") && !report.text.contains("child  "));
}

#[test]
fn modes_and_writers_can_be_chosen_and_all_stores_be_kept() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let report = Report::of(&[
        "--seed",
        "7",
        "--kills",
        "10",
        "--modes",
        "os,mix",
        "--writers",
        "2",
        "--processes",
        "1,2",
        "--jobs",
        "1",
        "--keep",
        "--directory",
        place,
    ]);
    assert_eq!(report.code, Some(0), "{}", report.text);
    assert_eq!(report.count("stores of mode sync"), 0);
    let stores = report.count("stores of mode os") + report.count("stores of mode mix");
    let kept = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(u64::try_from(kept).unwrap(), stores);
}
