//! Which file systems can be shared: all but those known to lie over a network or another program.
//!
//! A list of names to refuse, rather than of names to allow, so that a new local file system
//! works; what is not known is taken for local.

use std::io;
use std::path::Path;

use crate::vfs::Locality;

#[cfg(target_os = "linux")]
pub(super) fn of(directory: &Path) -> io::Result<Locality> {
    // The magic numbers of statfs(2).
    const REMOTE: &[(u32, &str)] = &[
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x0102_1997, "9P"),
        (0x6573_5546, "FUSE"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x6b41_4653, "kAFS"),
        (0x7375_7245, "Coda"),
        (0x0bd0_0bd0, "Lustre"),
        (0x6a65_6a63, "virtiofs"),
        (0x1983_0326, "BeeGFS"),
        (0x7461_636f, "OCFS2"),
        (0x0116_1970, "GFS2"),
        (0x4750_4653, "GPFS"),
        (0x786f_4256, "vboxsf"),
        (0xbacb_acbc, "vmhgfs"),
    ];
    let found = rustix::fs::statfs(directory)?;
    // The field's type and sign differ between architectures; the magic number has 32 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "32 bits of magic"
    )]
    let magic = found.f_type as u32;
    let remote = REMOTE.iter().find(|(number, _)| *number == magic);
    Ok(remote.map_or(Locality::Local, |(_, name)| {
        Locality::Remote((*name).to_owned())
    }))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn of(_directory: &Path) -> io::Result<Locality> {
    Ok(Locality::Local)
}
