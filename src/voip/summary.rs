//! What is known of a call, in words: for events, records and contexts.

use std::sync::Arc;

use crate::packet::Timestamp;

use super::call::Call;
use super::claim::{Claim, Claims, Tie};
use super::event::{CallFacts, Common, Event, Place, StreamEvent};

/// Why media belongs to its call, for contexts and records: who claimed what, and on which evidence; empty for signalling.
pub(super) fn evidence(tie: Option<Tie>, claims: &Claims) -> String {
    match tie.and_then(|t| Some((claims.get(t.claim)?, t.symmetric))) {
        Some((c, false)) => text(c),
        Some((c, true)) => format!("symmetric to {}", text(c)),
        None => String::new(),
    }
}

fn text(c: &Claim) -> String {
    if c.message == 0 {
        return format!("{} without signalling {}", c.evidence.name(), c.at);
    }
    let side = if c.caller_side { "caller" } else { "callee" };
    format!("{} message {} media {} {side} {}", c.evidence.name(), c.message, c.media, c.at)
}

/// Everything known of a call.
pub fn facts(call: &Call, claims: &Claims, unfinished: bool) -> CallFacts {
    let state = call.machine.state();
    CallFacts {
        call_id: Arc::clone(&call.id),
        state: state.name(),
        unfinished: unfinished && state.is_call() && !state.is_final(),
        from_user: call.from.user.to_string(),
        from_host: call.from.host.to_string(),
        to_user: call.to.user.to_string(),
        to_host: call.to.host.to_string(),
        filter_ids: call.filter_ids.to_vec(),
        first_ns: call.first.as_nanos(),
        last_ns: call.last.as_nanos(),
        answered_ns: call.machine.answered_at().map(Timestamp::as_nanos),
        ended_ns: call.machine.ended_at().map(Timestamp::as_nanos),
        status: call.machine.final_status(),
        dialogs: u32::try_from(call.to_tags.len()).unwrap_or(u32::MAX),
        messages: u64::from(call.messages),
        signalling_packets: call.signalling_packets,
        media_packets: call.media_packets,
        rtcp_packets: call.streams.as_ref().map_or(0, |s| s.reports()),
        media_from_ns: call.media_from.map(Timestamp::as_nanos),
        claims: call.claims.iter().filter_map(|id| claims.get(*id)).map(text).collect(),
        streams: call.streams.as_ref().map(|s| s.facts(claims)).unwrap_or_default(),
        holes: call.holes.clone(),
        phone_rule: call.phone_rule.clone(),
        begun: call.machine.is_begun(),
        details: call.details.clone(),
    }
}

/// The stream events of a call, in order of first packet.
pub(super) fn streams(call: &Call, facts: &CallFacts) -> Vec<Event> {
    let Some(streams) = &call.streams else { return Vec::new() };
    facts
        .streams
        .iter()
        .zip(streams.tuples())
        .map(|(f, (tuple, first))| {
            let common = Common { ts: first, tuple, place: Place::default() };
            Event::Stream(Box::new(StreamEvent { common, call_id: Some(Arc::clone(&call.id)), facts: f.clone() }))
        })
        .collect()
}
