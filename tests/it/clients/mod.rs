//! Clients that commit and read at once see one history, and a power cut takes none of what any
//! of them was told or shown.
//!
//! A [`run`] has several [`client`]s, each on a thread of its own, of which exactly one runs at a
//! time; a seed says which. The [`record`] checks what they are told while they run. What the run
//! leaves goes to `crash::explore`, which stops the machine at its crash points; [`tiers`] says how
//! many runs there are, and [`planted`] plants bugs that all of this must find.
//!
//! `HAPPYSTORE_SEED` sets the first seed, `HAPPYSTORE_CLIENT_SCHEDULES` how many there are.

mod client;
mod planted;
mod record;
mod run;
mod tiers;
mod write;
