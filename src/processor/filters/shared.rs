//! Lists of filters that are the same for many hunters, each in memory once: 100 000 filters for 1000 hunters are 800 MB otherwise, for what they
//! hold alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;

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

/// In which words, and under which number of a message, a list is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) field: u32,
    pub(super) extended: bool,
    pub(super) knows_uri: bool,
}

/// A list as a field of an answer, encoded.
#[derive(Debug)]
pub(super) struct Told {
    /// Kept, so that it is found again.
    of: Held,
    words: Words,
    bytes: Vec<u8>,
    filters: usize,
    all: Arc<AtomicU64>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

/// A hold on it.
struct Hold(Arc<Told>);

impl AsRef<[u8]> for Hold {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// Filters for an answer, encoded: in memory once for everybody who is told the same.
#[derive(Clone, Debug)]
pub struct List {
    /// As they stand in the message.
    pub bytes: Bytes,
    /// How many they are.
    pub filters: usize,
}

/// The lists that somebody has now.
#[derive(Debug, Default)]
pub(super) struct Shared {
    held: Vec<Weak<[Arc<Filter>]>>,
    ways: Vec<Way>,
    told: Vec<Weak<Told>>,
    /// Bytes of lists that are told.
    told_bytes: Arc<AtomicU64>,
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

    /// Bytes of lists that are told now.
    #[cfg(test)]
    pub(super) fn told_bytes(&self) -> u64 {
        self.told_bytes.load(Ordering::Relaxed)
    }

    /// A list as it is told; `encode` makes it, and says how many filters are in it. Nothing, where others are told so much that it and they would
    /// be more than `most` bytes.
    pub(super) fn told(&mut self, of: &Held, words: Words, most: u64, encode: impl FnOnce() -> (Vec<u8>, usize)) -> Option<List> {
        let known = self.told.iter().rev().filter_map(Weak::upgrade).find(|t| t.words == words && Arc::ptr_eq(&t.of, of));
        let told = if let Some(known) = known {
            known
        } else {
            let (bytes, filters) = encode();
            let (length, all) = (bytes.len() as u64, Arc::clone(&self.told_bytes));
            let before = all.fetch_add(length, Ordering::Relaxed);
            let told = Arc::new(Told { of: Arc::clone(of), words, bytes, filters, all });
            if before > 0 && before.saturating_add(length) > most {
                return None;
            }
            keep(&mut self.told, Arc::downgrade(&told), |told| told.strong_count() > 0);
            told
        };
        Some(List { filters: told.filters, bytes: Bytes::from_owner(Hold(told)) })
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
