//! Batches for a processor without our extensions: the metadata it files packets by.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::backlog::Outgoing;
use crate::batch::legacy::{LegacyMeta, LegacyRtp, LegacySip, rewrite};
use crate::batch::{BatchView, PacketView, ViewLimits};
use crate::packet::headers::{self, DecodeOptions, Transport};
use crate::protocols::rtp;
use crate::protocols::sip::{self, Message, Start};

/// Rewrites batches for one connection.
#[derive(Clone)]
pub(super) struct Legacy {
    /// The names behind the packets' interface indices.
    pub(super) interfaces: Arc<[String]>,
}

impl Legacy {
    /// The batch as gRPC data, numbered for this connection.
    pub(super) fn encode(&self, out: &Outgoing) -> Bytes {
        match BatchView::parse(out.batch.message(), &ViewLimits::default()) {
            Ok(view) => {
                // a batch that is passed on brings its hunter's names
                let brought: Vec<String> = view.relay_interfaces().map(str::to_owned).collect();
                let interfaces = if view.path().len() == 0 { &*self.interfaces } else { &brought };
                rewrite(&view, out.connection_seq, interfaces, describe).bytes
            }
            Err(e) => {
                // it was encoded here: this is our bug, and the peer still deserves the packets
                debug_assert!(false, "our own batch does not parse: {e}");
                tracing::error!(error = %e, "a batch could not be rewritten for the processor; sent as it is");
                out.batch.bytes.clone()
            }
        }
    }
}

/// What a packet carries, from its own bytes: what peers without our extensions want to be told.
pub fn describe<'v>(p: &PacketView<'v>) -> LegacyMeta<'v> {
    let none = LegacyMeta { sip: None, rtp: None };
    let Ok(h) = headers::decode(p.link(), p.data(), &DecodeOptions::default()) else { return none };
    let payload = h.payload(p.data());
    if sip::looks_like(payload) {
        return LegacyMeta { sip: Message::index(payload).map(|m| describe_sip(&m)), rtp: None };
    }
    let is_media = p.context().is_some_and(|c| !c.claim().is_empty());
    let header = rtp::Header::parse(payload).ok().filter(|_| is_media && h.transport == Transport::Udp && !rtp::is_rtcp(payload));
    let rtp = header.map(|r| LegacyRtp {
        ssrc: r.ssrc,
        payload_type: u32::from(r.payload_type),
        sequence: u32::from(r.sequence),
        timestamp: r.timestamp,
    });
    LegacyMeta { sip: None, rtp }
}

fn describe_sip<'v>(m: &Message<'v>) -> LegacySip<'v> {
    let lossy = |b: &[u8]| Cow::Owned(String::from_utf8_lossy(b).into_owned());
    let (method, response_code) = match m.start() {
        Start::Request { method, .. } => (lossy(method), 0),
        Start::Response { status, .. } => (Cow::Borrowed("RESPONSE"), u32::from(status)),
    };
    let (from, to) = (m.from(), m.to());
    let user = |a: &Option<sip::NameAddr<'_>>| a.and_then(|a| a.uri()).map(|u| lossy(&u.user())).unwrap_or_default();
    let uri = |a: &Option<sip::NameAddr<'_>>| {
        let text = a.and_then(|a| a.uri()).map(|u| match &*u.user() {
            [] => String::from_utf8_lossy(u.host()).into_owned(),
            user => format!("{}@{}", String::from_utf8_lossy(user), String::from_utf8_lossy(u.host())),
        });
        Cow::Owned(text.unwrap_or_default())
    };
    let tag = |a: &Option<sip::NameAddr<'_>>| a.and_then(|a| a.tag()).map(lossy).unwrap_or_default();
    LegacySip {
        method,
        call_id: m.call_id().map(|id| lossy(&id)).unwrap_or_default(),
        from_user: user(&from),
        to_user: user(&to),
        response_code,
        p_asserted_identity: m.first(sip::HeaderName::PAssertedIdentity).map(|v| lossy(&v)).unwrap_or_default(),
        from_tag: tag(&from),
        to_tag: tag(&to),
        from_uri: uri(&from),
        to_uri: uri(&to),
        cseq_method: m.cseq().map(|c| lossy(c.method)).unwrap_or_default(),
    }
}
