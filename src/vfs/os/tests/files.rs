//! Opening, reading, viewing, writing, allocating.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::super::super::{OpenMode, VfsFile};
use super::super::file::OsFile;
use super::{machines, os};

#[test]
fn bytes_come_back_from_where_they_were_written() {
    for m in machines() {
        let file = m.vfs.open(&m.path("f"), OpenMode::CreateEmpty).unwrap();
        // Across the borders of whatever pieces a machine keeps.
        let bytes: Vec<u8> = (0..200_000_u32)
            .map(|n| n.to_le_bytes()[0] ^ 0x5a)
            .collect();
        file.write_at(70_000, &bytes).unwrap();
        assert_eq!(file.len().unwrap(), 270_000, "{}", m.name);
        let mut out = vec![1; 300_000];
        assert_eq!(file.read_at(0, &mut out).unwrap(), 270_000);
        assert!(out[..70_000].iter().all(|byte| *byte == 0));
        assert_eq!(out[70_000..270_000], bytes);
        assert_eq!(file.read_at(270_000, &mut out).unwrap(), 0);
        assert_eq!(file.read_at(1 << 40, &mut out).unwrap(), 0);
        assert_eq!(file.view(70_001, 5).unwrap(), &bytes[1..6]);
        file.sync().unwrap();
        let again = m.vfs.open(&m.path("f"), OpenMode::Read).unwrap();
        assert_eq!(again.view(70_000, bytes.len()).unwrap(), bytes);
        assert!(again.write_at(0, b"x").is_err(), "opened for reading");
    }
}

#[test]
fn open_modes_create_keep_and_empty() {
    for m in machines() {
        let path = m.path("f");
        for mode in [OpenMode::Read, OpenMode::Write] {
            let missing = m.vfs.open(&path, mode).err().unwrap();
            assert_eq!(missing.kind(), ErrorKind::NotFound, "{}", m.name);
        }
        let create = |mode| m.vfs.open(&path, mode).unwrap();
        create(OpenMode::WriteOrCreate)
            .write_at(0, b"kept")
            .unwrap();
        assert_eq!(create(OpenMode::WriteOrCreate).len().unwrap(), 4);
        assert_eq!(
            create(OpenMode::Write).view(0, 4).unwrap(),
            b"kept".as_slice()
        );
        assert_eq!(create(OpenMode::CreateEmpty).len().unwrap(), 0);
    }
}

#[test]
fn views_see_what_was_written_after_the_map_was_made() {
    for m in machines() {
        let file = m.vfs.open(&m.path("seg"), OpenMode::CreateEmpty).unwrap();
        file.map(1 << 20);
        file.map(1 << 21);
        file.allocate(8192).unwrap();
        file.write_at(10, b"first").unwrap();
        let first = file.view(10, 5).unwrap();
        assert_eq!(first, b"first".as_slice(), "{}", m.name);
        // Another opening writes beyond what this one knows to be there.
        let other = m.vfs.open(&m.path("seg"), OpenMode::Write).unwrap();
        other.write_at(20_000, b"second").unwrap();
        let second = file.view(20_000, 6).unwrap();
        assert_eq!(second, b"second".as_slice());
        assert_eq!(matches!(first, Cow::Borrowed(_)), m.name == "os");
        assert_eq!(matches!(second, Cow::Borrowed(_)), m.name == "os");
        assert_eq!(other.view(10, 5).unwrap(), b"first".as_slice());
        // Within the file, but beyond the map.
        other.write_at((1 << 20) - 2, b"third").unwrap();
        assert_eq!(file.view((1 << 20) - 2, 5).unwrap(), b"third".as_slice());
    }
}

#[test]
fn a_view_past_the_end_is_an_error() {
    for m in machines() {
        let file = m.vfs.open(&m.path("f"), OpenMode::CreateEmpty).unwrap();
        file.map(1 << 20);
        file.write_at(0, b"0123456789").unwrap();
        assert_eq!(file.view(10, 0).unwrap(), b"".as_slice());
        for (offset, len_bytes) in [
            (0, 11),
            (9, 2),
            (10, 1),
            (11, 0),
            (1 << 50, 1),
            (u64::MAX, 2),
            (0, usize::MAX),
        ] {
            let error = file.view(offset, len_bytes).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::UnexpectedEof,
                "{} {offset}",
                m.name
            );
        }
    }
}

#[test]
fn allocate_grows_with_zeros_and_never_shrinks() {
    for m in machines() {
        let file = m.vfs.open(&m.path("f"), OpenMode::CreateEmpty).unwrap();
        file.write_at(0, b"0123456789").unwrap();
        file.allocate(0).unwrap();
        file.allocate(5).unwrap();
        assert_eq!(file.len().unwrap(), 10, "{}", m.name);
        file.allocate(100_000).unwrap();
        assert_eq!(file.len().unwrap(), 100_000);
        file.allocate(50_000).unwrap();
        assert_eq!(file.len().unwrap(), 100_000);
        assert_eq!(file.view(0, 12).unwrap(), b"0123456789\0\0".as_slice());
        assert!(file.view(10, 99_990).unwrap().iter().all(|byte| *byte == 0));
        assert!(file.allocate(u64::MAX).is_err());
        assert_eq!(file.view(0, 10).unwrap(), b"0123456789".as_slice());
    }
}

#[test]
fn allocate_takes_the_space_at_once() {
    use std::os::unix::fs::MetadataExt;

    let m = os();
    let file = m.vfs.open(&m.path("f"), OpenMode::CreateEmpty).unwrap();
    file.allocate(1 << 20).unwrap();
    assert!(fs::metadata(m.path("f")).unwrap().blocks() * 512 >= 1 << 20);
}

#[test]
fn zeros_are_written_where_space_cannot_be_reserved() {
    let m = os();
    let file = OsFile::open(&m.path("f"), OpenMode::CreateEmpty, true).unwrap();
    file.write_at(0, b"kept").unwrap();
    file.write_zeros(4, 150_000).unwrap();
    file.write_zeros(150_000, 4).unwrap();
    assert_eq!(file.len().unwrap(), 150_000);
    assert_eq!(file.view(0, 6).unwrap(), b"kept\0\0".as_slice());
}

#[test]
fn a_file_shortened_by_others_is_an_error_without_mapping() {
    let m = os();
    let vfs = super::OsVfs::without_mapping();
    let file = vfs.open(&m.path("f"), OpenMode::CreateEmpty).unwrap();
    file.map(8192);
    file.write_at(0, &[1; 8192]).unwrap();
    fs::File::options()
        .write(true)
        .open(m.path("f"))
        .unwrap()
        .set_len(1)
        .unwrap();
    assert_eq!(
        file.view(4096, 10).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let m = os();
    assert!(
        Command::new("mkfifo")
            .arg(m.path("pipe"))
            .status()
            .unwrap()
            .success()
    );
    let _listener = UnixListener::bind(m.path("socket")).unwrap();
    fs::create_dir(m.path("directory")).unwrap();
    fs::write(m.path("file"), b"untouched").unwrap();
    std::os::unix::fs::symlink(m.path("file"), m.path("link")).unwrap();
    for (name, what) in [
        ("pipe", "named pipe"),
        ("socket", "socket"),
        ("directory", "directory"),
        ("link", "symbolic link"),
    ] {
        for mode in [
            OpenMode::Read,
            OpenMode::Write,
            OpenMode::WriteOrCreate,
            OpenMode::CreateEmpty,
        ] {
            let error = m.vfs.open(&m.path(name), mode).err().unwrap();
            assert_eq!(
                error.kind(),
                ErrorKind::InvalidInput,
                "{name} {mode:?}: {error}"
            );
            assert!(error.to_string().contains(what), "{name} {mode:?}: {error}");
        }
        assert!(
            m.vfs
                .shared_page(&m.path(name), OpenMode::WriteOrCreate)
                .is_err()
        );
    }
    assert_eq!(fs::read(m.path("file")).unwrap(), b"untouched");
    let device = m
        .vfs
        .open("/dev/null".as_ref(), OpenMode::Write)
        .err()
        .unwrap();
    assert!(device.to_string().contains("device"), "{device}");
}

#[test]
fn files_live_on_when_their_names_are_gone() {
    for m in machines() {
        let file = m.vfs.open(&m.path("f"), OpenMode::CreateEmpty).unwrap();
        file.map(4096);
        file.write_at(0, b"alive").unwrap();
        m.vfs.unlink(&m.path("f")).unwrap();
        assert_eq!(file.view(0, 5).unwrap(), b"alive".as_slice(), "{}", m.name);
        assert_eq!(m.vfs.node(&m.path("f")).unwrap(), None);
    }
}

#[test]
fn writes_into_expected_space_are_the_same_with_and_without_a_window() {
    for m in machines() {
        let file = m.vfs.open(&m.path("f"), OpenMode::CreateEmpty).unwrap();
        file.write_at(0, &vec![7; 70_000]).unwrap();
        file.allocate(1 << 20).unwrap();
        file.expect_writes(70_000, 1 << 20);
        let mut model = vec![0; 1 << 20];
        model[..70_000].fill(7);
        let mut put = |offset: usize, len: usize, byte: u8| {
            file.write_at(offset as u64, &vec![byte; len]).unwrap();
            model.resize(model.len().max(offset + len), 0);
            model[offset..offset + len].fill(byte);
        };
        // In order; longer than what is stored; at the end; across it; before the window.
        for (offset, len, byte) in [
            (70_000, 3, 1),
            (70_003, 5000, 2),
            (75_003, 100_000, 3),
            ((1 << 20) - 10, 10, 4),
            ((1 << 20) - 5, 20, 5),
            (100, 50, 6),
        ] {
            put(offset, len, byte);
        }
        file.sync().unwrap();
        let again = m.vfs.open(&m.path("f"), OpenMode::Read).unwrap();
        assert_eq!(again.view(0, model.len()).unwrap(), model, "{}", m.name);
        assert_eq!(file.view(0, model.len()).unwrap(), model, "{}", m.name);
    }
}

#[test]
fn a_window_is_there_for_small_writes_into_space_that_was_reserved_alone() {
    let m = os();
    let open = |maps| OsFile::open(&m.path("f"), OpenMode::CreateEmpty, maps).unwrap();
    let file = open(true);
    file.write_at(0, &[1; 4096]).unwrap();
    file.expect_writes(0, 4096);
    assert!(!file.has_stored(0, b"x"), "nothing was reserved");
    file.allocate(1 << 20).unwrap();
    if !super::super::locality::keeps_reserved(file.as_std()) {
        eprintln!("SKIPPED: the file system of the temporary directory gets no windows");
        return;
    }
    file.expect_writes(200_000, 2 << 20);
    assert!(file.has_stored(200_000, b"x"));
    assert!(file.has_stored((1 << 20) - 1, b"x"));
    assert!(
        !file.has_stored((1 << 20) - 1, b"xx"),
        "beyond what was reserved"
    );
    assert!(!file.has_stored(100_000, b"x"), "before the window");
    assert!(!file.has_stored(300_000, &vec![1; 20_000]), "too long");
    assert_eq!(file.view(200_000, 1).unwrap(), b"x".as_slice());
    assert_eq!(file.len().unwrap(), 1 << 20);
    let file = open(false);
    file.allocate(1 << 20).unwrap();
    file.expect_writes(0, 1 << 20);
    assert!(!file.has_stored(0, b"x"), "asked not to map");
}
