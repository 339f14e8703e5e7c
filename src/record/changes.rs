//! A state, and changes taken into it one after the other.

use std::collections::{BTreeMap, HashMap};

use ahash::RandomState;

use super::calls::{CallKey, CallState};
use super::state::{CallMemory, State};

/// A state whose calls can be found.
pub(super) struct Changed {
    /// Without its calls.
    rest: State,
    /// In the order they began.
    calls: BTreeMap<u64, CallState>,
    places: HashMap<CallKey, u64, RandomState>,
    next: u64,
    memory: BTreeMap<String, CallMemory>,
}

impl Changed {
    pub(super) fn of(mut state: State) -> Self {
        let (calls, memory) = (std::mem::take(&mut state.calls), std::mem::take(&mut state.memory));
        let mut this = Self {
            rest: state,
            calls: BTreeMap::new(),
            places: HashMap::default(),
            next: 0,
            memory: memory.into_iter().map(|m| (m.call_id.clone(), m)).collect(),
        };
        for call in calls {
            this.put(call);
        }
        this
    }

    pub(super) const fn log(&self) -> u64 {
        self.rest.log
    }

    fn put(&mut self, call: CallState) {
        let place = *self.places.entry(call.call_id.clone()).or_insert(self.next);
        self.next = self.next.max(place.saturating_add(1));
        self.calls.insert(place, call);
    }

    /// What is gone goes first: another call may have begun with its Call-ID.
    pub(super) fn take(&mut self, mut change: State) {
        for key in std::mem::take(&mut change.gone) {
            if let Some(place) = self.places.remove(&key) {
                self.calls.remove(&place);
            }
        }
        for id in std::mem::take(&mut change.forgotten) {
            self.memory.remove(&id);
        }
        for call in std::mem::take(&mut change.calls) {
            self.put(call);
        }
        for memory in std::mem::take(&mut change.memory) {
            self.memory.insert(memory.call_id.clone(), memory);
        }
        self.rest = State { since: None, ..change };
    }

    pub(super) fn into_state(mut self) -> State {
        // one whose last record could not be written is closed again
        for call in self.calls.values_mut().filter(|call| call.closed_at.is_some()) {
            if let CallKey::Text(id) = &call.call_id
                && self.memory.get(id).is_some_and(|m| m.open)
            {
                call.closed_at = None;
            }
        }
        State { calls: self.calls.into_values().collect(), memory: self.memory.into_values().collect(), ..self.rest }
    }
}
