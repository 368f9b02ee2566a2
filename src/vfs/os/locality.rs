//! Which file systems are not of this host alone, and which write in place.
//!
//! A store shares locks and mapped words between processes; that works where all of them ask one
//! kernel. The list names the file systems where it does not, or where other hosts may be
//! writing: network, cluster, guest-to-host and user-space file systems. It is a list of refusals,
//! because new local file systems appear more often than new remote ones: a file system that is
//! not named here is taken for local.
//!
//! Known and allowed: ext2/3/4, xfs, btrfs, f2fs, zfs, bcachefs, tmpfs, ramfs, overlayfs. On
//! overlayfs a file of a lower layer is another file once it was written: a store must be created
//! in the container that writes it, not be part of its image.
//!
//! Invariants:
//! 1. Other systems than Linux and Android always answer local; untested.
//!
//! Threads and processes: pure, but for one system call.

use std::fs::File;
use std::io;
use std::path::Path;

use super::super::Locality;

/// Numbers from `statfs(2)` and `linux/magic.h`.
#[cfg(any(target_os = "linux", target_os = "android"))]
const REMOTE: &[(u32, &str)] = &[
    (0x0000_564c, "ncpfs"),
    (0x0000_517b, "smbfs"),
    (0x0000_6969, "nfs"),
    (0x00c0_ffee, "hostfs"),
    (0x00c3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x0116_1970, "gfs2"),
    (0x0131_11a8, "ibrix"),
    (0x0bd0_0bd0, "lustre"),
    (0x1983_0326, "beegfs"),
    (0x2003_0528, "orangefs"),
    (0x4750_4653, "gpfs"),
    (0x5346_414f, "afs"),
    (0x6163_6673, "acfs"),
    (0x6573_5546, "fuse"),
    (0x6b41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0x7461_636f, "ocfs2"),
    (0x786f_4256, "vboxsf"),
    (0x7c7c_6673, "prl_fs"),
    (0xaad7_aaea, "panfs"),
    (0xbacb_acbc, "vmhgfs"),
    (0xbeef_dead, "snfs"),
    (0xfe53_4d42, "smb2"),
    (0xff53_4d42, "cifs"),
];

/// Where `directory` lies.
///
/// # Errors
/// What `statfs` says.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn of(directory: &Path) -> io::Result<Locality> {
    let found = rustix::io::retry_on_intr(|| rustix::fs::statfs(directory))?;
    Ok(of_magic(magic(&found)))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn magic(found: &rustix::fs::StatFs) -> u32 {
    #[allow(
        clippy::allow_attributes,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the field's type differs between machines; magic numbers have 32 bits"
    )]
    let number = found.f_type as u32;
    number
}

/// Whether writing into reserved space of `file` never needs space again: where blocks are written
/// in place, and belong to one file alone. Others could find the disk full, or shared with a copy,
/// in the middle of a store through a mapping. The list names what was tried.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn keeps_reserved(file: &File) -> bool {
    const IN_PLACE: [u32; 2] = [
        0x0000_ef53, // ext4; ext2 and ext3 too, which reserve nothing in the first place
        0x0102_1994, // tmpfs
    ];
    rustix::io::retry_on_intr(|| rustix::fs::fstatfs(file))
        .is_ok_and(|found| IN_PLACE.contains(&magic(&found)))
}

/// Nothing is reserved here, so nothing is kept.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn keeps_reserved(_file: &File) -> bool {
    false
}

/// How much of the free space around `directory` a process may take, in bytes.
///
/// # Errors
/// What `statvfs` says.
#[cfg(unix)]
pub(super) fn free_bytes(directory: &Path) -> io::Result<u64> {
    let found = rustix::io::retry_on_intr(|| rustix::fs::statvfs(directory))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Where `directory` lies: here, for all this room knows.
///
/// # Errors
/// Never.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn of(_directory: &Path) -> io::Result<Locality> {
    Ok(Locality::Local)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn of_magic(magic: u32) -> Locality {
    match REMOTE.iter().find(|(number, _)| *number == magic) {
        Some((_, name)) => Locality::Remote((*name).to_owned()),
        None => Locality::Local,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_named_and_unknown_ones_are_local() {
        assert_eq!(of_magic(0x6969), Locality::Remote("nfs".to_owned()));
        assert_eq!(of_magic(0x6573_5546), Locality::Remote("fuse".to_owned()));
        assert_eq!(of_magic(0xef53), Locality::Local, "ext4");
        assert_eq!(of_magic(0x1234_5678), Locality::Local, "unknown");
    }

    #[test]
    fn magic_numbers_are_listed_once() {
        for (at, (magic, name)) in REMOTE.iter().enumerate() {
            assert!(
                REMOTE[..at].iter().all(|(other, _)| other != magic),
                "{name}"
            );
        }
    }
}
