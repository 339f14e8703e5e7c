//! Who watches, and what of them is looked at for each batch: for a monitor that has no room, one number.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::offered::Offered;
use super::ring::{Figures, Offer, Ring};

/// Subscriptions that begin in any second: whoever comes and goes must not fill the log, of which no line may be left out.
const BEGIN: usize = 10;
const SECOND: Duration = Duration::from_secs(1);
/// Hunters of which it is remembered who wants their packets.
const AUDIENCES: usize = 4096;

/// All of them, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Seats {
    entries: Vec<Entry>,
    /// By hunter, the places of those who want its packets and may see them; forgotten when somebody comes, goes, or may see more or less.
    audiences: HashMap<Arc<str>, Vec<u16>>,
    /// How many there were so far.
    numbers: u64,
    /// When the last ones began, [`BEGIN`] at most.
    begun: VecDeque<Instant>,
    /// Of those that have left.
    gone: Figures,
}

#[derive(Debug)]
struct Entry {
    ring: Arc<Ring>,
    /// The ring has no room until its monitor takes something out.
    full: bool,
    /// Packets offered since then.
    missed: u64,
    /// Nothing more is offered.
    closed: bool,
}

impl Entry {
    /// The ring knows of everything that it missed, and has room.
    fn reopen(&mut self) {
        self.ring.missed(std::mem::take(&mut self.missed));
        self.full = false;
    }
}

impl Seats {
    /// One more begins, and is this one; else the time to ask again, where too many have.
    pub(super) fn turn(&mut self, now: Instant) -> Result<u64, Instant> {
        let first = self.begun.front().copied().filter(|_| self.begun.len() >= BEGIN);
        if let Some(again) = first.and_then(|first| first.checked_add(SECOND)).filter(|again| now < *again) {
            return Err(again);
        }
        if first.is_some() {
            self.begun.pop_front();
        }
        self.begun.push_back(now);
        self.numbers = self.numbers.saturating_add(1);
        Ok(self.numbers)
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// What became of every packet offered so far.
    pub(super) fn figures(&self) -> Figures {
        self.entries.iter().fold(self.gone, |sum, entry| {
            let missed = Figures { offered: entry.missed, skipped: entry.missed, ..Figures::default() };
            sum + entry.ring.figures() + missed
        })
    }

    pub(super) fn add(&mut self, ring: Arc<Ring>) {
        self.entries.push(Entry { ring, full: false, missed: 0, closed: false });
        self.forget();
    }

    /// What became of its packets.
    pub(super) fn remove(&mut self, ring: &Ring) -> Figures {
        self.close(ring);
        self.entries.retain(|entry| entry.ring.number != ring.number);
        self.forget();
        let figures = ring.end();
        self.gone = self.gone + figures;
        figures
    }

    /// Nothing more is offered to it; what waits stays.
    pub(super) fn close(&mut self, ring: &Ring) {
        if let Some(entry) = self.of(ring) {
            entry.reopen();
            entry.closed = true;
        }
    }

    /// Something was taken out of it.
    pub(super) fn reopen(&mut self, ring: &Ring) {
        if let Some(entry) = self.of(ring) {
            entry.reopen();
        }
    }

    fn of(&mut self, ring: &Ring) -> Option<&mut Entry> {
        let at = self.entries.binary_search_by_key(&ring.number, |entry| entry.ring.number).ok()?;
        self.entries.get_mut(at)
    }

    /// Who wants what is found out again.
    pub(super) fn forget(&mut self) {
        self.audiences.clear();
    }

    /// A new batch, for each who wants it. `held`: bytes that wait, of `room` that may.
    pub(super) fn offer(&mut self, batch: Offered, held: &Arc<AtomicU64>, room: u64) {
        let Self { entries, audiences, .. } = self;
        let audience = audience(entries, audiences, &batch.hunter);
        let mut wanted = false;
        for at in audience {
            let Some(entry) = entries.get_mut(usize::from(*at)) else { continue };
            if entry.full {
                entry.missed = entry.missed.saturating_add(batch.packets);
            }
            wanted |= !entry.full && !entry.closed;
        }
        if !wanted {
            return;
        }
        let batch = Arc::new(batch.held_in(held));
        let fits = held.load(Ordering::Relaxed) <= room;
        for at in audience {
            let Some(entry) = entries.get_mut(usize::from(*at)).filter(|entry| !entry.full && !entry.closed) else { continue };
            if entry.ring.offer(&batch, fits) == Offer::Full {
                entry.full = true;
                entry.missed = batch.packets;
            }
        }
    }
}

fn audience<'a>(entries: &[Entry], audiences: &'a mut HashMap<Arc<str>, Vec<u16>>, hunter: &Arc<str>) -> &'a [u16] {
    if audiences.len() >= AUDIENCES && !audiences.contains_key(hunter) {
        audiences.clear();
    }
    audiences
        .entry(Arc::clone(hunter))
        .or_insert_with(|| (0..).zip(entries).filter(|(_, entry)| entry.ring.wants(hunter)).map(|(at, _)| at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_begin_in_any_second_wherever_it_begins() {
        let (mut seats, start) = (Seats::default(), Instant::now());
        let mut begin =
            |n: usize, millis: u64| (0..n).filter(|_| seats.turn(start + Duration::from_millis(millis)).is_ok()).count();

        assert_eq!([begin(1, 0), begin(20, 900), begin(20, 1000), begin(20, 1100), begin(20, 1900)], [1, 9, 1, 0, 9]);
        assert_eq!(seats.turn(start + Duration::from_millis(1950)), Err(start + Duration::from_secs(2)));
    }
}
