//! What time it is for each hunter: its newest packet's, and on from there while it is silent.
//!
//! Silence says that a call is over only where the hunter is connected and has sent what it has. While it is away, or has more, or where another
//! processor stands between, its packets of that time may still come: they are waited for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;

use crate::packet::Timestamp;
use crate::voip::expiry::WATCHED;

/// A hunter is waited for so long.
const AWAY: Duration = Duration::from_hours(2);

/// A hunter's packet time.
#[derive(Debug)]
pub(super) struct Clock {
    newest: Timestamp,
    heard: Timestamp,
    /// It is connected, and has sent what it has.
    there: bool,
}

impl Clock {
    /// Its newest packet, and on from there while it is silent.
    pub(super) fn mark(&self, now: Timestamp) -> Timestamp {
        self.newest.saturating_add(now.since(self.heard))
    }

    /// The same as far as its silence says something.
    pub(super) fn settled(&self, now: Timestamp) -> Timestamp {
        let silent = now.since(self.heard);
        self.newest.saturating_add(if self.there { silent } else { silent.saturating_sub(AWAY) })
    }
}

/// All hunters that have calls.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    all: HashMap<Arc<str>, Clock, RandomState>,
    /// When somebody last looked.
    looked: Option<Timestamp>,
}

impl Clocks {
    pub(super) fn get(&self, hunter: &Arc<str>) -> Option<&Clock> {
        self.all.get(hunter)
    }

    /// Its time begins, if it has none yet.
    pub(super) fn meet(&mut self, hunter: &Arc<str>, now: Timestamp) {
        if !self.all.contains_key(hunter) {
            self.all.insert(Arc::clone(hunter), Clock { newest: Timestamp::MIN, heard: now, there: false });
        }
    }

    /// Something came from it at `now`, by our clock.
    pub(super) fn heard(&mut self, hunter: &Arc<str>, now: Timestamp) {
        self.meet(hunter, now);
        if let Some(clock) = self.all.get_mut(hunter) {
            clock.heard = now;
        }
    }

    /// A packet of it was captured then.
    pub(super) fn note_packet(&mut self, hunter: &Arc<str>, ts: Timestamp) {
        if let Some(clock) = self.all.get_mut(hunter) {
            clock.newest = clock.newest.max(ts);
        }
    }

    /// Somebody looks, and says who is connected and has sent what it has. Our clock may have been set, or this machine may have slept: nobody was
    /// silent then. Nor was one that is back: what it has may not have come yet.
    pub(super) fn look(&mut self, now: Timestamp, is_there: impl Fn(&str) -> bool) {
        let unwatched = self.looked.replace(now).is_some_and(|before| now < before || now.since(before) > WATCHED);
        for (hunter, clock) in &mut self.all {
            let there = is_there(hunter);
            if unwatched || (there && !clock.there) {
                clock.heard = now;
            }
            clock.there = there;
        }
    }

    /// It has stopped; whether it was known.
    pub(super) fn remove(&mut self, hunter: &Arc<str>) -> bool {
        self.all.remove(hunter).is_some()
    }

    /// Forgets all others.
    pub(super) fn keep(&mut self, which: impl Fn(&Arc<str>) -> bool) {
        self.all.retain(|hunter, _| which(hunter));
    }
}
