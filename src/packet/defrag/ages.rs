//! Which datagram is the oldest, in constant time.
//!
//! Promises: amortised O(1); at most twice as long as what is alive, plus [`SLACK`].

use std::collections::VecDeque;

use super::FragmentKey;

/// Dead entries that are not worth a pass.
const SLACK: usize = 64;

/// Keys in order of creation, each with a number of its own: a key that was removed and came again is another one.
#[derive(Debug, Default)]
pub(super) struct Ages {
    queue: VecDeque<(FragmentKey, u64)>,
    next: u64,
}

impl Ages {
    /// Adds a key; its owner keeps the answered number.
    pub(super) fn push(&mut self, key: FragmentKey) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.queue.push_back((key, self.next));
        self.next
    }

    /// The oldest key that is alive.
    pub(super) fn oldest(&mut self, is_alive: impl Fn(&FragmentKey, u64) -> bool) -> Option<FragmentKey> {
        while let Some((key, age)) = self.queue.front() {
            if is_alive(key, *age) {
                return Some(*key);
            }
            self.queue.pop_front();
        }
        None
    }

    /// Forgets the dead once they are the majority; `alive` is how many there are.
    pub(super) fn compact(&mut self, alive: usize, is_alive: impl Fn(&FragmentKey, u64) -> bool) {
        if self.queue.len() > alive.saturating_mul(2).saturating_add(SLACK) {
            self.queue.retain(|(key, age)| is_alive(key, *age));
        }
    }
}
