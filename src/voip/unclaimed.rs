//! Media that arrives before its SDP: kept for a moment in case somebody claims it.
//!
//! Only plausible RTP of new flows gets here. A flow is kept for its first packets or its first seconds, whichever ends sooner; all flows
//! together under one byte budget, the oldest flow first out.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;
use smallvec::SmallVec;

use crate::packet::{Endpoint, FiveTuple, Frame, Timestamp};

use super::event::Place;
use super::hold::{HeldFrame, Pool};

/// Flows listed per endpoint; more are not found by a claim and simply age.
const PER_ENDPOINT: usize = 16;

/// One flow's packets.
#[derive(Debug)]
struct Flow {
    tuple: FiveTuple,
    first: Timestamp,
    place: Place,
    frames: VecDeque<HeldFrame>,
    serial: u64,
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
    /// Keeps a packet of a flow; `flow` is what an earlier call returned, `None` for a new flow. Returns the number to pass next time, or
    /// `None` when the flow has had its share.
    pub fn push(
        &mut self,
        flow: Option<u32>,
        tuple: FiveTuple,
        frame: &Frame<'_>,
        place: Place,
        max_packets: usize,
        pool: &mut Pool,
    ) -> Option<u32> {
        let id = match flow.filter(|id| self.get(*id).is_some_and(|f| f.tuple == tuple || f.tuple == tuple.reversed())) {
            Some(id) => id,
            None => self.open(tuple, frame.ts, place),
        };
        let f = self.flows.get_mut(id as usize)?.as_mut()?;
        if f.frames.len() >= max_packets {
            return None;
        }
        self.bytes = self.bytes.saturating_add(frame.data.len());
        f.frames.push_back(pool.copy(frame));
        Some(id)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the packets of every flow that touches `e`, each flow in order, flows by first packet.
    pub fn take(&mut self, e: &Endpoint) -> Vec<(FiveTuple, Place, VecDeque<HeldFrame>)> {
        let Some(ids) = self.by_endpoint.get(e).cloned() else { return Vec::new() };
        let mut taken: Vec<Flow> = ids.into_iter().filter_map(|id| self.close(id)).collect();
        taken.sort_by_key(|f| (f.first, f.serial));
        taken.into_iter().map(|f| (f.tuple, f.place, f.frames)).collect()
    }

    /// Lets go of the oldest flow if `older_than` says so; returns its packets' number.
    pub fn expire_one(&mut self, mut older_than: impl FnMut(Timestamp, usize) -> bool, pool: &mut Pool) -> Option<u64> {
        loop {
            let &(id, serial) = self.order.front()?;
            let Some(f) = self.get(id).filter(|f| f.serial == serial) else {
                self.order.pop_front();
                continue;
            };
            if !older_than(f.first, self.bytes) {
                return None;
            }
            self.order.pop_front();
            let flow = self.close(id)?;
            let n = flow.frames.len() as u64;
            flow.frames.into_iter().for_each(|h| pool.recycle(h));
            return Some(n);
        }
    }

    /// Lets go of everything; returns the packets' number.
    pub fn clear(&mut self, pool: &mut Pool) -> u64 {
        let mut n = 0_u64;
        while let Some(k) = self.expire_one(|_, _| true, pool) {
            n = n.saturating_add(k);
        }
        n
    }

    fn get(&self, id: u32) -> Option<&Flow> {
        self.flows.get(id as usize)?.as_ref()
    }

    fn open(&mut self, tuple: FiveTuple, first: Timestamp, place: Place) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        let flow = Flow { tuple, first, place, frames: VecDeque::new(), serial: self.serial };
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
        self.bytes = self.bytes.saturating_sub(flow.frames.iter().map(HeldFrame::len).sum());
        self.free.push(id);
        Some(flow)
    }
}
