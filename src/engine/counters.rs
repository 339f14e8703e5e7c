//! What became of every frame an engine took.

use super::parsing::Parsing;
use crate::reason::DropReason;
use crate::voip::table::TableCounters;

/// `captured + shared = forwarded + filtered + duplicates + own + held + Σ dropped`, at every moment between two frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken.
    pub captured: u64,
    /// Further copies of packets that several calls own.
    pub shared: u64,
    /// Handed to the output.
    pub forwarded: u64,
    /// Let go because nobody asked for them.
    pub filtered: u64,
    /// Seen twice.
    pub duplicates: u64,
    /// Of our own connections.
    pub own: u64,
    /// Waiting now.
    pub held: u64,
    /// Given up, by [`DropReason::index`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// SIP messages read.
    pub sip_messages: u64,
    /// Looked like SIP and was none.
    pub not_sip: u64,
    /// Connections with SIP inside TLS, which is not decrypted.
    pub sip_tls: u64,
    /// Frames whose headers could not be read (they are filtered, or forwarded in generic mode).
    pub undecodable: u64,
    /// Calls seen.
    pub calls: u64,
    /// Calls evicted from a full table.
    pub calls_evicted: u64,
    /// Calls whose end nobody saw: their media had stopped for long.
    pub calls_idle: u64,
    /// The same, without media: they were old.
    pub calls_aged: u64,
    /// Flows of media that nobody has signalled.
    pub rtp_only: u64,
    /// What was forgotten for want of room; packets given up with it are in `dropped`.
    pub forgotten: Forgotten,
    /// What could not be read, and what was read only up to a bound.
    pub parsing: Parsing,
}

/// What was forgotten because a bound was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Flows, where there was no room for another.
    pub flows: u64,
    /// Flows, earlier than otherwise since they were idle in an emergency.
    pub flows_emergency: u64,
    /// Directions of TCP connections that are no longer put together.
    pub tcp_directions: u64,
    /// Bytes of TCP that were not taken, or taken and dropped unread.
    pub tcp_bytes: u64,
    /// Fragmented datagrams, by bytes, number, age or fragments.
    pub datagrams: u64,
}

impl Forgotten {
    fn add(&mut self, o: &Self) {
        self.flows = self.flows.saturating_add(o.flows);
        self.flows_emergency = self.flows_emergency.saturating_add(o.flows_emergency);
        self.tcp_directions = self.tcp_directions.saturating_add(o.tcp_directions);
        self.tcp_bytes = self.tcp_bytes.saturating_add(o.tcp_bytes);
        self.datagrams = self.datagrams.saturating_add(o.datagrams);
    }
}

impl Counters {
    /// Packets given up, all reasons together.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().fold(0, |a, b| a.saturating_add(*b))
    }

    /// Of those, what was given up for want of room, or by a bug: whether anybody wanted it was still open.
    pub fn crowded_out(&self) -> u64 {
        let reasons = [
            DropReason::EvictedCall,
            DropReason::HoldMessages,
            DropReason::HoldMedia,
            DropReason::HoldBytes,
            DropReason::ParserPanic,
        ];
        reasons.iter().filter_map(|r| self.dropped.get(r.index())).fold(0, |a, b| a.saturating_add(*b))
    }

    /// Everything that was forgotten, or not looked at, because a bound was reached: what, and how many.
    pub fn reached(&self) -> impl Iterator<Item = (String, u64)> {
        let f = &self.forgotten;
        let all = [
            ("flows", f.flows),
            ("flows_emergency", f.flows_emergency),
            ("calls", self.calls_evicted),
            ("tcp_directions", f.tcp_directions),
            ("tcp_bytes", f.tcp_bytes),
            ("datagrams", f.datagrams),
        ];
        let parsed = self.parsing.limits().map(|(limit, n)| (limit.names().join("_"), n));
        all.into_iter().map(|(name, n)| (name.to_owned(), n)).chain(parsed).filter(|(_, n)| *n > 0)
    }

    /// The same, for a log line.
    pub fn limits(&self) -> String {
        let some: Vec<String> = self.reached().map(|(name, n)| format!("{name}={n}")).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(" ") }
    }

    /// What is missing from the equation above: 0, or there is a bug.
    pub fn imbalance(&self) -> i64 {
        let out = [self.forwarded, self.filtered, self.duplicates, self.own, self.held, self.dropped_total()];
        let out = out.iter().fold(0_u64, |a, b| a.saturating_add(*b));
        i64::try_from(self.captured.saturating_add(self.shared))
            .unwrap_or(i64::MAX)
            .saturating_sub(i64::try_from(out).unwrap_or(i64::MAX))
    }

    /// Adds another engine's counters.
    pub fn add(&mut self, o: &Self) {
        self.captured = self.captured.saturating_add(o.captured);
        self.shared = self.shared.saturating_add(o.shared);
        self.forwarded = self.forwarded.saturating_add(o.forwarded);
        self.filtered = self.filtered.saturating_add(o.filtered);
        self.duplicates = self.duplicates.saturating_add(o.duplicates);
        self.own = self.own.saturating_add(o.own);
        self.held = self.held.saturating_add(o.held);
        self.sip_messages = self.sip_messages.saturating_add(o.sip_messages);
        self.not_sip = self.not_sip.saturating_add(o.not_sip);
        self.sip_tls = self.sip_tls.saturating_add(o.sip_tls);
        self.undecodable = self.undecodable.saturating_add(o.undecodable);
        self.calls = self.calls.saturating_add(o.calls);
        self.calls_evicted = self.calls_evicted.saturating_add(o.calls_evicted);
        self.calls_idle = self.calls_idle.saturating_add(o.calls_idle);
        self.calls_aged = self.calls_aged.saturating_add(o.calls_aged);
        self.rtp_only = self.rtp_only.saturating_add(o.rtp_only);
        self.forgotten.add(&o.forgotten);
        self.parsing.add(&o.parsing);
        for (a, b) in self.dropped.iter_mut().zip(&o.dropped) {
            *a = a.saturating_add(*b);
        }
    }

    pub(super) fn add_table(&mut self, t: &TableCounters) {
        self.shared = self.shared.saturating_add(t.shared);
        self.forwarded = self.forwarded.saturating_add(t.forwarded);
        self.filtered = self.filtered.saturating_add(t.filtered);
        self.held = self.held.saturating_add(t.held);
        self.calls = self.calls.saturating_add(t.calls);
        self.calls_evicted = self.calls_evicted.saturating_add(t.evicted);
        self.calls_idle = self.calls_idle.saturating_add(t.idle);
        self.calls_aged = self.calls_aged.saturating_add(t.aged);
        self.rtp_only = self.rtp_only.saturating_add(t.rtp_only);
        for (a, b) in self.dropped.iter_mut().zip(&t.dropped) {
            *a = a.saturating_add(*b);
        }
    }
}
