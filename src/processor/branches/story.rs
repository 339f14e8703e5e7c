//! What the record of a call says, out of what every hunter's inspection found, and whose names its files bear.

use super::calls::Entry;
use crate::packet::headers::{self, DecodeOptions};
use crate::packet::{Frame, Timestamp};
use crate::protocols::sip;
use crate::record::json::{self, CallRecord};
use crate::voip::details::{Details, Dialog, DialogState};
use crate::voip::event::{CallFacts, Hole, IdentityFact};
use crate::voip::state::CallState;

/// Fills a record with what is known.
pub(super) fn tell(record: &mut CallRecord, entry: &Entry, all: &[CallFacts]) {
    let time = |ns: i64| json::time(Timestamp::from_nanos(ns));
    record.hunters = entry.hunters().map(ToString::to_string).collect();
    record.filter_ids = entry.filter_ids.iter().cloned().collect();
    record.phone_rule = Some(entry.phone_rule.clone()).filter(|rule| !rule.is_empty());
    record.shared_packets = entry.shared;
    for (hunter, text) in &entry.said_holes {
        record.holes.extend(Hole::read(text).map(|(reason, from, until, packets)| json::Hole {
            reason: reason.to_owned(),
            from: Some(time(from)),
            until: Some(time(until)),
            packets: Some(packets).filter(|n| *n > 0),
            hunter: hunter.to_string(),
        }));
    }
    let rtcp = all.iter().fold(0_u64, |n, f| n.saturating_add(f.rtcp_packets)).min(entry.rtp);
    record.packets = json::Packets { sip: entry.sip, rtp: entry.rtp.saturating_sub(rtcp), rtcp };
    record.first_packet = entry.first.map(json::time);
    record.last_packet = entry.last.map(json::time);
    record.holes.extend(entry.holes.iter().cloned());
    record.holes.extend(unbegun(record, entry, all));
    record.complete = record.holes.is_empty();
    // the hunter that saw most of the signalling tells the story; media is everybody's
    let Some(f) = all.iter().max_by_key(|f| (f.messages, f.media_packets)) else {
        "active".clone_into(&mut record.state);
        return;
    };
    kind(f.state).clone_into(&mut record.kind);
    // a call that was cut off for one hunter and ended for another has ended
    let ended = all.iter().find(|e| is_final(e.state));
    let end = if f.unfinished { ended.unwrap_or(f) } else { f };
    record.state = if end.unfinished || (entry.is_cut() && kind(end.state) == "call" && !is_final(end.state)) {
        "unfinished".to_owned()
    } else {
        end.state.to_lowercase()
    };
    record.status = end.status;
    record.from = json::Party { user: f.from_user.clone(), host: f.from_host.clone(), ..json::Party::default() };
    record.to = json::Party { user: f.to_user.clone(), host: f.to_host.clone(), ..json::Party::default() };
    if let Some(d) = &f.details {
        describe(record, d);
    }
    record.answered = f.answered_ns.map(time);
    record.ended = end.ended_ns.map(time);
    #[expect(clippy::cast_precision_loss, reason = "seconds with a fraction, for people")]
    let secs = |ns: i64| (ns / 1_000_000) as f64 / 1000.0;
    record.talk_secs = f.answered_ns.zip(end.ended_ns).map(|(a, e)| secs(e.saturating_sub(a)));
    let whole = !record.holes.iter().any(|h| h.reason == "before_match");
    record.media_from =
        all.iter().filter_map(|f| f.media_from_ns).min().map(|ns| if whole { "start".to_owned() } else { time(ns) });
    for f in all {
        record.streams.extend(f.streams.iter().map(stream));
        if let Some(formula) = f.streams.iter().find_map(|s| s.mos_formula.clone()) {
            record.quality_formula = Some(formula);
        }
    }
}

/// Why the call has no beginning, if it has none and nothing else says so: it began before anybody captured, or while nobody did.
fn unbegun(record: &CallRecord, entry: &Entry, all: &[CallFacts]) -> Option<json::Hole> {
    let known = record.holes.iter().any(|h| h.reason == "before_match");
    let until = entry.first.filter(|_| !known && !all.is_empty() && all.iter().all(|f| !f.begun))?;
    Some(json::Hole { reason: "before_capture".to_owned(), until: Some(json::time(until)), ..json::Hole::default() })
}

fn describe(record: &mut CallRecord, d: &Details) {
    let said = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    for (party, side) in [(&mut record.from, &d.from), (&mut record.to, &d.to)] {
        party.display = side.display.to_string();
        party.uri = side.uri.to_string();
    }
    // the dialog that stood, or else the first
    let stood = d.dialogs.iter().find(|x| x.state == DialogState::Confirmed).or(d.dialogs.first());
    if let Some(x) = stood {
        record.from.tag = x.from_tag.to_string();
        record.to.tag = x.to_tag.to_string();
    }
    record.request_uri = said(&d.request_uri);
    record.reason = said(&d.reason);
    record.ringing = d.ringing.map(json::time);
    let value = |user: &str, host: &str| {
        let between = if user.is_empty() || host.is_empty() { "" } else { "@" };
        format!("{user}{between}{host}")
    };
    let identity = |f: &IdentityFact| json::Identity { field: f.field.to_owned(), value: value(&f.user, &f.host) };
    record.identities = d.identities.iter().map(identity).collect();
    let dialog = |x: &Dialog| json::Dialog {
        from_tag: x.from_tag.to_string(),
        to_tag: x.to_tag.to_string(),
        state: x.state.name().to_owned(),
    };
    record.dialogs = d.dialogs.iter().map(dialog).collect();
}

fn is_final(state: &str) -> bool {
    [CallState::Ended, CallState::Failed, CallState::Cancelled, CallState::Busy, CallState::Redirected]
        .iter()
        .any(|s| s.name() == state)
}

fn kind(state: &str) -> &'static str {
    match state {
        "REGISTRATION" => "registration",
        "MESSAGE" => "message",
        "OTHER" => "transaction",
        "RTP-ONLY" => "media",
        _ => "call",
    }
}

fn stream(s: &crate::voip::event::StreamFacts) -> json::Stream {
    let time = |ns: i64| Some(json::time(Timestamp::from_nanos(ns)));
    json::Stream {
        ssrc: s.ssrc,
        payload_type: s.payload_types.first().copied().unwrap_or(0),
        codec: s.codec.clone(),
        clock_hz: s.clock_hz,
        from: s.src.clone(),
        to: s.dst.clone(),
        evidence: s.evidence.clone(),
        first_packet: time(s.first_ns),
        last_packet: time(s.last_ns),
        packets: s.packets,
        expected: s.expected,
        max_gap_ms: s.max_gap_ms,
        lost: s.lost,
        late: s.reordered,
        duplicates: s.duplicates,
        jitter_ms: s.jitter_mean_ms,
        jitter_max_ms: s.jitter_max_ms,
        mos: s.mos,
        rtcp: s.rtcp.as_deref().cloned(),
    }
}

/// Users of From and To, for file names.
pub(super) fn parties(frame: &Frame<'_>) -> (String, String) {
    let Ok(h) = headers::decode(frame.link, frame.data, &DecodeOptions::default()) else { return Default::default() };
    let Some(m) = sip::Message::index(h.payload(frame.data)) else { return Default::default() };
    let user = |a: Option<sip::NameAddr<'_>>| {
        a.and_then(|a| a.uri()).map(|u| String::from_utf8_lossy(&u.user()).into_owned()).unwrap_or_default()
    };
    (user(m.from()), user(m.to()))
}
