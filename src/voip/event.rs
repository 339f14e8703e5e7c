//! What the inspection of calls says: one event per SIP message, per media stream and per call.
//!
//! Field names follow Suricata's EVE where it has one; the schema is `docs/events.schema.json`. The common part (time, addresses, file and
//! frame) is written by whoever prints the event.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::packet::{FiveTuple, InterfaceId, Timestamp};

use super::details::Details;

/// Where in its file, and on which interface, the packet stood that completed the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Interface of the source; for capture files it also names the file.
    pub interface: InterfaceId,
    /// Number of the frame in its file, from 1; live, since start.
    pub frame: u64,
}

/// The part every event has.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    /// Time of the completing packet.
    pub ts: Timestamp,
    /// Addresses; the first packet's direction for calls and streams.
    pub tuple: FiveTuple,
    /// Where it was.
    pub place: Place,
}

/// One event.
#[derive(Clone, Debug)]
pub enum Event {
    /// A SIP message.
    Sip(Box<SipEvent>),
    /// A media stream, at its end.
    Stream(Box<StreamEvent>),
    /// A call, at its end.
    Call(Box<CallEvent>),
}

/// A SIP message.
#[derive(Clone, Debug, Serialize)]
pub struct SipEvent {
    /// The common part.
    #[serde(skip)]
    pub common: Common,
    /// Method of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Status code of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Method of the `CSeq` header.
    pub cseq_method: String,
    /// Number of the `CSeq` header.
    pub cseq: u32,
    /// Call-ID; empty when the message has none.
    pub call_id: String,
    /// User of the From URI.
    pub from_user: String,
    /// Host of the From URI.
    pub from_host: String,
    /// User of the To URI.
    pub to_user: String,
    /// Host of the To URI.
    pub to_host: String,
    /// Every identity the message carries.
    pub identities: Vec<IdentityFact>,
    /// What is wrong with the message, by name.
    pub malformed: Vec<&'static str>,
    /// Media the message's SDP names: `audio 192.0.2.1:4000`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<String>,
}

/// An identity and the header it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdentityFact {
    /// Header, by field name.
    pub field: &'static str,
    /// User part, unescaped.
    pub user: String,
    /// Host part.
    pub host: String,
}

/// A media stream: one SSRC in one direction.
#[derive(Clone, Debug, Serialize)]
pub struct StreamEvent {
    /// The common part; `ts` is the first packet's time.
    #[serde(skip)]
    pub common: Common,
    /// The call it belongs to, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<Arc<str>>,
    /// What is known of it.
    #[serde(flatten)]
    pub facts: StreamFacts,
}

/// What is known of a stream; also part of the call's record.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StreamFacts {
    /// Synchronisation source.
    pub ssrc: u32,
    /// `rtp` or `rtcp`.
    pub kind: &'static str,
    /// Sender.
    pub src: String,
    /// Receiver.
    pub dst: String,
    /// Payload types seen.
    pub payload_types: Vec<u8>,
    /// Codec, as the SDP or RFC 3551 names it.
    pub codec: String,
    /// RTP clock.
    pub clock_hz: u32,
    /// Evidence that ties it to the call.
    pub evidence: String,
    /// Packets.
    pub packets: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Packets the sequence numbers call for (RFC 3550 §A.3).
    pub expected: u64,
    /// Expected − received, duplicates excluded (RFC 3550 §A.3).
    pub lost: i64,
    /// Packets seen twice.
    pub duplicates: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Mean interarrival jitter, milliseconds (RFC 3550 §A.8).
    pub jitter_mean_ms: f64,
    /// Largest jitter estimate, milliseconds.
    pub jitter_max_ms: f64,
    /// Longest pause between two packets, milliseconds.
    pub max_gap_ms: f64,
    /// E-model MOS; absent when the codec has no published constants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos: Option<f64>,
    /// Formula and constants behind `mos`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_formula: Option<String>,
    /// Digits sent as RFC 4733 events.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dtmf: String,
    /// What RTCP says of it; absent when no report of it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp: Option<Box<RtcpFacts>>,
    /// First packet, nanoseconds since the epoch.
    pub first_ns: i64,
    /// Last packet, nanoseconds since the epoch.
    pub last_ns: i64,
}

/// What the sender and the receiver of a stream say of it in RTCP (RFC 3550 §6.4, RFC 3611 §4.7).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RtcpFacts {
    /// Sender reports.
    pub sender_reports: u64,
    /// Packets sent, by the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_packets: Option<u32>,
    /// Payload bytes sent, by the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_bytes: Option<u32>,
    /// Report blocks of the receiver.
    pub receiver_reports: u64,
    /// Packets lost since the beginning, by the last of them; negative when duplicates outnumber losses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<i32>,
    /// Largest loss between two reports, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_percent_max: Option<f64>,
    /// Interarrival jitter at the receiver, by the last report, milliseconds; absent when the clock is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// The largest reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_max_ms: Option<f64>,
    /// From where it was captured to the receiver and back, by the last report that names a sender report seen here, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// The longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_max_ms: Option<f64>,
    /// The receiver's voice metrics, by its last extended report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voip_metrics: Option<VoipMetricsFacts>,
}

/// A voice metrics block (RFC 3611 §4.7); what its sender did not measure is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoipMetricsFacts {
    /// Lost in the network, percent.
    pub loss_percent: f64,
    /// Discarded by the jitter buffer, percent.
    pub discard_percent: f64,
    /// Lost and discarded within bursts, percent.
    pub burst_density_percent: f64,
    /// Mean length of bursts.
    pub burst_ms: u16,
    /// Mean length of gaps between them.
    pub gap_ms: u16,
    /// Round trip between the two ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<u16>,
    /// Delay inside the receiver.
    pub end_system_ms: u16,
    /// R factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r_factor: Option<u8>,
    /// Listening quality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_lq: Option<f64>,
    /// Conversational quality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_cq: Option<f64>,
    /// Nominal delay of the jitter buffer.
    pub jitter_buffer_ms: u16,
}

/// A call, registration or message, at its end.
#[derive(Clone, Debug, Serialize)]
pub struct CallEvent {
    /// The common part; `ts` is the last packet's time.
    #[serde(skip)]
    pub common: Common,
    /// What is known of it.
    #[serde(flatten)]
    pub facts: CallFacts,
}

/// What is known of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallFacts {
    /// Call-ID.
    pub call_id: Arc<str>,
    /// State by name.
    pub state: &'static str,
    /// Whether it ended by itself or because the input did.
    pub unfinished: bool,
    /// User of the From URI.
    pub from_user: String,
    /// Host of the From URI.
    pub from_host: String,
    /// User of the To URI.
    pub to_user: String,
    /// Host of the To URI.
    pub to_host: String,
    /// Filters that chose it.
    pub filter_ids: Vec<Arc<str>>,
    /// First packet, nanoseconds since the epoch.
    pub first_ns: i64,
    /// Last packet, nanoseconds since the epoch.
    pub last_ns: i64,
    /// Answer, nanoseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ns: Option<i64>,
    /// End, nanoseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ns: Option<i64>,
    /// Final status of the INVITE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Dialogs (To tags) seen: more than one when forked.
    pub dialogs: u32,
    /// SIP messages.
    pub messages: u64,
    /// Packets of signalling.
    pub signalling_packets: u64,
    /// Packets of media, its control included.
    pub media_packets: u64,
    /// Of those, RTCP.
    pub rtcp_packets: u64,
    /// First media packet, nanoseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_from_ns: Option<i64>,
    /// Claims on media endpoints with their evidence.
    pub claims: Vec<String>,
    /// Streams.
    pub streams: Vec<StreamFacts>,
    /// What is missing, and why.
    pub holes: Vec<Hole>,
    /// By which rule a phone number filter chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_rule: Option<Arc<str>>,
    /// Whether its beginning was seen: of a call, the INVITE that is in no dialog yet.
    #[serde(skip)]
    pub begun: bool,
    /// What only records tell.
    #[serde(skip)]
    pub details: Option<Box<Details>>,
}

impl CallFacts {
    /// Whether its end was seen.
    pub const fn has_ended(&self) -> bool {
        !self.unfinished && self.ended_ns.is_some()
    }
}

/// A stretch of a call that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// The reason by name: `before_match` or a drop reason.
    pub cause: &'static str,
    /// First packet missing, nanoseconds since the epoch.
    pub from_ns: i64,
    /// Last packet missing, or the next one that is not.
    pub to_ns: i64,
    /// Packets missing; 0 where they were not counted.
    pub packets: u64,
}

impl Hole {
    /// Holes as one text: `cause from to packets; …`, times in nanoseconds since the epoch.
    pub fn write(holes: &[Self]) -> String {
        let each = |h: &Self| format!("{} {} {} {}", h.cause, h.from_ns, h.to_ns, h.packets);
        holes.iter().map(each).collect::<Vec<_>>().join("; ")
    }

    /// Reads [`Self::write`]: cause, from, to, packets; what cannot be read is left out.
    pub fn read(text: &str) -> impl Iterator<Item = (&str, i64, i64, u64)> {
        text.split("; ").filter_map(|hole| {
            let mut words = hole.split(' ');
            let (cause, from, to, packets) = (words.next()?, words.next()?, words.next()?, words.next()?);
            Some((cause, from.parse().ok()?, to.parse().ok()?, packets.parse().ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_read_as_they_are_written_and_nonsense_is_left_out() {
        let holes = [
            Hole { cause: "before_match", from_ns: -1, to_ns: 5, packets: 7 },
            Hole { cause: "hold_media", from_ns: 6, to_ns: 6, packets: 1 },
        ];
        let text = format!("{}; x; hold_age 1 2 -3", Hole::write(&holes));

        assert_eq!(Hole::read(&text).collect::<Vec<_>>(), [("before_match", -1, 5, 7), ("hold_media", 6, 6, 1)]);
        assert_eq!(Hole::read(&Hole::write(&[])).count(), 0);
    }
}
