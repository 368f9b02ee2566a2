//! Which segments are worth rewriting: a decision over numbers alone.
//!
//! Each finished segment of which at least [`Policy::dead_ratio`] is dead is a victim; one without
//! live bytes costs nothing and always is. With a ratio of a half no other segment is more than twice
//! as long as what lives in it, so a store that is left alone for a moment takes at most twice its
//! live bytes, and its active segment. Tombstones that are still needed count as alive as long as
//! that holds; if it does not, all is rewritten, and they go with what they were needed for.
//!
//! Hints count too: where keys are long and values short they take more than what lives. Then the
//! store takes at most half as much again as it would if it were rewritten as a whole.

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
    /// Whether it has tombstones.
    pub(crate) has_tombstones: bool,
    /// The length of its hints; 0 if it is not known to have any.
    pub(crate) hint_bytes: u64,
}

impl Candidate {
    fn dead_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.kept_bytes())
    }

    fn kept_bytes(&self) -> u64 {
        self.live_bytes.saturating_add(self.needed_bytes)
    }

    /// No hints are longer: none is longer than its entry by more than is in a hint beside the key.
    pub(crate) fn hint_bytes_max(&self) -> u64 {
        self.bytes.saturating_mul(3)
    }

    /// About how long the hints are of `part` of its bytes.
    fn hint_bytes_of(&self, part: u64) -> u64 {
        let share = u128::from(self.hint_bytes) * u128::from(part.min(self.bytes));
        u64::try_from(share / u128::from(self.bytes.max(1))).unwrap_or(u64::MAX)
    }

    /// About how much is written when it is rewritten.
    fn rewritten_bytes(&self) -> u64 {
        let kept = self.kept_bytes();
        let hints = match self.hint_bytes {
            0 => kept,
            _ => self.hint_bytes_of(kept),
        };
        kept.saturating_add(kept / 8).saturating_add(hints)
    }

    /// Whether at least the share `ratio` of it is dead.
    pub(crate) fn has_dead_share(&self, ratio: f64) -> bool {
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
    /// Whether some finished segments are no candidates: then it is in vain to rewrite all others for
    /// the sake of tombstones.
    pub(crate) is_partial: bool,
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
    let dead: Vec<&Candidate> = candidates.iter().filter(|one| one.is_dead()).collect();
    if !dead.is_empty() {
        return ids(&dead);
    }
    let mut all: Vec<&Candidate> = candidates.iter().collect();
    all.sort_by(|one, other| one.live_share().total_cmp(&other.live_share()));
    let mut count = all.partition_point(|one| one.has_dead_share(policy.dead_ratio));
    let dead_bytes: u64 = all[..count].iter().map(|one| one.dead_bytes()).sum();
    let is_short = |one: &&Candidate| one.is_compacted && one.bytes < policy.segment_bytes / 4;
    if all.iter().filter(|one| is_short(one)).count() > SHORT_MAX {
        all.retain(|one| is_short(one));
        count = all.len();
    } else {
        if dead_bytes < policy.dead_bytes {
            count = 0;
        }
        let bound = bound_bytes(&all);
        let mut most = bound;
        while bytes_after(&all, count) > most + policy.segment_bytes {
            // Once it is exceeded: so much that it is not soon exceeded again.
            most = bound - bound / 8;
            if count == all.len() || all[count].dead_bytes() == 0 {
                if policy.is_partial {
                    break;
                }
                // Tombstones that are needed take too much: they go with all that is old.
                return ids(&all);
            }
            count += 1;
        }
    }
    all.truncate(count);
    let mut left = RUN_SEGMENTS * policy.segment_bytes;
    all.retain(|victim| {
        let fits = left > 0;
        left = left.saturating_sub(victim.live_bytes);
        fits
    });
    ids(&all)
}

fn ids(chosen: &[&Candidate]) -> Vec<u32> {
    let mut ids: Vec<u32> = chosen.iter().map(|victim| victim.id).collect();
    ids.sort_unstable();
    ids
}

/// What `all` may take at most, beside a segment: twice what lives, or half as much again as if all
/// were rewritten.
fn bound_bytes(all: &[&Candidate]) -> u64 {
    let live: u64 = all.iter().map(|one| one.live_bytes).sum();
    let hints = all.iter().map(|one| one.hint_bytes_of(one.live_bytes));
    let rewritten = live + hints.sum::<u64>();
    (2 * live).max(rewritten + rewritten / 2)
}

/// What is left after the first `count` of `all` were rewritten.
fn bytes_after(all: &[&Candidate], count: usize) -> u64 {
    let (chosen, others) = all.split_at(count);
    let rewritten = |one: &&Candidate| one.kept_bytes() + one.hint_bytes_of(one.kept_bytes());
    let rewritten: u64 = chosen.iter().map(rewritten).sum();
    let others: u64 = others.iter().map(|one| one.bytes + one.hint_bytes).sum();
    rewritten + others
}

/// Those of `victims` that can be rewritten in `room_bytes` of free space, the deadest first; at least
/// one.
///
/// # Errors
/// How many bytes the first one needs.
pub(crate) fn within_room(
    candidates: &[Candidate],
    victims: &[u32],
    room_bytes: u64,
) -> Result<Vec<u32>, u64> {
    let is_victim = |one: &&Candidate| victims.contains(&one.id);
    let mut all: Vec<&Candidate> = candidates.iter().filter(is_victim).collect();
    all.sort_by_key(|one| one.rewritten_bytes());
    let first_bytes = all.first().map_or(0, |one| one.rewritten_bytes());
    let mut left = room_bytes;
    all.retain(|one| {
        let is_room = one.rewritten_bytes() <= left;
        left = left.saturating_sub(one.rewritten_bytes());
        is_room
    });
    if all.len() < victims.len() {
        // Tombstones go with all that is old, not with a part of it.
        all.retain(|one| one.dead_bytes() > 0);
    }
    if all.is_empty() {
        return Err(first_bytes);
    }
    Ok(ids(&all))
}

/// The ids of all segments, if there is anything to be won by rewriting them.
///
/// Without those that are as long as compaction makes them, and of which all lives: what a run has
/// made that was killed is not made again. Short ones are made one with the others.
pub(crate) fn everything(candidates: &[Candidate], segment_bytes: u64) -> Vec<u32> {
    let is_done = |one: &Candidate| one.is_compacted && one.live_bytes == one.bytes;
    if candidates.iter().all(is_done) {
        return Vec::new();
    }
    let stays = |one: &&Candidate| is_done(one) && one.bytes >= segment_bytes / 2;
    let rewritten: Vec<&Candidate> = candidates.iter().filter(|one| !stays(one)).collect();
    ids(&rewritten)
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Policy, everything, victims, within_room};

    const POLICY: Policy = Policy {
        dead_ratio: 0.5,
        dead_bytes: 100,
        segment_bytes: 1000,
        is_partial: false,
    };

    fn of_log(id: u32, bytes: u64, live_bytes: u64) -> Candidate {
        Candidate {
            id,
            is_compacted: false,
            bytes,
            live_bytes,
            needed_bytes: 0,
            has_tombstones: false,
            hint_bytes: 0,
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
        let many = [compacted(4, 3500, 0, 3500), of_log(2, 3000, 2000)];
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
        for _ in 0..4000 {
            // Hints of long keys with short values are longer than the entries.
            let quarters = below(10);
            let with_hints = |one: Candidate| Candidate {
                hint_bytes: one.bytes * quarters / 4,
                ..one
            };
            let candidates: Vec<Candidate> = (1..=1 + below(12))
                .map(|id| {
                    let bytes = 1 + below(1000);
                    let live_bytes = below(bytes + 1);
                    let needed = below(bytes - live_bytes + 1) * below(2);
                    let id = u32::try_from(id).unwrap();
                    with_hints(compacted(id, bytes, live_bytes, needed))
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
                    let made = compacted(100 + run, bytes, live_bytes, needed_bytes);
                    now.push(with_hints(made));
                }
            }
            let after: u64 = now.iter().map(|one| one.bytes + one.hint_bytes).sum();
            let rewritten = live + live * quarters / 4;
            let bound = (2 * live).max(rewritten + rewritten / 2);
            assert!(
                after <= bound + policy.segment_bytes,
                "{candidates:?}: {now:?}"
            );
        }
    }

    #[test]
    fn what_is_nearly_dead_alone_is_rewritten_where_hints_exceed_the_bound() {
        let hinted = |one: Candidate| Candidate {
            hint_bytes: one.bytes / 2,
            ..one
        };
        let all = [
            hinted(of_log(1, 4000, 3000)),
            hinted(of_log(2, 4000, 2200)),
            hinted(of_log(3, 4000, 3900)),
        ];
        // 9100 live bytes of 18000, hints included: the bound is not exceeded.
        let policy = |segment_bytes| Policy {
            segment_bytes,
            ..POLICY
        };
        assert!(victims(&all, &policy(1000)).is_empty());
        // 5200 of 12000: here it is.
        assert_eq!(victims(&all[..2], &policy(100)), [2]);
    }

    #[test]
    fn no_more_is_rewritten_at_once_than_there_is_room_for() {
        let all = [
            compacted(1, 1000, 160, 0),
            of_log(2, 1000, 400),
            of_log(3, 1000, 0),
        ];
        // A key's hint may be as long as its entry, as long as nobody knows.
        assert_eq!(within_room(&all, &[1, 2, 3], 340 + 850), Ok(vec![1, 2, 3]));
        assert_eq!(within_room(&all, &[1, 2, 3], 340 + 849), Ok(vec![1, 3]));
        assert_eq!(within_room(&all, &[1, 2, 3], 0), Ok(vec![3]));
        assert_eq!(within_room(&all, &[1, 2], 339), Err(340));
    }

    #[test]
    fn where_not_all_can_be_rewritten_nothing_is_for_the_sake_of_tombstones() {
        let all = [compacted(1, 2000, 2000, 0), compacted(2, 6000, 0, 6000)];
        assert_eq!(victims(&all, &POLICY), [1, 2]);
        assert_eq!(within_room(&all, &[1, 2], 1 << 20), Ok(vec![1, 2]));
        assert_eq!(within_room(&all, &[1, 2], 5000), Err(4250));
        let partial = Policy {
            is_partial: true,
            ..POLICY
        };
        assert!(victims(&all, &partial).is_empty());
    }

    #[test]
    fn everything_is_rewritten_unless_it_was_and_nothing_has_changed() {
        let everything = |all: &[Candidate]| everything(all, 20);
        assert!(everything(&[compacted(1, 9, 9, 0)]).is_empty());
        assert!(everything(&[]).is_empty());
        let all = [compacted(1, 9, 9, 0), of_log(2, 10, 10)];
        assert_eq!(everything(&all), [1, 2]);
        assert_eq!(everything(&[compacted(1, 10, 9, 1)]), [1]);
        let all = [
            compacted(1, 10, 10, 0),
            of_log(2, 10, 10),
            compacted(3, 10, 9, 0),
        ];
        assert_eq!(everything(&all), [2, 3]);
    }
}
