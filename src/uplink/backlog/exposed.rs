//! What the end of this process would take with it.

use std::collections::BTreeMap;

use super::Backlog;
use super::disk::raise;
use super::log::Log;
use crate::batch::{BatchSeq, Epoch};

/// See [`Backlog::exposed`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposed {
    /// Packets that are in memory alone.
    pub packets: u64,
    /// Packets acknowledged.
    pub acked_packets: u64,
    /// By epoch: the last batch that was written to disk or acknowledged. Later ones count as in memory, even if they are on disk by now; those before
    /// count as nothing, though some may be.
    pub logged: BTreeMap<Epoch, BatchSeq>,
}

impl Backlog {
    /// What would be lost if the process ended now, at one instant. Looks at every batch in memory.
    pub fn exposed(&self) -> Exposed {
        let state = self.state.lock();
        let acked_packets = state.figures.acked_packets;
        let Some(disk) = &state.disk else {
            return Exposed { packets: state.figures.in_memory_packets, acked_packets, logged: BTreeMap::new() };
        };
        let in_memory = state.entries.iter().filter(|e| !e.acked && e.log != Log::Written);
        let in_memory = in_memory.map(|e| u64::from(e.batch.packets)).fold(0, u64::saturating_add);
        // at the end the spool's thread has the entries, and what became of them is told one by one
        let in_memory = if disk.is_closing() { state.figures.in_memory_packets } else { in_memory };
        let packets = in_memory.saturating_add(disk.staged_tally.packets);
        let mut logged = disk.logged.clone();
        for (epoch, acked) in &disk.acked {
            raise(&mut logged, *epoch, *acked);
        }
        Exposed { packets, acked_packets, logged }
    }
}
