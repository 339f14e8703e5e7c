//! The event of a SIP message.

use crate::protocols::sdp::{self, MediaKind};
use crate::protocols::sip::{self, Message, Start};
use crate::voip::event::{Common, IdentityFact, SipEvent};
use crate::voip::message::{Seen, call_id_text, text};

/// Identities told per message.
const IDENTITIES: usize = 32;
/// Media lines told per message.
const MEDIA: usize = 16;

/// Builds the event.
pub(super) fn of(msg: &Message<'_>, sessions: &[sdp::Session], seen: &Seen) -> SipEvent {
    let (method, status) = match msg.start() {
        Start::Request { method, .. } => (Some(text(method).into_owned()), None),
        Start::Response { status, .. } => (None, Some(status)),
    };
    let (from_user, from_host) = party(msg.from().and_then(|f| f.uri()));
    let (to_user, to_host) = party(msg.to().and_then(|t| t.uri()));
    let cseq = msg.cseq();
    let mut identities = Vec::new();
    sip::identities(msg, &mut |field, who| {
        if identities.len() < IDENTITIES {
            let fact = IdentityFact { field: field.name(), user: text(who.user).into_owned(), host: text(who.host).into_owned() };
            identities.push(fact);
        }
    });
    let media = sessions.iter().flat_map(|s| &s.media).take(MEDIA).map(line).collect();
    SipEvent {
        common: Common { ts: seen.ts, tuple: seen.tuple, place: seen.place },
        method,
        status,
        cseq_method: cseq.as_ref().map(|c| text(c.method).into_owned()).unwrap_or_default(),
        cseq: cseq.map_or(0, |c| c.number),
        call_id: msg.call_id().map(|id| call_id_text(&id).into_owned()).unwrap_or_default(),
        from_user,
        from_host,
        to_user,
        to_host,
        identities,
        malformed: msg.malformed().reasons().collect(),
        media,
    }
}

fn party(uri: Option<sip::Uri<'_>>) -> (String, String) {
    uri.map_or_else(Default::default, |u| (text(&u.user()).into_owned(), text(u.host()).into_owned()))
}

fn line(m: &sdp::Media) -> String {
    let kind = match m.kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
        MediaKind::Image => "image",
        MediaKind::Application => "application",
        MediaKind::Message => "message",
        MediaKind::Text => "text",
        MediaKind::Other => "other",
    };
    match m.addr {
        Some(ip) => format!("{kind} {}", crate::packet::Endpoint { ip, port: m.port }),
        // c=0.0.0.0, as RFC 2543 had it, or no address that is one
        None if m.on_hold => format!("{kind} port {} on hold", m.port),
        None => format!("{kind} port {}", m.port),
    }
}
