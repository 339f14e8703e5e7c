//! Generic mode: single packets, chosen by address and BPF; and the BPF filters that restrict every mode.

use std::sync::Arc;

use crate::filter::{BpfCompiler, BpfGate, FilterSet, Hits};
use crate::packet::headers::{Decoded, Headers};
use crate::packet::{Frame, LinkType};
use crate::voip::output::Output;
use crate::voip::table::NoFilterPolicy;

use super::{BURST, Engine};

/// Link types one process meets; more are tested by none of the BPF filters.
const LINKS: usize = 16;

/// The packet filters in force.
pub(super) struct Generic {
    filters: Arc<FilterSet>,
    bpf: Arc<dyn BpfCompiler + Send + Sync>,
    no_filter: NoFilterPolicy,
    /// BPF programs by unusual link type, compiled when the link type is first seen; the set has those of the usual ones.
    programs: Vec<(LinkType, BpfGate)>,
}

impl Generic {
    pub(super) fn new(filters: Arc<FilterSet>, bpf: Arc<dyn BpfCompiler + Send + Sync>, no_filter: NoFilterPolicy) -> Self {
        Self { filters, bpf, no_filter, programs: Vec::new() }
    }

    pub(super) fn set_filters(&mut self, filters: Arc<FilterSet>) {
        self.filters = filters;
        self.programs.clear();
    }

    /// Whether the packet is inside the BPF filters: the outer packet is tried, then the inner one. No BPF filter: yes.
    pub(super) fn passes_bpf(&mut self, frame: &Frame<'_>, headers: Option<&Headers>) -> bool {
        if !self.filters.restricts_packets() {
            return true;
        }
        if self.test(frame.link, frame.data) {
            return true;
        }
        let Some(h) = headers.filter(|h| h.outer.is_some()) else { return false };
        let inner = frame.data.get(h.ip.start as usize..).unwrap_or_default();
        self.test(LinkType::RAW, inner)
    }

    fn test(&mut self, link: LinkType, data: &[u8]) -> bool {
        if let Some(gate) = self.filters.gate(link) {
            return gate.passes(data);
        }
        if !self.programs.iter().any(|(l, _)| *l == link) {
            if self.programs.len() >= LINKS {
                return false;
            }
            // an expression that means nothing on this link type matches nothing there; what means nothing at all was refused at set-up
            let (gate, _) = BpfGate::compile(&self.filters, &*self.bpf, link);
            self.programs.push((link, gate));
        }
        self.programs.iter().find(|(l, _)| *l == link).is_some_and(|(_, gate)| gate.passes(data))
    }

    /// Whether a single packet is wanted.
    fn wants(&mut self, frame: &Frame<'_>, headers: Option<&Headers>) -> bool {
        if self.filters.is_empty() {
            return self.no_filter == NoFilterPolicy::Allow;
        }
        if !self.passes_bpf(frame, headers) {
            return false;
        }
        if !self.filters.has_ip() {
            return self.filters.only_bpf();
        }
        let Some(h) = headers else { return false };
        let mut hits = Hits::default();
        for ip in [h.tuple.src.ip, h.tuple.dst.ip] {
            self.filters.match_ip(ip, &mut hits);
        }
        if let Some(outer) = h.outer {
            for ip in [outer.src.ip, outer.dst.ip] {
                self.filters.match_ip(ip, &mut hits);
            }
        }
        !hits.is_empty()
    }
}

impl Engine {
    /// Takes a burst: first all are judged, then the identities of the wanted ones are looked up together, so that the
    /// cache misses overlap.
    pub(super) fn handle_generic(&mut self, frames: &[Frame<'_>], decoded: &[Decoded], out: &mut dyn Output) {
        let mut wanted = [false; BURST];
        let mut ids = [0_u64; BURST];
        for (((frame, decoded), wanted), id) in frames.iter().zip(decoded).zip(&mut wanted).zip(&mut ids) {
            *wanted = self.wants_frame(frame, decoded.headers());
            if let Some(h) = decoded.headers().filter(|_| *wanted && !self.config.keep_duplicates) {
                *id = self.dedup.packet_id(h, frame.data);
            }
        }
        if !self.config.keep_duplicates {
            self.dedup.warm(ids.iter().take(frames.len()).copied());
        }
        for (((frame, decoded), wanted), id) in frames.iter().zip(decoded).zip(wanted).zip(ids) {
            if !wanted || (decoded.headers().is_some() && self.is_duplicate(frame, id)) {
                continue;
            }
            out.forward(frame, None);
            self.counters.forwarded = self.counters.forwarded.saturating_add(1);
        }
    }

    /// Whether a frame is to go out, if it is not a double; counted if not.
    fn wants_frame(&mut self, frame: &Frame<'_>, headers: Option<&Headers>) -> bool {
        if headers.is_some_and(|h| self.is_own(&h.tuple)) {
            self.counters.own = self.counters.own.saturating_add(1);
            return false;
        }
        let wanted = match headers.and_then(|h| Some((h, h.fragment?))) {
            Some((h, f)) => self.wants_fragment(frame, h, f),
            None => self.generic.wants(frame, headers),
        };
        if !wanted {
            self.filtered();
        }
        wanted
    }

    /// Whether a packet of a fragmented datagram is wanted: later fragments go the way of the first.
    pub(super) fn wants_packet(&mut self, frame: &Frame<'_>, headers: Option<&Headers>) -> bool {
        self.generic.wants(frame, headers)
    }
}
