//! Lists of filters that are the same for many hunters, each in memory once: 100 000 filters for 1000 hunters are 800 MB otherwise, for what they
//! hold alone.

use std::sync::{Arc, Weak};

use crate::filter::{self, Filter, Update};

/// Lists remembered of each sort; one that is not found is made again.
const RECENT: usize = 64;

/// Filters a hunter holds, by id.
pub(super) type Held = Arc<[Arc<Filter>]>;
/// What it is to be told.
pub(super) type Steps = Arc<[Update]>;

/// How to get from one list to another.
#[derive(Debug)]
struct Way {
    from: Weak<[Arc<Filter>]>,
    to: Weak<[Arc<Filter>]>,
    repeat: bool,
    steps: Weak<[Update]>,
}

/// The lists that somebody has now.
#[derive(Debug, Default)]
pub(super) struct Shared {
    held: Vec<Weak<[Arc<Filter>]>>,
    ways: Vec<Way>,
}

impl Shared {
    /// The list of these filters.
    pub(super) fn held(&mut self, filters: Vec<Arc<Filter>>) -> Held {
        let same = |held: &Held| held.len() == filters.len() && held.iter().zip(&filters).all(|(a, b)| Arc::ptr_eq(a, b));
        if let Some(known) = self.held.iter().rev().filter_map(Weak::upgrade).find(same) {
            return known;
        }
        let new: Held = filters.into();
        keep(&mut self.held, Arc::downgrade(&new), |held| held.strong_count() > 0);
        new
    }

    /// The steps from one list to another; `repeat`: all of the new one, and what is gone.
    pub(super) fn steps(&mut self, from: &Held, to: &Held, repeat: bool) -> Steps {
        let is = |weak: &Weak<[Arc<Filter>]>, held: &Held| weak.upgrade().is_some_and(|w| Arc::ptr_eq(&w, held));
        let mut known = self.ways.iter().rev().filter(|w| w.repeat == repeat && is(&w.from, from) && is(&w.to, to));
        if let Some(steps) = known.find_map(|w| w.steps.upgrade()) {
            return steps;
        }
        let mut updates = filter::diff(from, to);
        if repeat {
            updates.retain(|u| matches!(u, Update::Delete(_)));
            updates.splice(..0, to.iter().map(|f| Update::Add(Arc::clone(f))));
        }
        let steps: Steps = updates.into();
        let way = Way { from: Arc::downgrade(from), to: Arc::downgrade(to), repeat, steps: Arc::downgrade(&steps) };
        keep(&mut self.ways, way, |w| w.steps.strong_count() > 0);
        steps
    }
}

/// Puts `new` last; what nobody has goes, and else the oldest of too many.
fn keep<T>(all: &mut Vec<T>, new: T, has: impl Fn(&T) -> bool) {
    if all.len() >= RECENT {
        all.retain(has);
        if all.len() >= RECENT {
            all.remove(0);
        }
    }
    all.push(new);
}
