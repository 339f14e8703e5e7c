//! Copies of packets that wait for a verdict.
//!
//! A held frame is the only copy the engine ever makes of a packet that is not (yet) forwarded. Buffers are recycled, so that holding
//! allocates nothing once the process has seen its usual load.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};

use super::claim::Tie;
use super::event::SipEvent;

/// Recycled buffers kept at most; with frames of 1.5 kB about 6 MiB.
const POOLED: usize = 4096;
/// A buffer that grew beyond this is not kept.
const POOLED_BYTES: usize = 4096;

/// What a packet is to its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A SIP message or a piece of one.
    Signalling,
    /// RTP, RTCP or whatever else flows between claimed endpoints.
    Media,
}

/// A frame, copied.
#[derive(Debug)]
pub struct HeldFrame {
    ts: Timestamp,
    wire_len: u32,
    link: LinkType,
    interface: InterfaceId,
    data: Vec<u8>,
}

impl HeldFrame {
    /// The frame as it came.
    pub fn as_frame(&self) -> Frame<'_> {
        Frame { ts: self.ts, wire_len: self.wire_len, link: self.link, interface: self.interface, data: &self.data }
    }

    /// Capture time.
    pub fn ts(&self) -> Timestamp {
        self.ts
    }

    /// Captured bytes.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether nothing was captured.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

/// Recycles the buffers of held frames.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Vec<u8>>,
}

impl Pool {
    /// Copies a frame.
    pub fn copy(&mut self, frame: &Frame<'_>) -> HeldFrame {
        let mut data = self.free.pop().unwrap_or_default();
        data.extend_from_slice(frame.data);
        HeldFrame { ts: frame.ts, wire_len: frame.wire_len, link: frame.link, interface: frame.interface, data }
    }

    /// About what the buffers at hand take: most are made for a frame of Ethernet.
    pub fn bytes(&self) -> usize {
        self.free.len().saturating_mul(POOLED_BYTES / 2)
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, held: HeldFrame) {
        let mut data = held.data;
        if self.free.len() < POOLED && data.capacity() <= POOLED_BYTES {
            data.clear();
            self.free.push(data);
        }
    }
}

/// One entry of a call's hold.
#[derive(Debug)]
pub struct Held {
    /// The packet.
    pub frame: HeldFrame,
    /// Where its transport payload begins.
    pub payload_at: usize,
    /// Signalling or media.
    pub part: Part,
    /// What ties media to the call.
    pub tie: Option<Tie>,
    /// The event of the message this frame completed, where events are wanted.
    pub events: Vec<SipEvent>,
    /// Set once the packet has been handed out; shared by the copies of a TCP segment that several calls own.
    pub sent: Option<Arc<AtomicBool>>,
}

/// The packets of one undecided call, in order of arrival.
#[derive(Debug, Default)]
pub struct Hold {
    queue: VecDeque<Held>,
    signalling: usize,
    media: usize,
}

impl Hold {
    /// Adds a packet behind the others.
    pub fn push(&mut self, held: Held) {
        match held.part {
            Part::Signalling => self.signalling = self.signalling.saturating_add(1),
            Part::Media => self.media = self.media.saturating_add(1),
        }
        self.queue.push_back(held);
    }

    /// Takes the oldest packet; a queue that is empty gives its memory back, since most calls hold only once.
    pub fn pop(&mut self) -> Option<Held> {
        let held = self.queue.pop_front()?;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        self.forget(&held);
        Some(held)
    }

    /// Takes the oldest packet of one part, wherever it stands.
    pub fn pop_part(&mut self, part: Part) -> Option<Held> {
        // the oldest of a part is near the front unless the other part fills it: bounded by the budgets of both parts
        let at = self.queue.iter().position(|h| h.part == part)?;
        let held = self.queue.remove(at)?;
        self.forget(&held);
        Some(held)
    }

    /// The oldest media packet's time.
    pub fn oldest_media(&self) -> Option<Timestamp> {
        self.queue.iter().find(|h| h.part == Part::Media).map(|h| h.frame.ts())
    }

    /// Held signalling packets.
    pub fn signalling(&self) -> usize {
        self.signalling
    }

    /// Held media packets.
    pub fn media(&self) -> usize {
        self.media
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn forget(&mut self, held: &Held) {
        match held.part {
            Part::Signalling => self.signalling = self.signalling.saturating_sub(1),
            Part::Media => self.media = self.media.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_hold_keeps_no_memory() {
        let mut hold = Hold::default();
        let mut pool = Pool::default();
        for _ in 0..3 {
            let frame = Frame {
                ts: Timestamp::from_nanos(1),
                wire_len: 1,
                link: LinkType::ETHERNET,
                interface: InterfaceId(0),
                data: &[0],
            };
            let frame = pool.copy(&frame);
            hold.push(Held { frame, payload_at: 0, part: Part::Media, tie: None, events: Vec::new(), sent: None });
        }

        while hold.pop().is_some() {}

        assert_eq!((hold.queue.capacity(), hold.media()), (0, 0));
    }
}
