//! Which connections are open: by address, by name, by certificate. Bounded by [`AcceptLimits::connections`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::facts::PeerIdentity;
use super::super::revoked::{CertId, Revoked};
use super::AcceptLimits;
use super::connection::Gate;
use super::counts::{AcceptCounters, count};
use super::http2::{WINDOW_LEAST, WINDOW_MOST, bytes_of};

/// Every open connection.
#[derive(Debug, Default)]
pub(super) struct Open {
    table: Mutex<Table>,
    pub(super) counters: Arc<AcceptCounters>,
}

#[derive(Debug, Default)]
struct Table {
    by_address: HashMap<IpAddr, usize>,
    by_identity: HashMap<PeerIdentity, usize>,
    /// Connections that showed a certificate.
    certified: HashMap<u64, (CertId, Arc<Gate>)>,
    next: u64,
}

impl Open {
    /// Cuts every connection whose certificate is revoked; says how many.
    pub(super) fn cut(&self, revoked: &Revoked) -> u64 {
        let mut cut = 0;
        for (certificate, gate) in self.table.lock().certified.values() {
            if revoked.has(certificate) && gate.shut() {
                count(&self.counters.revoked);
                cut += 1;
            }
        }
        cut
    }
}

/// A connection's place in [`Open`]; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    open: Arc<Open>,
    address: IpAddr,
    identity: Option<PeerIdentity>,
    certified: Option<u64>,
    /// Bytes that the connection may hold.
    bytes: u64,
}

/// Of what is left of one half of the memory a connection may have one part in so many; the other half is for those that come later.
const SHARE: u64 = 16;

impl Slot {
    /// A place, or the counter of what stands against it.
    pub(super) fn take<'a>(open: &'a Arc<Open>, address: IpAddr, limits: &AcceptLimits) -> Result<Self, &'a AtomicU64> {
        let mut table = open.table.lock();
        if open.counters.open.load(Ordering::Relaxed) >= limits.connections as u64 {
            return Err(&open.counters.refused_full);
        }
        if !more(&mut table.by_address, address, limits.per_address) {
            return Err(&open.counters.refused_address);
        }
        let bytes = bytes_of(WINDOW_LEAST);
        if open.counters.window_bytes.load(Ordering::Relaxed).saturating_add(bytes) > limits.memory {
            less(&mut table.by_address, &address);
            return Err(&open.counters.refused_memory);
        }
        open.counters.window_bytes.fetch_add(bytes, Ordering::Relaxed);
        count(&open.counters.open);
        Ok(Self { open: Arc::clone(open), address, identity: None, certified: None, bytes })
    }

    /// The window of a connection that has come so far: its share of the memory that is left.
    pub(super) fn widen(&mut self, limits: &AcceptLimits) -> u32 {
        let _one_at_a_time = self.open.table.lock();
        let used = &self.open.counters.window_bytes;
        let share = (limits.memory / 2).saturating_sub(used.load(Ordering::Relaxed)) / SHARE;
        let window = u32::try_from(share).map_or(WINDOW_MOST, |share| share.clamp(WINDOW_LEAST, WINDOW_MOST));
        let more = bytes_of(window).saturating_sub(self.bytes);
        used.fetch_add(more, Ordering::Relaxed);
        self.bytes = self.bytes.saturating_add(more);
        window
    }

    /// Whose connection it turned out to be; false: it has as many as it may have.
    pub(super) fn name(&mut self, identity: Option<&PeerIdentity>, limits: &AcceptLimits) -> bool {
        let Some(identity) = identity else { return true };
        let room = more(&mut self.open.table.lock().by_identity, identity.clone(), limits.per_identity);
        if room {
            self.identity = Some(identity.clone());
        }
        room
    }

    /// `gate` is shut once this certificate is revoked.
    pub(super) fn certify(&mut self, certificate: CertId, gate: Arc<Gate>) {
        let mut table = self.open.table.lock();
        let key = table.next;
        table.next = key.wrapping_add(1);
        table.certified.insert(key, (certificate, gate));
        self.certified = Some(key);
    }

    pub(super) fn counters(&self) -> &AcceptCounters {
        &self.open.counters
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.open.table.lock();
        less(&mut table.by_address, &self.address);
        if let Some(identity) = &self.identity {
            less(&mut table.by_identity, identity);
        }
        if let Some(key) = self.certified {
            table.certified.remove(&key);
        }
        self.open.counters.window_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.open.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn more<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K, max: usize) -> bool {
    // looked at first: a key that is refused leaves nothing behind
    let now = counts.get(&key).copied().unwrap_or(0);
    if now < max {
        counts.insert(key, now.saturating_add(1));
    }
    now < max
}

fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            counts.remove(key);
        }
    }
}
