//! A campaign: stores beside each other and one after another, until there were kills enough.

pub(crate) mod aim;
mod life;
pub(crate) mod report;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::{CampaignArguments, Mode, Planted};
use crate::oracle::Broken;
use aim::Kind;
use life::{Life, Stop};
pub(crate) use report::Tally;

/// How many kills there are unless another number, or a time, is asked for.
const KILLS_DEFAULT: u64 = 200;

/// What does not change within a campaign.
pub(crate) struct Settings {
    program: PathBuf,
    modes: Vec<Mode>,
    writers: Option<u8>,
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
            kinds.retain(|kind| *kind != Kind::Call);
        }
        Ok(Self {
            program,
            modes: arguments.modes.clone(),
            writers: arguments.writers,
            planted: arguments.planted,
            kinds,
            directory,
            keep: arguments.keep,
        })
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
    failures: Mutex<Vec<Failure>>,
}

/// Runs a campaign, and says how it went.
pub(crate) fn run(arguments: &CampaignArguments) -> ExitCode {
    let settings = match Settings::new(arguments) {
        Ok(settings) => settings,
        Err(error) => return crate::cannot(error),
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
        !reached && !self.has_failed.load(Ordering::Relaxed)
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
        let mut life = Life::new(&self.settings, seed, directory.path());
        let ended = life.run(&self.tally, &|| self.goes_on());
        let last = std::mem::take(&mut life.last);
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
        if failures.is_empty() {
            report::line("all promises were kept");
        }
        code
    }

    /// The command line of a campaign that begins with the store of `seed`.
    fn command_of(&self, seed: u64) -> String {
        let modes: Vec<_> = self.settings.modes.iter().map(|mode| mode.name()).collect();
        let writers = self.settings.writers;
        let writers = writers.map_or_else(String::new, |writers| format!(" --writers {writers}"));
        let modes = modes.join(",");
        format!("happystore-crash-harness --seed {seed} --jobs 1 --modes {modes}{writers}")
    }
}

fn shown(directory: &Path) -> String {
    let path = directory.display();
    format!("{path} (`store` as it is, `killed` as the kill left it, `errors` of the children)")
}
