//! `a=` lines: those that say where media flows, and what it is.

use super::{
    MAX_BUNDLE, MAX_CANDIDATES,
    media::{Candidate, CandidateKind, Direction, Media, Session},
    parse::{Scope, ip},
};
use crate::packet::Endpoint;
use crate::protocols::text::{Short, decimal, next_word, split_once, trim};

/// Reads one attribute of the session, or of its last media line when there is one.
pub(super) fn read(session: &mut Session, scope: &mut Scope, attribute: &[u8]) {
    let (name, value) = split_once(attribute, b':').unwrap_or((attribute, &[]));
    match name {
        b"ice-ufrag" => scope.ice_ufrag = Short::whole(trim(value)),
        b"group" => group(session, value),
        b"candidate" => candidate(session, value),
        _ => {
            if let Some(direction) = direction(trim(name)) {
                scope.direction = Some(direction);
            } else if let Some(media) = session.media.last_mut() {
                of_media(media, name, value);
            }
        }
    }
}

fn of_media(media: &mut Media, name: &[u8], value: &[u8]) {
    match name {
        b"rtpmap" => rtpmap(media, value),
        b"rtcp" => rtcp(media, value),
        b"rtcp-mux" | b"rtcp-mux-only" => media.rtcp_mux = true,
        b"mid" => media.mid = Short::cut(trim(value)),
        b"crypto" => media.crypto = true,
        _ => {}
    }
}

fn direction(name: &[u8]) -> Option<Direction> {
    match name {
        b"sendrecv" => Some(Direction::SendRecv),
        b"sendonly" => Some(Direction::SendOnly),
        b"recvonly" => Some(Direction::RecvOnly),
        b"inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

/// `a=rtpmap:<pt> <name>/<clock>[/<channels>]` (RFC 8866 §6.6).
fn rtpmap(media: &mut Media, value: &[u8]) {
    let mut rest = value;
    let payload_type = next_word(&mut rest).and_then(decimal).and_then(|pt| u8::try_from(pt).ok());
    let Some(format) = payload_type.and_then(|pt| media.formats.iter_mut().find(|f| f.payload_type == pt)) else { return };
    let mut parts = next_word(&mut rest).unwrap_or_default().split(|b| *b == b'/');
    let codec = parts.next().unwrap_or_default();
    if codec.is_empty() {
        return;
    }
    format.codec = Short::cut(codec);
    format.clock_hz = parts.next().and_then(decimal).and_then(|clock| u32::try_from(clock).ok()).unwrap_or(0);
    format.channels = parts.next().and_then(decimal).and_then(|n| u8::try_from(n).ok()).unwrap_or(1).max(1);
}

/// `a=rtcp:<port> [IN IP4 <address>]` (RFC 3605 §2.1).
fn rtcp(media: &mut Media, value: &[u8]) {
    let mut rest = value;
    let Some(port) = next_word(&mut rest).and_then(decimal).and_then(|port| u16::try_from(port).ok()) else { return };
    let _net_and_kind = (next_word(&mut rest), next_word(&mut rest));
    let address = next_word(&mut rest).and_then(ip).filter(|ip| !ip.is_unspecified());
    media.rtcp = (port != 0).then_some((address, port));
}

/// `a=group:BUNDLE <mid> …` (RFC 8843 §7).
fn group(session: &mut Session, value: &[u8]) {
    let mut rest = value;
    if next_word(&mut rest) != Some(b"BUNDLE") {
        return;
    }
    while let Some(mid) = next_word(&mut rest) {
        if session.bundle.len() >= MAX_BUNDLE {
            return;
        }
        session.bundle.push(Short::cut(mid));
    }
}

/// `a=candidate:<foundation> <component> <transport> <priority> <address> <port> typ <type> …` (RFC 8839 §5.1).
fn candidate(session: &mut Session, value: &[u8]) {
    let Some(media) = session.media.last_mut() else { return };
    let mut rest = value;
    let mut word = || next_word(&mut rest);
    let (
        Some(_foundation),
        Some(component),
        Some(transport),
        Some(_priority),
        Some(address),
        Some(port),
        Some(b"typ"),
        Some(kind),
    ) = (word(), word(), word(), word(), word(), word(), word(), word())
    else {
        session.bad_lines = session.bad_lines.saturating_add(1);
        return;
    };
    if !transport.eq_ignore_ascii_case(b"udp") {
        return;
    }
    let kind = match kind {
        b"host" => CandidateKind::Host,
        b"srflx" => CandidateKind::ServerReflexive,
        b"prflx" => CandidateKind::PeerReflexive,
        b"relay" => CandidateKind::Relayed,
        _ => return,
    };
    let Some(ip) = ip(address) else {
        session.names_skipped = session.names_skipped.saturating_add(1);
        return;
    };
    let component = decimal(component).and_then(|c| u8::try_from(c).ok());
    let port = decimal(port).and_then(|port| u16::try_from(port).ok());
    let (Some(component), Some(port)) = (component, port.filter(|p| *p != 0)) else { return };
    if ip.is_unspecified() {
        return;
    }
    if media.candidates.len() >= MAX_CANDIDATES {
        session.dropped_candidates = session.dropped_candidates.saturating_add(1);
        return;
    }
    media.candidates.push(Candidate { component, kind, endpoint: Endpoint { ip, port } });
}
