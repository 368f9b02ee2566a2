//! Choosing an operation: mostly overwrites of few keys, and a bit of everything else.

use fastrand::Rng;

use super::{
    Fate, Form, GROUPS, Id, Operation, Reach, Step, TOGETHER, common_prefix, group_keys,
    group_prefix, own_prefix,
};

/// How many keys each writer overwrites and deletes again and again.
const HOT_KEYS: usize = 8;

/// How deep transactions nest.
const DEPTH_MAX: usize = 3;

/// The operation of `id` in the store of `seed`.
pub(super) fn operation(seed: u64, id: Id) -> Operation {
    let random = &mut Rng::with_seed(seed ^ id.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let reach = match random.u8(..4) {
        0 => Reach::Sync,
        1 => Reach::Deferred,
        _ => Reach::Os,
    };
    let among = random.u8(..4);
    let is_shared = match id.writer {
        0..TOGETHER => among == 0,
        // In every other store all that is written is in one order; in others some is beside it.
        _ => seed.is_multiple_of(2) || among != 0,
    };
    let in_transaction = is_shared || random.u8(..3) == 0;
    let mut keys = Keys::new(id, is_shared);
    let steps = if is_shared && (id.writer < TOGETHER || random.bool()) {
        shared_steps(random)
    } else if in_transaction {
        let count = random.usize(1..=4);
        (0..count).map(|_| step(random, &mut keys, 1)).collect()
    } else {
        vec![simple_step(random, &mut keys)]
    };
    let fate = match random.u8(..20) {
        0 if in_transaction => Fate::Drop,
        1 | 2 if in_transaction => Fate::Abort,
        _ => Fate::Commit,
    };
    let form = match fate {
        _ if !in_transaction => Form::Plain,
        Fate::Abort => Form::Closure,
        Fate::Commit if random.bool() => Form::Closure,
        Fate::Commit | Fate::Drop => Form::Guard,
    };
    Operation {
        id,
        is_shared,
        form,
        reach,
        steps,
        fate,
    }
}

/// The keys of one writer, or common ones, as an operation names them.
struct Keys {
    id: Id,
    prefix: String,
    /// How many keys the operation has made up that no other one names.
    made: u32,
}

impl Keys {
    fn new(id: Id, is_shared: bool) -> Self {
        let prefix = if is_shared {
            common_prefix(id.writer)
        } else {
            own_prefix(id.writer)
        };
        Self {
            id,
            prefix,
            made: 0,
        }
    }

    fn hot(&self, random: &mut Rng) -> String {
        let at = random.usize(..HOT_KEYS);
        format!("{}hot/{at}", self.prefix)
    }

    fn unique(&mut self) -> String {
        self.made += 1;
        format!("{}new/{}/{}", self.prefix, self.id, self.made)
    }

    fn any(&mut self, random: &mut Rng) -> String {
        if random.u8(..3) == 0 {
            self.unique()
        } else {
            self.hot(random)
        }
    }
}

fn step(random: &mut Rng, keys: &mut Keys, depth: usize) -> Step {
    if depth >= DEPTH_MAX || random.u8(..3) > 0 {
        return simple_step(random, keys);
    }
    let count = random.usize(1..=3);
    let steps = (0..count).map(|_| step(random, keys, depth + 1)).collect();
    let fate = match random.u8(..4) {
        0 => Fate::Abort,
        1 => Fate::Drop,
        _ => Fate::Commit,
    };
    Step::Nested(steps, fate)
}

fn simple_step(random: &mut Rng, keys: &mut Keys) -> Step {
    match random.u8(..12) {
        0..=4 => Step::Set(keys.any(random)),
        5 | 6 => Step::Delete(keys.hot(random)),
        7 | 8 => {
            let count = random.usize(2..12);
            Step::BulkSet((0..count).map(|_| keys.any(random)).collect())
        }
        9 => {
            let count = random.usize(2..6);
            Step::BulkDelete((0..count).map(|_| keys.hot(random)).collect())
        }
        10 => Step::QueryDelete {
            prefix: format!("{}new/", keys.prefix),
            limit: Some(random.usize(1..20)),
            reverse: random.bool(),
        },
        _ => Step::QueryDelete {
            prefix: format!("{}hot/{}", keys.prefix, random.u8(..4)),
            limit: None,
            reverse: false,
        },
    }
}

/// Writes or deletes a group as a whole, perhaps beside an inner transaction that does not count.
fn shared_steps(random: &mut Rng) -> Vec<Step> {
    let group = random.usize(..GROUPS);
    let keys = group_keys(group);
    let mut steps = match random.u8(..6) {
        0..=2 => vec![Step::BulkSet(keys)],
        3 | 4 => {
            let mut keys = keys.into_iter().map(Step::Set);
            let first = keys.next();
            let rest = Step::Nested(keys.collect(), Fate::Commit);
            first.into_iter().chain([rest]).collect()
        }
        _ => vec![Step::QueryDelete {
            prefix: group_prefix(group),
            limit: None,
            reverse: random.bool(),
        }],
    };
    if random.u8(..3) == 0 {
        let other = Step::BulkSet(group_keys(random.usize(..GROUPS)));
        let fate = if random.bool() {
            Fate::Abort
        } else {
            Fate::Drop
        };
        steps.push(Step::Nested(vec![other], fate));
    }
    steps
}
