//! Counters: plain numbers, owned by the thread that counts, published whole.
//!
//! The conservation equations of a hunter (packets, since start):
//!
//! ```text
//! K1  kernel_seen = captured + kernel_dropped + interface_dropped + in_ring
//! K2  captured    = filtered_out + matched + held
//! K3  matched     = acked + in_memory + Σ dropped
//! ```
//!
//! Each term is counted where it happens, never computed from the others, so that a difference other than 0 means a defect.

use parking_lot::Mutex;

use crate::reason::DropReason;

const REASONS: usize = DropReason::ALL.len();

/// Packets given up, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; REASONS]);

impl Drops {
    /// Counts `packets` given up for `reason`.
    pub fn add(&mut self, reason: DropReason, packets: u64) {
        if let Some(slot) = self.0.get_mut(reason.index()) {
            *slot = slot.saturating_add(packets);
        }
    }

    /// Packets given up for `reason`.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason.index()).copied().unwrap_or_default()
    }

    /// Packets given up for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, packets| sum.saturating_add(*packets))
    }

    /// Adds another thread's counts.
    pub fn merge(&mut self, other: &Self) {
        for (slot, packets) in self.0.iter_mut().zip(&other.0) {
            *slot = slot.saturating_add(*packets);
        }
    }

    /// Reasons that happened, in the order of [`DropReason::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.0).filter(|(_, packets)| *packets > 0)
    }
}

impl std::fmt::Display for Drops {
    /// `hold_age=3 oversize=1`, or `none`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (reason, packets) in self.iter() {
            write!(f, "{separator}{}={packets}", reason.name())?;
            separator = " ";
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// Terms of K1 (packets), for one handle or summed over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounters {
    /// The kernel's filter let through (`ps_recv`, unwrapped to 64 bits).
    pub kernel_seen: u64,
    /// Given to this program.
    pub captured: u64,
    /// Bytes of them, as long as they were on the wire.
    pub captured_bytes: u64,
    /// Lost because the ring was full (`ps_drop`).
    pub kernel_dropped: u64,
    /// Lost in the interface or its driver (`ps_ifdrop`).
    pub interface_dropped: u64,
    /// Still in the ring.
    pub in_ring: u64,
}

impl CaptureCounters {
    /// Adds another handle's counts.
    pub fn merge(&mut self, other: &Self) {
        for (slot, more) in [
            (&mut self.kernel_seen, other.kernel_seen),
            (&mut self.captured, other.captured),
            (&mut self.captured_bytes, other.captured_bytes),
            (&mut self.kernel_dropped, other.kernel_dropped),
            (&mut self.interface_dropped, other.interface_dropped),
            (&mut self.in_ring, other.in_ring),
        ] {
            *slot = slot.saturating_add(more);
        }
    }

    /// K1, left minus right; exact only at rest.
    pub fn imbalance(&self) -> i128 {
        let right = [self.captured, self.kernel_dropped, self.interface_dropped, self.in_ring];
        i128::from(self.kernel_seen).saturating_sub(sum(&right))
    }
}

/// Terms of K2 and K3 (packets).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HunterCounters {
    /// Given to the engine.
    pub captured: u64,
    /// Not wanted, and not kept.
    pub filtered_out: u64,
    /// Kept, undecided.
    pub held: u64,
    /// Wanted; given up undecided counts here and in `drops`.
    pub matched: u64,
    /// Stored by a processor that said so.
    pub acked: u64,
    /// In batches not yet acknowledged, the open one included.
    pub in_memory: u64,
    /// Given up.
    pub drops: Drops,
}

impl HunterCounters {
    /// Adds another thread's counts.
    pub fn merge(&mut self, other: &Self) {
        for (slot, more) in [
            (&mut self.captured, other.captured),
            (&mut self.filtered_out, other.filtered_out),
            (&mut self.held, other.held),
            (&mut self.matched, other.matched),
            (&mut self.acked, other.acked),
            (&mut self.in_memory, other.in_memory),
        ] {
            *slot = slot.saturating_add(more);
        }
        self.drops.merge(&other.drops);
    }

    /// K2 and K3, left minus right; both 0 when nothing was lost uncounted.
    pub fn imbalance(&self) -> (i128, i128) {
        let k2 = i128::from(self.captured).saturating_sub(sum(&[self.filtered_out, self.matched, self.held]));
        let k3 = i128::from(self.matched).saturating_sub(sum(&[self.acked, self.in_memory, self.drops.total()]));
        (k2, k3)
    }
}

fn sum(terms: &[u64]) -> i128 {
    terms.iter().fold(0_i128, |sum, term| sum.saturating_add(i128::from(*term)))
}

/// Counters of one owner, readable by everybody as one consistent copy.
#[derive(Debug, Default)]
pub struct Published<T: Copy>(Mutex<T>);

impl<T: Copy> Published<T> {
    /// Starts with `value`.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Replaces the published copy; the owner calls this now and then, not per packet.
    pub fn publish(&self, value: T) {
        *self.0.lock() = value;
    }

    /// The last published copy.
    pub fn snapshot(&self) -> T {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_by_reason_and_merged() {
        let mut a = Drops::default();
        a.add(DropReason::Oversize, 1);
        a.add(DropReason::HoldAge, 2);
        let mut b = a;
        b.add(DropReason::HoldAge, u64::MAX);

        a.merge(&b);

        assert_eq!((a.of(DropReason::Oversize), a.of(DropReason::HoldAge)), (2, u64::MAX));
        assert_eq!(b.total(), u64::MAX);
        assert_eq!(Drops::default().to_string(), "none");
        assert_eq!(a.to_string(), format!("oversize=2 hold_age={}", u64::MAX));
    }

    #[test]
    fn every_reason_has_its_own_counter() {
        let mut drops = Drops::default();
        for reason in DropReason::ALL {
            drops.add(reason, 1);
        }

        assert!(DropReason::ALL.into_iter().all(|reason| drops.of(reason) == 1));
        assert_eq!(drops.iter().count(), DropReason::ALL.len());
    }

    #[test]
    fn a_lost_packet_shows_as_an_imbalance() {
        let mut hunter = HunterCounters { captured: 10, filtered_out: 6, held: 1, matched: 3, acked: 2, ..Default::default() };
        assert_eq!(hunter.imbalance(), (0, 1));

        hunter.drops.add(DropReason::MemFull, 1);
        assert_eq!(hunter.imbalance(), (0, 0));

        let mut both = hunter;
        both.merge(&hunter);
        assert_eq!((both.captured, both.imbalance()), (20, (0, 0)));
        let ring = CaptureCounters { kernel_seen: 5, captured: 3, kernel_dropped: 1, in_ring: 1, ..Default::default() };
        assert_eq!(ring.imbalance(), 0);
    }

    #[test]
    fn snapshots_are_whole() {
        let cell = Published::<HunterCounters>::default();
        cell.publish(HunterCounters { captured: 5, matched: 5, ..Default::default() });

        assert_eq!((cell.snapshot().captured, cell.snapshot().matched), (5, 5));
    }
}
