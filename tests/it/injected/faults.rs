//! Which failures are injected: kinds of errors, what a failing call does, how long it lasts.

use happystore::vfs::sim::{Call, Fault, FaultEffect, FaultError, FaultScope};

/// What the operating system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errno {
    Io,
    StorageFull,
    Interrupted,
    QuotaExceeded,
    TooManyFiles,
    AccessDenied,
    ReadOnlyFileSystem,
}

impl Errno {
    pub(super) const ALL: [Self; 7] = [
        Self::Io,
        Self::StorageFull,
        Self::Interrupted,
        Self::QuotaExceeded,
        Self::TooManyFiles,
        Self::AccessDenied,
        Self::ReadOnlyFileSystem,
    ];

    /// Its number.
    fn number(self) -> i32 {
        use rustix::io::Errno as Os;
        let errno = match self {
            Self::Io => Os::IO,
            Self::StorageFull => Os::NOSPC,
            Self::Interrupted => Os::INTR,
            Self::QuotaExceeded => Os::DQUOT,
            Self::TooManyFiles => Os::MFILE,
            Self::AccessDenied => Os::ACCESS,
            Self::ReadOnlyFileSystem => Os::ROFS,
        };
        errno.raw_os_error()
    }

    /// Whether it says that no space is left.
    pub(super) fn is_full(self) -> bool {
        matches!(self, Self::StorageFull | Self::QuotaExceeded)
    }
}

/// How long a failure lasts: for one call, for all later ones, for all later ones of its kind.
const LASTING: [(bool, FaultScope); 3] = [
    (false, FaultScope::Every),
    (true, FaultScope::Every),
    (true, FaultScope::SameKind),
];

/// What a failing call of a kind may do, without what comes to the same.
fn effects(call: Call) -> &'static [FaultEffect] {
    use FaultEffect::{Clean, Done, Half};
    if call.only_looks() {
        &[Clean]
    } else if call.has_halves() {
        &[Clean, Done, Half]
    } else {
        &[Clean, Done]
    }
}

/// The first failure that is tried of each call; it tells which kind of call that is.
pub(super) fn probe() -> (Errno, Fault) {
    (Errno::Io, fault(Errno::Io, FaultEffect::Clean, LASTING[0]))
}

/// All failures of a call of this kind, but for the probe.
pub(super) fn of(call: Call) -> impl Iterator<Item = (Errno, Fault)> {
    let effects = effects(call).iter();
    effects.flat_map(|&effect| {
        let all = LASTING.into_iter().flat_map(move |lasting| {
            Errno::ALL.map(|errno| (errno, fault(errno, effect, lasting)))
        });
        all.filter(|(_, fault)| *fault != probe().1)
    })
}

fn fault(errno: Errno, effect: FaultEffect, (lasting, scope): (bool, FaultScope)) -> Fault {
    Fault {
        effect,
        error: FaultError::Os(errno.number()),
        lasting,
        scope,
    }
}
