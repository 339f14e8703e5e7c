//! Media that arrives before its SDP: kept for a moment in case somebody claims it.
//!
//! Only plausible RTP of new flows gets here. A flow is kept for its first packets or its first seconds, whichever ends sooner; all flows
//! together under one byte budget, the oldest flow first out.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;
use smallvec::SmallVec;

use crate::packet::{Endpoint, FiveTuple, Timestamp};
use crate::protocols::rtp;

use super::hold::{HeldFrame, Pool};
use super::media::MediaPacket;

/// Flows listed per endpoint; more are not found by a claim and simply age.
const PER_ENDPOINT: usize = 16;
/// Packets in sequence that prove RTP where nobody has signalled it: one more than RFC 3550 §A.1 asks for, since the length field of other
/// protocols may count up once, too (that of a building's automation did).
const IN_A_ROW: u8 = 3;

/// One packet of a flow.
#[derive(Debug)]
pub struct Packet {
    /// The frame.
    pub frame: HeldFrame,
    /// Which way it went.
    pub tuple: FiveTuple,
    /// Where the UDP payload begins in it.
    pub payload_at: usize,
}

/// One flow's packets.
#[derive(Debug)]
struct Flow {
    tuple: FiveTuple,
    first: Timestamp,
    packets: VecDeque<Packet>,
    serial: u64,
    /// SSRC of the first packet.
    ssrc: u32,
    /// The SSRC and the number that would continue each direction, and how many packets did.
    next: [(u32, u16, u8); 2],
    /// [`IN_A_ROW`] packets of one SSRC came with consecutive numbers: it is RTP.
    is_rtp: bool,
}

impl Flow {
    fn note(&mut self, p: &MediaPacket<'_, '_>) {
        let (Some(ssrc), Some(sequence)) = (rtp::ssrc(p.payload), rtp::sequence(p.payload)) else { return };
        if self.packets.is_empty() {
            self.ssrc = ssrc;
        }
        let [forth, back] = &mut self.next;
        let next = if p.tuple == self.tuple { forth } else { back };
        let run = if (next.0, next.1) == (ssrc, sequence) { next.2.saturating_add(1) } else { 1 };
        *next = (ssrc, sequence.wrapping_add(1), run);
        self.is_rtp |= run >= IN_A_ROW;
    }
}

/// What a flow is that nobody has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub id: u32,
    /// First packet's direction.
    pub tuple: FiveTuple,
    /// First packet.
    pub first: Timestamp,
    /// SSRC of the first packet.
    pub ssrc: u32,
    /// Whether it is RTP beyond doubt.
    pub is_rtp: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Unclaimed {
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    by_endpoint: HashMap<Endpoint, SmallVec<[u32; 2]>, RandomState>,
    order: VecDeque<(u32, u64)>,
    serial: u64,
    bytes: usize,
}

impl Unclaimed {
    /// Keeps a packet of the flow with this number, or of a new one; returns the number, or `None` when the flow has had its share.
    pub fn push(&mut self, flow: Option<u32>, p: &MediaPacket<'_, '_>, max_packets: usize, pool: &mut Pool) -> Option<u32> {
        let id = flow.unwrap_or_else(|| self.open(p.tuple, p.frame.ts));
        let f = self.flows.get_mut(id as usize)?.as_mut()?;
        if f.packets.len() >= max_packets {
            return None;
        }
        f.note(p);
        self.bytes = self.bytes.saturating_add(p.frame.data.len());
        f.packets.push_back(Packet { frame: pool.copy(p.frame), tuple: p.tuple, payload_at: p.payload_at });
        Some(id)
    }

    /// Whether `id` still is the number of the flow between these endpoints.
    pub fn holds(&self, id: u32, tuple: &FiveTuple) -> bool {
        self.get(id).is_some_and(|f| f.tuple == *tuple || f.tuple == tuple.reversed())
    }

    /// What is known of a flow.
    pub fn facts(&self, id: u32) -> Option<Facts> {
        let f = self.get(id)?;
        Some(Facts { id, tuple: f.tuple, first: f.first, ssrc: f.ssrc, is_rtp: f.is_rtp })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the packets of every flow that touches `e`, each flow in order, flows by first packet.
    pub fn take(&mut self, e: &Endpoint) -> Vec<Packet> {
        let Some(ids) = self.by_endpoint.get(e).cloned() else { return Vec::new() };
        let mut taken: Vec<Flow> = ids.into_iter().filter_map(|id| self.close(id)).collect();
        taken.sort_by_key(|f| (f.first, f.serial));
        taken.into_iter().flat_map(|f| f.packets).collect()
    }

    /// Takes the packets of the flow between these endpoints.
    pub fn take_flow(&mut self, tuple: &FiveTuple) -> VecDeque<Packet> {
        let found = self.by_endpoint.get(&tuple.dst).and_then(|ids| ids.iter().copied().find(|id| self.holds(*id, tuple)));
        found.and_then(|id| self.close(id)).map(|f| f.packets).unwrap_or_default()
    }

    /// The flow that was opened first.
    pub fn oldest(&mut self) -> Option<Facts> {
        loop {
            let &(id, serial) = self.order.front()?;
            if self.get(id).is_some_and(|f| f.serial == serial) {
                return self.facts(id);
            }
            self.order.pop_front();
        }
    }

    /// Lets go of a flow; returns its packets' number.
    pub fn let_go(&mut self, id: u32, pool: &mut Pool) -> u64 {
        let Some(flow) = self.close(id) else { return 0 };
        let n = flow.packets.len() as u64;
        flow.packets.into_iter().for_each(|p| pool.recycle(p.frame));
        n
    }

    fn get(&self, id: u32) -> Option<&Flow> {
        self.flows.get(id as usize)?.as_ref()
    }

    fn open(&mut self, tuple: FiveTuple, first: Timestamp) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        let flow =
            Flow { tuple, first, packets: VecDeque::new(), serial: self.serial, ssrc: 0, next: [(0, 0, 0); 2], is_rtp: false };
        let id = if let Some(id) = self.free.pop() {
            id
        } else {
            self.flows.push(None);
            u32::try_from(self.flows.len()).unwrap_or(u32::MAX).saturating_sub(1)
        };
        if let Some(slot) = self.flows.get_mut(id as usize) {
            *slot = Some(flow);
        }
        for e in [tuple.src, tuple.dst] {
            let list = self.by_endpoint.entry(e).or_default();
            if list.len() < PER_ENDPOINT {
                list.push(id);
            }
        }
        self.order.push_back((id, self.serial));
        id
    }

    fn close(&mut self, id: u32) -> Option<Flow> {
        let flow = self.flows.get_mut(id as usize)?.take()?;
        for e in [flow.tuple.src, flow.tuple.dst] {
            if let Some(list) = self.by_endpoint.get_mut(&e) {
                list.retain(|f| *f != id);
                if list.is_empty() {
                    self.by_endpoint.remove(&e);
                }
            }
        }
        self.bytes = self.bytes.saturating_sub(flow.packets.iter().map(|p| p.frame.len()).sum());
        self.free.push(id);
        Some(flow)
    }
}
