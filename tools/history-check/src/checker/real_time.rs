//! Whatever ended before something else began stands before it.

use super::{Place, Violation};
use crate::history::Transaction;

/// Refuses two transactions of which one ended before the other began, and stands behind it.
///
/// Transactions are taken in the order of their begins; what has ended by then is represented by
/// the one that stands furthest back, because if that one is not behind the new one, none is.
pub(super) fn check(
    history: &[Transaction<'_>],
    places: &[Option<Place>],
) -> Result<(), Violation> {
    let all = || (0..history.len()).filter_map(|at| places[at].map(|place| (place, at)));
    let mut begins: Vec<_> = all().collect();
    let mut ends = begins.clone();
    begins.sort_unstable_by_key(|&(_, at)| history[at].begin);
    ends.sort_unstable_by_key(|&(_, at)| history[at].end);
    let mut ends = ends.into_iter().peekable();
    let mut furthest: Option<(Place, usize)> = None;
    for (place, at) in begins {
        let begin = history[at].begin;
        while let Some(ended) = ends.next_if(|&(_, at)| history[at].end < begin) {
            furthest = furthest.max(Some(ended));
        }
        if let Some((place_before, before)) = furthest.filter(|(before, _)| *before > place) {
            return Err(Violation::RealTime {
                before: history[before].id,
                ended: history[before].end,
                position_before: place_before.position(),
                after: history[at].id,
                began: begin,
                position_after: place.position(),
            });
        }
    }
    Ok(())
}
