//! Whatever call of the machine fails, and however: no value is wrong, nothing acknowledged is
//! lost, errors are of their kinds, and the store goes on or says why not.
//!
//! A [`workload`] runs in a simulated world, through a [`runner`] that judges every answer by what
//! is [`expected`]; a [`case`] injects one of the [`faults`], heals, goes on, opens again and cuts
//! the power; [`sweep`] does so at every call. [`full_disk`] runs the same workloads on disks of all
//! sizes; [`planted`] plants bugs that all of this must find; [`known`] has those that it found.
//!
//! `HAPPYSTORE_SEED` sets the first seed of the workloads made by chance,
//! `HAPPYSTORE_FAULT_WORKLOADS` how many there are.

mod case;
mod commits;
mod expected;
mod faults;
mod full_disk;
mod known;
mod look;
mod planted;
mod runner;
mod sweep;
mod workload;
