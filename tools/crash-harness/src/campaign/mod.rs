//! A campaign: stores beside each other and one after another, until there were kills enough.

pub(crate) mod aim;
mod compactor;
mod life;
pub(crate) mod report;
mod together;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::{CampaignArguments, Mode, Planted, name_of};
use crate::oracle::Broken;
use aim::Kind;
use life::{Life, Stop};
pub(crate) use report::Tally;
use together::Together;

/// How many kills there are unless another number, or a time, is asked for.
const KILLS_DEFAULT: u64 = 200;

/// What does not change within a campaign.
pub(crate) struct Settings {
    program: PathBuf,
    modes: Vec<Mode>,
    processes: Vec<u8>,
    writers: Option<u8>,
    patience: Duration,
    planted: Option<Planted>,
    kinds: Vec<Kind>,
    directory: PathBuf,
    keep: bool,
}

impl Settings {
    fn new(arguments: &CampaignArguments) -> Result<Self, String> {
        let program = std::env::current_exe()
            .map_err(|error| format!("find the program itself, to start children: {error}"))?;
        let directory = arguments
            .directory
            .clone()
            .unwrap_or_else(std::env::temp_dir);
        if !directory.is_dir() {
            return Err(format!(
                "make stores in {}: it is no directory",
                directory.display()
            ));
        }
        let mut kinds = Kind::ALL.to_vec();
        if !aim::has_strace() {
            report::skipped("kills at system calls, because there is no strace that may trace");
            kinds.retain(|kind| !matches!(kind, Kind::Call | Kind::CallOfSeveral));
        }
        if !compactor::is_known() {
            report::skipped("kills while compacting, because there is no list of locks");
            kinds.retain(|kind| !matches!(kind, Kind::Compacting | Kind::CompactingOfSeveral));
        }
        Ok(Self {
            program,
            modes: arguments.modes.clone(),
            processes: arguments.processes.clone(),
            writers: arguments.writers,
            patience: Duration::from_secs(arguments.patience),
            planted: arguments.planted,
            kinds,
            directory,
            keep: arguments.keep,
        })
    }

    /// How many processes write to the store of `seed` at a time. The modes take turns with each
    /// store, so this does with each round of them.
    fn processes_of(&self, seed: u64) -> u8 {
        let round = seed / self.modes.len() as u64;
        let at = (seed + round) % self.processes.len() as u64;
        self.processes[usize::try_from(at).unwrap_or(0)]
    }

    fn has_strace(&self) -> bool {
        self.kinds.contains(&Kind::Call)
    }
}

/// When a campaign ends.
enum Goal {
    Kills(u64),
    Time(Duration),
}

/// A broken promise, and where it can be looked at.
struct Failure {
    what: Stop,
    seed: u64,
    last: String,
    directory: PathBuf,
}

/// What the threads of a campaign share.
struct Campaign {
    settings: Settings,
    goal: Goal,
    begun: Instant,
    seed: u64,
    /// How many stores there were.
    stores: AtomicU64,
    tally: Tally,
    has_failed: AtomicBool,
    is_interrupted: Arc<AtomicBool>,
    failures: Mutex<Vec<Failure>>,
}

/// Is set when the program is interrupted; a second time ends it at once.
fn catch_interrupts() -> Result<Arc<AtomicBool>, ctrlc::Error> {
    let flag = Arc::new(AtomicBool::new(false));
    let is_interrupted = flag.clone();
    ctrlc::set_handler(move || {
        if is_interrupted.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(crate::EXIT_INTERRUPTED));
        }
    })?;
    Ok(flag)
}

/// Runs a campaign, and says how it went.
pub(crate) fn run(arguments: &CampaignArguments) -> ExitCode {
    let settings = match Settings::new(arguments) {
        Ok(settings) => settings,
        Err(error) => return crate::cannot(error),
    };
    let is_interrupted = match catch_interrupts() {
        Ok(flag) => flag,
        Err(error) => return crate::cannot(format!("be told of interrupts: {error}")),
    };
    let campaign = Campaign {
        settings,
        goal: match arguments.minutes {
            Some(minutes) => Goal::Time(Duration::from_mins(minutes)),
            None => Goal::Kills(arguments.kills.unwrap_or(KILLS_DEFAULT)),
        },
        begun: Instant::now(),
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        stores: AtomicU64::new(0),
        tally: Tally::default(),
        has_failed: AtomicBool::new(false),
        is_interrupted,
        failures: Mutex::default(),
    };
    report::line(format!("seed {}", campaign.seed));
    thread::scope(|scope| {
        let jobs: Vec<_> = (0..arguments.jobs)
            .map(|_| scope.spawn(|| campaign.job()))
            .collect();
        report::progress(&campaign, || {
            jobs.iter().all(thread::ScopedJoinHandle::is_finished)
        });
    });
    report::line(&campaign.tally);
    report::line(format!(
        "seconds {:.1}",
        campaign.begun.elapsed().as_secs_f64()
    ));
    campaign.verdict()
}

impl Campaign {
    /// Whether there is more to do.
    fn goes_on(&self) -> bool {
        let reached = match self.goal {
            Goal::Kills(kills) => self.tally.kills() >= kills,
            Goal::Time(time) => self.begun.elapsed() >= time,
        };
        !reached && !self.has_failed.load(Ordering::Relaxed) && !self.is_interrupted()
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Relaxed)
    }

    fn job(&self) {
        while self.goes_on() {
            // A store's seed is all that it follows from: a campaign that begins with it begins
            // with this store.
            let at = self.stores.fetch_add(1, Ordering::Relaxed);
            let seed = self.seed.wrapping_add(at);
            match self.store(seed) {
                Ok(()) => {}
                Err(error) => self.failed(Failure {
                    what: Stop::Cannot(error),
                    seed,
                    last: "no child".to_owned(),
                    directory: self.settings.directory.clone(),
                }),
            }
        }
    }

    fn store(&self, seed: u64) -> io::Result<()> {
        let prefix = format!("happystore-crash-{seed}-");
        let directory = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&self.settings.directory)?;
        let (settings, tally) = (&self.settings, &self.tally);
        let processes = settings.processes_of(seed);
        let (ended, last) = if processes == 1 {
            let mut life = Life::new(settings, seed, directory.path());
            let ended = life.run(tally, &|| self.goes_on());
            (ended, life.last)
        } else {
            let mut together = Together::new(settings, seed, directory.path(), processes, tally)?;
            let ended = together.run(&|| self.goes_on());
            (ended, together.end()?)
        };
        match ended {
            Ok(()) if self.settings.keep => {
                let kept = directory.keep();
                report::line(format!("kept {}", kept.display()));
            }
            Ok(()) => {}
            Err(what) => self.failed(Failure {
                what,
                seed,
                last,
                directory: directory.keep(),
            }),
        }
        Ok(())
    }

    fn failed(&self, failure: Failure) {
        self.has_failed.store(true, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push(failure);
    }

    fn verdict(&self) -> ExitCode {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut code = ExitCode::SUCCESS;
        for failure in failures.iter() {
            match &failure.what {
                Stop::Broken(Broken(what)) => {
                    code = ExitCode::from(crate::EXIT_BROKEN);
                    report::line(format!("BROKEN: {what}"));
                    report::line(format!("  after: {}", failure.last));
                    report::line(format!("  repeat: {}", self.command_of(failure.seed)));
                    report::line(format!("  kept: {}", shown(&failure.directory)));
                }
                Stop::Cannot(error) => return crate::cannot(format!("go on: {error}")),
            }
        }
        if !failures.is_empty() {
            return code;
        }
        if self.is_interrupted() {
            report::line("interrupted; all promises were kept until then");
            return ExitCode::from(crate::EXIT_INTERRUPTED);
        }
        report::line("all promises were kept");
        code
    }

    /// The command line of a campaign that begins with the store of `seed`.
    fn command_of(&self, seed: u64) -> String {
        let modes: Vec<_> = self.settings.modes.iter().map(name_of).collect();
        let writers = self.settings.writers;
        let writers = writers.map_or_else(String::new, |writers| format!(" --writers {writers}"));
        let processes: Vec<_> = self.settings.processes.iter().map(u8::to_string).collect();
        let (modes, processes) = (modes.join(","), processes.join(","));
        format!(
            "happystore-crash-harness --seed {seed} --jobs 1 --modes {modes} --processes {processes}{writers}"
        )
    }
}

fn shown(directory: &Path) -> String {
    let path = directory.display();
    format!("{path} (`store` as it is, `killed` as the kill left it, `errors` of the children)")
}
