//! The walk over the lines of a session description.

use std::net::IpAddr;

use super::{
    MAX_FORMATS, MAX_MEDIA, attribute,
    media::{Direction, Format, Media, MediaKind, Session, Transport},
};
use crate::packet::Ip;
use crate::protocols::rtp::codec;
use crate::protocols::text::{Short, decimal, next_line, next_word, split_once};

/// What a `c=` line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// An address media can be sent to.
    At(Ip),
    /// `0.0.0.0` or `::`: hold in the old way (RFC 3264 §8.4).
    Nowhere,
    /// A name.
    Named,
}

/// What may be said for the session, and again for one media line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope {
    pub(super) connection: Option<Connection>,
    pub(super) direction: Option<Direction>,
    pub(super) ice_ufrag: Option<Short<32>>,
}

/// Reads a body. Lines end in CRLF or LF; whatever cannot be read is passed over and counted.
pub fn parse(body: &[u8]) -> Session {
    let mut session = Session::default();
    let mut common = Scope::default();
    // What the media line being read says for itself; settled when the next one begins.
    let mut own = Scope::default();
    // False while the lines belong to a media line beyond the limit.
    let mut keep = true;
    let mut rest = body;
    while let Some(line) = next_line(&mut rest) {
        let [kind, b'=', value @ ..] = line else {
            session.bad_lines = session.bad_lines.saturating_add(u32::from(!line.is_empty()));
            continue;
        };
        let scope = if session.media.is_empty() { &mut common } else { &mut own };
        match *kind {
            b'm' => {
                settle(&mut session, &common, std::mem::take(&mut own), keep);
                keep = add_media(&mut session, value);
            }
            b'c' if keep => read_connection(&mut session, scope, value),
            b'a' if keep => attribute::read(&mut session, scope, value),
            _ => {}
        }
    }
    settle(&mut session, &common, own, keep);
    mark_bundled(&mut session);
    session
}

/// Gives the media line just read its own words, or else those said for all.
fn settle(session: &mut Session, common: &Scope, own: Scope, keep: bool) {
    let Some(media) = session.media.last_mut().filter(|_| keep) else { return };
    let connection = own.connection.or(common.connection);
    if let Some(Connection::At(ip)) = connection {
        media.addr = Some(ip);
    }
    media.direction = own.direction.or(common.direction).unwrap_or_default();
    media.ice_ufrag = own.ice_ufrag.or(common.ice_ufrag).unwrap_or_default();
    let silent = matches!(media.direction, Direction::SendOnly | Direction::Inactive);
    media.on_hold = silent || connection == Some(Connection::Nowhere);
}

/// `m=<media> <port>[/<number>] <proto> <fmt> …` (RFC 8866 §5.14). False when there is no room for another.
fn add_media(session: &mut Session, value: &[u8]) -> bool {
    if session.media.len() >= MAX_MEDIA {
        session.dropped_media = session.dropped_media.saturating_add(1);
        return false;
    }
    let mut rest = value;
    let kind = media_kind(next_word(&mut rest).unwrap_or_default());
    let port = next_word(&mut rest).unwrap_or_default();
    let (port, ports) = split_once(port, b'/').unwrap_or((port, b"1"));
    let read = |n: &[u8]| decimal(n).and_then(|n| u16::try_from(n).ok());
    session.bad_lines = session.bad_lines.saturating_add(u32::from(read(port).is_none()));
    let transport = transport(next_word(&mut rest).unwrap_or_default());
    let mut media =
        Media { kind, port: read(port).unwrap_or(0), ports: read(ports).unwrap_or(1).max(1), transport, ..Media::default() };
    while let Some(format) = next_word(&mut rest) {
        if !transport.is_rtp() {
            media.t38 |= format.eq_ignore_ascii_case(b"t38");
        } else if media.formats.len() >= MAX_FORMATS {
            session.dropped_formats = session.dropped_formats.saturating_add(1);
        } else if let Some(pt) = decimal(format).and_then(|pt| u8::try_from(pt).ok()).filter(|pt| *pt < 128)
            && media.format(pt).is_none()
        {
            media.formats.push(assumed(pt));
        }
    }
    session.media.push(media);
    true
}

/// The format of a payload type that no `a=rtpmap` has described yet.
fn assumed(payload_type: u8) -> Format {
    match codec::static_payload(payload_type) {
        Some(c) => Format { payload_type, codec: Short::cut(c.name.as_bytes()), clock_hz: c.clock_hz, channels: c.channels },
        None => Format { payload_type, codec: Short::EMPTY, clock_hz: 0, channels: 1 },
    }
}

/// `c=IN IP4 192.0.2.1[/ttl[/count]]` (RFC 8866 §5.7). Several in one scope are layers of one multicast session; the first is the base.
fn read_connection(session: &mut Session, scope: &mut Scope, value: &[u8]) {
    let mut rest = value;
    let (Some(_net), Some(_kind), Some(address)) = (next_word(&mut rest), next_word(&mut rest), next_word(&mut rest)) else {
        session.bad_lines = session.bad_lines.saturating_add(1);
        return;
    };
    let address = split_once(address, b'/').map_or(address, |(address, _)| address);
    let connection = match ip(address) {
        Some(ip) if ip.is_unspecified() => Connection::Nowhere,
        Some(ip) => Connection::At(ip),
        None => {
            session.names_skipped = session.names_skipped.saturating_add(1);
            Connection::Named
        }
    };
    scope.connection = scope.connection.or(Some(connection));
}

/// An address, written as an address; some write IPv6 in brackets.
pub(super) fn ip(bytes: &[u8]) -> Option<Ip> {
    let bytes = bytes.strip_prefix(b"[").and_then(|b| b.strip_suffix(b"]")).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).ok()?;
    text.parse::<IpAddr>().ok().map(Ip::from)
}

fn media_kind(word: &[u8]) -> MediaKind {
    match word {
        b"audio" => MediaKind::Audio,
        b"video" => MediaKind::Video,
        b"image" => MediaKind::Image,
        b"application" => MediaKind::Application,
        b"message" => MediaKind::Message,
        b"text" => MediaKind::Text,
        _ => MediaKind::Other,
    }
}

fn transport(word: &[u8]) -> Transport {
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("RTP/AVP") || is("RTP/AVPF") {
        Transport::Rtp
    } else if is("RTP/SAVP") || is("RTP/SAVPF") {
        Transport::Srtp
    } else if is("UDP/TLS/RTP/SAVPF") || is("UDP/TLS/RTP/SAVP") {
        Transport::DtlsSrtp
    } else if is("udptl") {
        Transport::Udptl
    } else if is("UDP/TLS/UDPTL") {
        Transport::DtlsUdptl
    } else if is("UDP/DTLS/SCTP") || is("DTLS/SCTP") {
        Transport::DtlsSctp
    } else if word.get(..3).is_some_and(|p| p.eq_ignore_ascii_case(b"TCP")) {
        Transport::Tcp
    } else if is("udp") || word.get(..4).is_some_and(|p| p.eq_ignore_ascii_case(b"UDP/")) {
        Transport::Udp
    } else {
        Transport::Other
    }
}

fn mark_bundled(session: &mut Session) {
    if session.bundle.is_empty() {
        return;
    }
    let bundle = &session.bundle;
    for media in &mut session.media {
        media.bundled = !media.mid.is_empty() && bundle.contains(&media.mid);
    }
}
