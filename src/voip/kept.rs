//! Copies of packets in blocks, first in, first out: what a hold of many short-lived packets is made of.
//!
//! ```text
//! front ─▶ [packet packet packet …] [packet …] … [packet … room] ◀─ back        each packet knows the one before it of its flow
//! ```
//! A packet is appended to the last block, and nothing else is touched: no memory is asked for until that is full, and what came before is
//! not read. A block goes as a whole once its keeper has no use for any flow that had begun when the block was filled; its memory is used
//! again.

use std::collections::VecDeque;

use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};

/// Bytes of packets in a block; one that is larger has a block of its own.
const BLOCK_BYTES: usize = 64 << 10;
/// Empty blocks kept for reuse at most: 4 MiB.
const SPARE: usize = 64;
/// One of them for so many calls: none in an engine that looks at one call of a processor.
const CALLS_PER_SPARE: usize = 1024;

/// Where a packet is, as long as its block is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    block: u64,
    at: u32,
}

/// A packet as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept<'a> {
    /// The frame as it came.
    pub(super) frame: Frame<'a>,
    /// What was said with it.
    pub(super) tag: Tag,
}

/// What its keeper says of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    /// Where the transport payload begins.
    pub(super) payload_at: u32,
    /// Whether it went the way of the first packet of its flow.
    pub(super) forth: bool,
}

#[derive(Debug)]
struct Entry {
    ts: Timestamp,
    wire_len: u32,
    link: LinkType,
    interface: InterfaceId,
    start: u32,
    len: u32,
    tag: Tag,
    /// The packet of the same flow that came before.
    previous: Option<Spot>,
}

#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The newest flow when the last packet came.
    newest: u32,
}

/// All blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    queue: VecDeque<Block>,
    /// Number of the front block.
    first: u64,
    spare: Vec<Block>,
    max_spare: usize,
    bytes: usize,
}

impl Blocks {
    /// For about so many calls.
    pub(super) fn new(calls: usize) -> Self {
        Self { max_spare: (calls / CALLS_PER_SPARE).min(SPARE), ..Self::default() }
    }

    /// Copies a packet behind all others; `newest` is the number of the flow that began last.
    pub(super) fn push(&mut self, frame: &Frame<'_>, tag: Tag, previous: Option<Spot>, newest: u32) -> Spot {
        let fits = |b: &Block| b.bytes.len().saturating_add(frame.data.len()) <= BLOCK_BYTES;
        if !self.queue.back().is_some_and(fits) {
            let fresh = self.spare.pop().unwrap_or_else(|| Block { bytes: Vec::with_capacity(BLOCK_BYTES), ..Block::default() });
            self.queue.push_back(fresh);
        }
        self.bytes = self.bytes.saturating_add(frame.data.len());
        let last = self.first.saturating_add(self.queue.len() as u64).saturating_sub(1);
        self.queue.back_mut().map_or(Spot { block: last, at: 0 }, |block| {
            let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let spot = Spot { block: last, at: short(block.entries.len()) };
            let Frame { ts, wire_len, link, interface, data } = *frame;
            let (start, len) = (short(block.bytes.len()), short(data.len()));
            block.entries.push(Entry { ts, wire_len, link, interface, start, len, tag, previous });
            block.bytes.extend_from_slice(data);
            block.newest = newest;
            spot
        })
    }

    /// A packet, and where the one before it of its flow is.
    pub(super) fn get(&self, spot: Spot) -> Option<(Kept<'_>, Option<Spot>)> {
        let block = self.queue.get(usize::try_from(spot.block.checked_sub(self.first)?).ok()?)?;
        let e = block.entries.get(spot.at as usize)?;
        let data = block.bytes.get(e.start as usize..)?.get(..e.len as usize)?;
        let frame = Frame { ts: e.ts, wire_len: e.wire_len, link: e.link, interface: e.interface, data };
        Some((Kept { frame, tag: e.tag }, e.previous))
    }

    /// Lets go of the blocks at the front that hold nothing but packets of flows that `is_over` says so of.
    pub(super) fn release(&mut self, is_over: impl Fn(u32) -> bool) {
        while self.queue.front().is_some_and(|b| is_over(b.newest))
            && let Some(mut block) = self.queue.pop_front()
        {
            self.first = self.first.saturating_add(1);
            self.bytes = self.bytes.saturating_sub(block.bytes.len());
            if self.spare.len() < self.max_spare && block.bytes.capacity() <= BLOCK_BYTES {
                block.bytes.clear();
                block.entries.clear();
                self.spare.push(block);
            }
        }
    }

    /// Bytes of the packets in all blocks, those included that nobody has a use for any more, but whose block is still there.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ts: i64, data: &[u8]) -> Frame<'_> {
        let link = LinkType::ETHERNET;
        Frame { ts: Timestamp::from_nanos(ts), wire_len: 9999, link, interface: InterfaceId(3), data }
    }

    const TAG: Tag = Tag { payload_at: 42, forth: true };

    #[test]
    fn a_flow_s_packets_are_found_from_its_last_one_between_those_of_others() {
        let mut blocks = Blocks::new(100_000);
        let mut last = None;
        for n in 0..1000_i64 {
            let data = vec![u8::try_from(n % 251).unwrap(); 200];
            let spot = blocks.push(&frame(n, &data), TAG, last.filter(|_| n % 3 == 0), 1);
            if n % 3 == 0 {
                last = Some(spot);
            }
        }

        let mut seen = Vec::new();
        let mut at = last;
        while let Some((kept, previous)) = at.and_then(|spot| blocks.get(spot)) {
            assert_eq!((kept.frame.wire_len, kept.frame.interface, kept.tag.payload_at), (9999, InterfaceId(3), 42));
            assert!(kept.frame.data.iter().all(|b| i64::from(*b) == kept.frame.ts.as_nanos() % 251));
            seen.push(kept.frame.ts.as_nanos());
            at = previous;
        }
        assert_eq!(seen, (0..334).rev().map(|n| n * 3).collect::<Vec<_>>());
    }

    #[test]
    fn memory_goes_in_the_order_it_came_and_is_used_again() {
        let mut blocks = Blocks::new(100_000);
        let spots: Vec<Spot> = (0..2000_u32).map(|n| blocks.push(&frame(1, &[7; 300]), TAG, None, n)).collect();
        let whole = blocks.bytes();

        blocks.release(|_| false);
        assert_eq!(blocks.bytes(), whole);
        blocks.release(|flow| flow < 1000);
        assert!(blocks.get(spots[0]).is_none(), "a spot of a block that is gone");
        assert!(spots[1000..].iter().all(|spot| blocks.get(*spot).is_some()), "a block with one packet that is wanted stays");
        assert!((300_000..=300_000 + BLOCK_BYTES).contains(&blocks.bytes()));
        blocks.release(|_| true);

        assert_eq!((whole, blocks.bytes(), blocks.queue.len()), (600_000, 0, 0));
        assert!(!blocks.spare.is_empty());
        let large = blocks.push(&frame(1, &vec![0; 100_000]), TAG, None, 1);
        assert!(blocks.get(large).is_some(), "larger than a block");
    }
}
