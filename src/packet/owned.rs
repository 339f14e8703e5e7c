//! A frame that outlives the ring it was captured in.

use super::{Frame, InterfaceId, LinkType, Timestamp};

/// A copied frame: what [`Frame`] borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFrame {
    /// Capture time.
    pub ts: Timestamp,
    /// Length on the wire.
    pub wire_len: u32,
    /// How `data` begins.
    pub link: LinkType,
    /// Where it was seen.
    pub interface: InterfaceId,
    /// The captured bytes.
    pub data: Box<[u8]>,
}

impl OwnedFrame {
    /// Borrows it again.
    pub fn as_frame(&self) -> Frame<'_> {
        Frame { ts: self.ts, wire_len: self.wire_len, link: self.link, interface: self.interface, data: &self.data }
    }
}

impl From<&Frame<'_>> for OwnedFrame {
    fn from(f: &Frame<'_>) -> Self {
        Self { ts: f.ts, wire_len: f.wire_len, link: f.link, interface: f.interface, data: f.data.into() }
    }
}
