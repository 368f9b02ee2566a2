//! The names of a store's files; no other room builds one.

use std::path::{Path, PathBuf};

/// The directory's list of live segments.
pub(crate) const MANIFEST: &str = "MANIFEST";

/// The next manifest, before it is renamed.
pub(crate) const MANIFEST_TEMPORARY: &str = "MANIFEST.tmp";

/// The writer lock. Never unlinked: a lock file that is made again has two owners.
pub(crate) const LOCK: &str = "LOCK";

/// A shared lock of everybody who has the store open; who has it alone is alone.
pub(crate) const OPEN: &str = "OPEN";

/// The page of shared words.
pub(crate) const STATE: &str = "STATE";

/// The lock of whoever compacts.
pub(crate) const COMPACT: &str = "COMPACT";

/// In a backup: the manifest that the last backup into it wrote.
pub(crate) const BACKUP: &str = "BACKUP";

/// In a backup: the manifest that a backup which is not finished is going to write.
pub(crate) const BACKUP_TEMPORARY: &str = "BACKUP.tmp";

/// In a backup: a file that is being copied, or a mark that is being written.
pub(crate) const COPY_TEMPORARY: &str = "COPY.tmp";

const SEGMENT_SUFFIX: &str = ".seg";
const HINTS_SUFFIX: &str = ".hint";
const TEMPORARY_SUFFIX: &str = ".tmp";
const SEGMENT_DIGITS: usize = 8;

/// The path of a segment.
pub(crate) fn segment(directory: &Path, id: u32) -> PathBuf {
    directory.join(format!("{id:0SEGMENT_DIGITS$}{SEGMENT_SUFFIX}"))
}

/// The path of a segment's hints.
pub(crate) fn hints(directory: &Path, id: u32) -> PathBuf {
    directory.join(format!("{id:0SEGMENT_DIGITS$}{HINTS_SUFFIX}"))
}

/// The path of a segment's hints before they are finished and renamed.
pub(crate) fn hints_temporary(directory: &Path, id: u32) -> PathBuf {
    directory.join(format!(
        "{id:0SEGMENT_DIGITS$}{HINTS_SUFFIX}{TEMPORARY_SUFFIX}"
    ))
}

/// The id in a segment's file name; `None` for any other name.
pub(crate) fn segment_id(name: &str) -> Option<u32> {
    id_before(name, SEGMENT_SUFFIX)
}

/// The id in the name of a file of hints, finished or not; `None` for any other name.
pub(crate) fn hints_id(name: &str) -> Option<u32> {
    id_before(
        name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(name),
        HINTS_SUFFIX,
    )
}

/// Whether it is the name of hints that are not finished.
pub(crate) fn is_unfinished_hints(name: &str) -> bool {
    hints_id(name).is_some() && name.strip_suffix(TEMPORARY_SUFFIX).is_some()
}

fn id_before(name: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_suffix(suffix)?;
    if digits.len() < SEGMENT_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits
        .parse()
        .ok()
        .filter(|&id: &u32| format!("{id:0SEGMENT_DIGITS$}") == digits)
}

#[cfg(test)]
mod tests {
    use super::{hints, hints_id, hints_temporary, segment, segment_id};
    use std::path::Path;

    #[test]
    fn names_and_ids_belong_together() {
        for id in [1, 42, 99_999_999, u32::MAX] {
            let directory = Path::new("d");
            let path = segment(directory, id);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!((segment_id(name), hints_id(name)), (Some(id), None));
            for path in [hints(directory, id), hints_temporary(directory, id)] {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap();
                assert_eq!((segment_id(name), hints_id(name)), (None, Some(id)));
            }
        }
        for name in [
            "1.seg",
            "00000001.hint",
            "0000000a.seg",
            "000000001.seg",
            "+0000001.seg",
        ] {
            assert_eq!(segment_id(name), None, "{name}");
        }
    }
}
