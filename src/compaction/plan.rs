//! Which segments are worth rewriting: a decision over numbers alone.
//!
//! Each finished segment of which at least [`Policy::dead_ratio`] is dead is a victim; one without
//! live bytes costs nothing and always is. With a ratio of a half no other segment is more than twice
//! as long as what lives in it, so a store that is left alone for a moment takes at most twice its
//! live bytes, and its active segment. Tombstones that are still needed count as alive as long as
//! that holds; if it does not, all is rewritten, and they go with what they were needed for.

/// What there is to know of a finished segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its id.
    pub(crate) id: u32,
    /// Whether it was made by compaction.
    pub(crate) is_compacted: bool,
    /// The length of its records; of a compacted one, of their entries.
    pub(crate) bytes: u64,
    /// How much of that the index points to.
    pub(crate) live_bytes: u64,
    /// How much of it tombstones are that compaction found needed, and that still are.
    pub(crate) needed_bytes: u64,
}

impl Candidate {
    fn dead_bytes(&self) -> u64 {
        let kept = self.live_bytes.saturating_add(self.needed_bytes);
        self.bytes.saturating_sub(kept)
    }

    fn has_dead_share(&self, ratio: f64) -> bool {
        1.0 - self.live_share() >= ratio
    }

    /// The share that lives, or is needed.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    fn live_share(&self) -> f64 {
        let live_bytes = self.bytes.saturating_sub(self.dead_bytes());
        live_bytes as f64 / self.bytes.max(1) as f64
    }

    fn is_dead(&self) -> bool {
        self.dead_bytes() == self.bytes
    }
}

/// When a segment is worth rewriting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Policy {
    /// From which share of dead bytes on.
    pub(crate) dead_ratio: f64,
    /// How many dead bytes there must be in all victims.
    pub(crate) dead_bytes: u64,
    /// How long a segment may become.
    pub(crate) segment_bytes: u64,
}

/// How many short segments of compaction's there may be before they are made one.
const SHORT_MAX: usize = 8;

/// How many segments are about written in one run.
const RUN_SEGMENTS: u64 = 2;

/// The ids of the segments to be rewritten next, rising; none if it is not worth while.
///
/// What is dead as a whole goes first and alone. Of the rest so many are rewritten at once, the
/// deadest first, that their space comes back soon.
pub(crate) fn victims(candidates: &[Candidate], policy: &Policy) -> Vec<u32> {
    let mut chosen: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.has_dead_share(policy.dead_ratio))
        .collect();
    if chosen.iter().any(|candidate| candidate.is_dead()) {
        chosen.retain(|candidate| candidate.is_dead());
        return ids(&chosen);
    }
    let is_short = |candidate: &&Candidate| {
        candidate.is_compacted && candidate.bytes < policy.segment_bytes / 4
    };
    let short: Vec<&Candidate> = candidates.iter().filter(is_short).collect();
    if short.len() > SHORT_MAX {
        chosen = short;
    } else if chosen.iter().map(|victim| victim.dead_bytes()).sum::<u64>() < policy.dead_bytes {
        chosen.clear();
    }
    if exceeds_bound(candidates, &chosen, policy) {
        chosen = candidates.iter().collect();
    } else {
        chosen.sort_by(|one, other| one.live_share().total_cmp(&other.live_share()));
        let mut left = RUN_SEGMENTS * policy.segment_bytes;
        chosen.retain(|victim| {
            let fits = left > 0;
            left = left.saturating_sub(victim.live_bytes);
            fits
        });
    }
    ids(&chosen)
}

fn ids(chosen: &[&Candidate]) -> Vec<u32> {
    let mut ids: Vec<u32> = chosen.iter().map(|victim| victim.id).collect();
    ids.sort_unstable();
    ids
}

/// Whether what is left after `chosen` were rewritten takes more than twice what lives, and a
/// segment.
fn exceeds_bound(candidates: &[Candidate], chosen: &[&Candidate], policy: &Policy) -> bool {
    let kept = |candidate: &Candidate| {
        if chosen.iter().any(|victim| victim.id == candidate.id) {
            candidate.live_bytes.saturating_add(candidate.needed_bytes)
        } else {
            candidate.bytes
        }
    };
    let bytes: u64 = candidates.iter().map(kept).sum();
    let live_bytes: u64 = candidates
        .iter()
        .map(|candidate| candidate.live_bytes)
        .sum();
    bytes > 2 * live_bytes + policy.segment_bytes
}

/// The ids of all segments, if there is anything to be won by rewriting all of them.
pub(crate) fn everything(candidates: &[Candidate]) -> Vec<u32> {
    let is_done =
        |candidate: &Candidate| candidate.is_compacted && candidate.live_bytes == candidate.bytes;
    if candidates.iter().all(is_done) {
        return Vec::new();
    }
    candidates.iter().map(|candidate| candidate.id).collect()
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Policy, everything, victims};

    const POLICY: Policy = Policy {
        dead_ratio: 0.5,
        dead_bytes: 100,
        segment_bytes: 1000,
    };

    fn of_log(id: u32, bytes: u64, live_bytes: u64) -> Candidate {
        Candidate {
            id,
            is_compacted: false,
            bytes,
            live_bytes,
            needed_bytes: 0,
        }
    }

    fn compacted(id: u32, bytes: u64, live_bytes: u64, needed_bytes: u64) -> Candidate {
        Candidate {
            is_compacted: true,
            needed_bytes,
            ..of_log(id, bytes, live_bytes)
        }
    }

    #[test]
    fn those_that_are_half_dead_are_victims_and_others_are_left_alone() {
        let candidates = [
            of_log(1, 1000, 501),
            of_log(2, 1000, 500),
            of_log(3, 1000, 900),
        ];
        assert_eq!(victims(&candidates, &POLICY), [2]);
        assert!(victims(&candidates[2..], &POLICY).is_empty());
        assert!(victims(&[], &POLICY).is_empty());
    }

    #[test]
    fn a_few_dead_bytes_are_left_but_not_a_segment_of_nothing_else() {
        assert!(victims(&[of_log(1, 150, 60), of_log(2, 900, 900)], &POLICY).is_empty());
        assert_eq!(
            victims(&[of_log(1, 50, 0), of_log(2, 900, 900)], &POLICY),
            [1]
        );
    }

    #[test]
    fn tombstones_that_are_needed_are_left_until_they_take_too_much() {
        let few = [compacted(4, 800, 0, 800), of_log(2, 3000, 2000)];
        assert!(victims(&few, &POLICY).is_empty());
        let many = [compacted(4, 2500, 0, 2500), of_log(2, 3000, 2000)];
        assert_eq!(victims(&many, &POLICY), [2, 4]);
    }

    #[test]
    fn many_short_ones_become_one() {
        let short = |id| compacted(id, 200, 200, 0);
        let mut all: Vec<Candidate> = (1..=8).map(short).collect();
        assert!(victims(&all, &POLICY).is_empty());
        all.push(compacted(9, 900, 900, 0));
        assert!(victims(&all, &POLICY).is_empty());
        all.push(short(10));
        assert_eq!(victims(&all, &POLICY), [1, 2, 3, 4, 5, 6, 7, 8, 10]);
    }

    #[test]
    fn whatever_is_left_alone_takes_at_most_twice_what_lives() {
        let mut random = 1_u64;
        let mut below = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % bound
        };
        for _ in 0..2000 {
            let candidates: Vec<Candidate> = (1..=1 + below(12))
                .map(|id| {
                    let bytes = 1 + below(1000);
                    let live_bytes = below(bytes + 1);
                    let needed = below(bytes - live_bytes + 1) * below(2);
                    let id = u32::try_from(id).unwrap();
                    compacted(id, bytes, live_bytes, needed)
                })
                .collect();
            let policy = Policy {
                dead_bytes: 0,
                ..POLICY
            };
            let live: u64 = candidates.iter().map(|one| one.live_bytes).sum();
            let mut now = candidates.clone();
            for run in 0.. {
                assert!(run < 100, "it never ends with {candidates:?}");
                let chosen = victims(&now, &policy);
                if chosen.is_empty() {
                    break;
                }
                let is_all = chosen.len() == now.len();
                let is_moved = |one: &Candidate| chosen.contains(&one.id);
                let (moved, left): (Vec<_>, Vec<_>) = now.into_iter().partition(is_moved);
                let needed = |one: &Candidate| if is_all { 0 } else { one.needed_bytes };
                let needed_bytes = moved.iter().map(needed).sum();
                let live_bytes = moved.iter().map(|one| one.live_bytes).sum();
                let bytes = live_bytes + needed_bytes;
                now = left;
                if bytes > 0 {
                    now.push(compacted(100 + run, bytes, live_bytes, needed_bytes));
                }
            }
            let after: u64 = now.iter().map(|one| one.bytes).sum();
            assert!(
                after <= 2 * live + policy.segment_bytes,
                "{candidates:?}: {now:?}"
            );
        }
    }

    #[test]
    fn everything_is_rewritten_unless_it_was_and_nothing_has_changed() {
        assert!(everything(&[compacted(1, 10, 10, 0)]).is_empty());
        assert!(everything(&[]).is_empty());
        let all = [compacted(1, 10, 10, 0), of_log(2, 10, 10)];
        assert_eq!(everything(&all), [1, 2]);
        assert_eq!(everything(&[compacted(1, 10, 9, 1)]), [1]);
    }
}
