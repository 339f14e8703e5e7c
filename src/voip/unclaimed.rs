//! Media that arrives before its SDP: kept for a moment in case somebody claims it.
//!
//! Only plausible RTP of new flows gets here. A flow is kept for its first packets or its first seconds, whichever ends sooner; all flows
//! together under one byte budget, the oldest flow first out.
//!
//! ```text
//! flows   tuple · first packet · where its last one is            in the order they began; a flow's number is its place in it
//! blocks  the packets of all flows as they came, see kept.rs
//! ends    8 flow numbers per bucket, by the hash of an endpoint   who is kept here? numbers of flows that are over are room
//! ```
//! At the start of a capture every flow is new. So a packet is written behind all others and nothing else but its flow is touched, and flows
//! end in the order they began: by moving on, not by looking for what they left.

use std::collections::VecDeque;

use crate::flow::FlowHasher;
use crate::packet::{Endpoint, FiveTuple, Timestamp};
use crate::protocols::rtp;

use super::hold::{HeldFrame, Pool};
use super::kept::{Blocks, Spot, Tag};
use super::media::MediaPacket;

/// Buckets of the table of ends, once something is kept, at most one for each call: 2 MiB, of which only what is used is touched.
const BUCKETS: usize = 1 << 16;
/// Flows in a bucket. Further ones are not found by a claim, only by their own next packet.
const WAYS: usize = 8;
/// No flow's number in a bucket.
const NOBODY: u32 = 0;
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

/// One flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    tuple: FiveTuple,
    first: Timestamp,
    /// The last packet; none once the flow is over.
    last: Option<Spot>,
    packets: u32,
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
        if self.packets == 0 {
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
#[derive(Debug)]
pub struct Unclaimed {
    flows: VecDeque<Flow>,
    /// Number of the flow in front. The first of all is 1, so that [`NOBODY`] is over until numbers begin anew.
    first: u32,
    blocks: Blocks,
    /// A power of two.
    buckets: usize,
    ends: Vec<[u32; WAYS]>,
    hasher: FlowHasher,
}

impl Unclaimed {
    /// For about so many calls; endpoints are hashed as everywhere in their table.
    pub fn new(calls: usize, hasher: FlowHasher) -> Self {
        Self {
            flows: VecDeque::new(),
            first: 1,
            blocks: Blocks::new(calls),
            buckets: calls.clamp(1, BUCKETS).next_power_of_two(),
            ends: Vec::new(),
            hasher,
        }
    }

    /// Keeps a packet of the flow with this number, or of a new one; returns the number, or `None` when the flow has had its share.
    pub fn push(&mut self, flow: Option<u32>, p: &MediaPacket<'_, '_>, max_packets: usize) -> Option<u32> {
        let id = flow.unwrap_or_else(|| self.open(p.tuple, p.frame.ts));
        let newest = self.end().wrapping_sub(1);
        let index = self.index(id)?;
        let f = self.flows.get_mut(index)?;
        if f.packets as usize >= max_packets {
            return None;
        }
        f.note(p);
        let tag = Tag { payload_at: u32::try_from(p.payload_at).unwrap_or(u32::MAX), forth: p.tuple == f.tuple };
        f.last = Some(self.blocks.push(p.frame, tag, f.last, newest));
        f.packets = f.packets.saturating_add(1);
        Some(id)
    }

    /// Reads what keeping a packet of this flow will read, so that it is in the cache by then; the value means nothing.
    pub fn warm(&self, id: u32) -> u32 {
        self.index(id).and_then(|at| self.flows.get(at)).map_or(0, |f| f.packets ^ u32::from(f.tuple.src.port))
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
        self.blocks.bytes()
    }

    /// Takes the packets of every flow that touches `e`, each flow in order, flows by first packet.
    pub fn take(&mut self, e: &Endpoint, pool: &mut Pool) -> Vec<Packet> {
        let here = self.ends.get(self.bucket(e)).copied().unwrap_or_default();
        let mut found: Vec<(Timestamp, u32, u32)> = here
            .into_iter()
            .filter_map(|id| self.get(id).map(|f| (f, id)))
            .filter(|(f, _)| f.tuple.src == *e || f.tuple.dst == *e)
            .map(|(f, id)| (f.first, id.wrapping_sub(self.first), id))
            .collect();
        found.sort_unstable();
        // a flow from an endpoint to itself stands there twice
        found.dedup();
        found.into_iter().flat_map(|(_, _, id)| self.take_one(id, pool)).collect()
    }

    /// Takes the packets of the flow between these endpoints.
    pub fn take_flow(&mut self, tuple: &FiveTuple, pool: &mut Pool) -> Vec<Packet> {
        let here = self.ends.get(self.bucket(&tuple.dst)).copied().unwrap_or_default();
        let found = here.into_iter().find(|id| self.holds(*id, tuple));
        found.map(|id| self.take_one(id, pool)).unwrap_or_default()
    }

    /// Takes the packets of a flow by its number.
    pub fn take_one(&mut self, id: u32, pool: &mut Pool) -> Vec<Packet> {
        let Some(flow) = self.get(id).copied() else { return Vec::new() };
        let mut packets = Vec::with_capacity(flow.packets as usize);
        let mut at = flow.last;
        while let Some((kept, previous)) = at.and_then(|spot| self.blocks.get(spot)) {
            let tuple = if kept.tag.forth { flow.tuple } else { flow.tuple.reversed() };
            packets.push(Packet { frame: pool.copy(&kept.frame), tuple, payload_at: kept.tag.payload_at as usize });
            at = previous;
        }
        packets.reverse();
        self.let_go(id);
        packets
    }

    /// The flow that was opened first.
    pub fn oldest(&self) -> Option<Facts> {
        self.facts(self.first)
    }

    /// Lets go of a flow; returns its packets' number.
    pub fn let_go(&mut self, id: u32) -> u64 {
        let Some(flow) = self.index(id).and_then(|at| self.flows.get_mut(at)) else { return 0 };
        flow.last = None;
        let packets = u64::from(flow.packets);
        while self.flows.front().is_some_and(|f| f.last.is_none()) {
            self.flows.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        let (first, len) = (self.first, self.flows.len());
        self.blocks.release(|newest| newest.wrapping_sub(first) as usize >= len);
        packets
    }

    /// The number that the next flow gets.
    fn end(&self) -> u32 {
        self.first.wrapping_add(u32::try_from(self.flows.len()).unwrap_or(u32::MAX))
    }

    /// Where a flow is that has begun and not yet moved out in front.
    fn index(&self, id: u32) -> Option<usize> {
        let at = id.wrapping_sub(self.first) as usize;
        (at < self.flows.len()).then_some(at)
    }

    fn get(&self, id: u32) -> Option<&Flow> {
        self.flows.get(self.index(id)?).filter(|f| f.last.is_some())
    }

    fn open(&mut self, tuple: FiveTuple, first: Timestamp) -> u32 {
        let id = self.end();
        if self.ends.is_empty() {
            self.ends = vec![[NOBODY; WAYS]; self.buckets];
        }
        for e in [tuple.src, tuple.dst] {
            let bucket = self.bucket(&e);
            let (front, len) = (self.first, self.flows.len());
            let is_over = |n: &&mut u32| n.wrapping_sub(front) as usize >= len;
            if let Some(room) = self.ends.get_mut(bucket).and_then(|b| b.iter_mut().find(is_over)) {
                *room = id;
            }
        }
        self.flows.push_back(Flow { tuple, first, last: None, packets: 0, ssrc: 0, next: [(0, 0, 0); 2], is_rtp: false });
        id
    }

    fn bucket(&self, e: &Endpoint) -> usize {
        usize::try_from(self.hasher.endpoint(e)).unwrap_or(0) & self.buckets.saturating_sub(1)
    }
}
