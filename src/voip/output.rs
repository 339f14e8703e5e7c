//! Where the inspection's results go: chosen packets with their owner, and events.

use std::sync::Arc;

use crate::packet::Frame;

use super::event::Event;
use super::hold::Part;

/// What a receiver must know to file a packet: whose it is and why it was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Context {
    /// Call-ID.
    pub call_id: Arc<str>,
    /// Filters that chose the call.
    pub filter_ids: Arc<[Arc<str>]>,
    /// Which part of the call: `sip`, `media`.
    pub leg: &'static str,
    /// The evidence that ties media to the call; empty for signalling.
    pub claim: Arc<str>,
    /// By which rule a phone number filter chose the call; empty when none did.
    pub phone_rule: Arc<str>,
    /// What is missing of the call, as [`super::event::Hole::write`] writes it.
    pub holes: Arc<str>,
}

/// The owner of a chosen packet.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Unique for this context in this process: changes whenever the context does.
    pub key: u64,
    /// The context.
    pub context: &'a Arc<Context>,
    /// Signalling or media.
    pub part: Part,
    /// The packet was handed out before for another call: a TCP segment shared by several. Files that hold it already do not take it again.
    pub repeat: bool,
}

/// Receives what the inspection decides, in order.
pub trait Output {
    /// A packet to be forwarded or kept; no owner in generic mode.
    fn forward(&mut self, frame: &Frame<'_>, owner: Option<&Owner<'_>>);

    /// Something to tell; only called when [`Self::wants_events`].
    fn event(&mut self, event: Event);

    /// Whether events are wanted at all: they cost allocations.
    fn wants_events(&self) -> bool;
}
