//! The record of a call: what a person or a script needs to know beside its packets, as `STEM.json`.
//!
//! Written at the first match (`"state": "active"` or what the call is in), every 60 s, and at close with the files' sums.
//!
//! Promises: readers see a whole record, the old or the new (written aside, renamed); mode 0600; the same call gives the
//! same bytes in every run and time zone: times are UTC strings with nanoseconds, lists keep their order. `schema_version`
//! is raised when a field changes its meaning; new fields may come at any time.

use super::dir::Dir;
use super::{FileFact, RecordError};
use crate::packet::Timestamp;
use crate::voip::event::RtcpFacts;

/// Version of the fields below.
pub const SCHEMA_VERSION: u32 = 1;
/// Longest record read back.
pub(super) const MAX_BYTES: u64 = 16 << 20;

/// One call, or whatever else one Call-ID was: a registration, a message, media without signalling.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct CallRecord {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Call-ID as it came; bytes that are not UTF-8 as U+FFFD.
    pub call_id: String,
    /// What it was: `call`, `registration`, `message`, `transaction`, or `media` that nobody signalled.
    pub kind: String,
    /// Where it stands or how it ended: `trying`, `ringing`, `active`, `ended`, `failed`, `busy`, `cancelled`, `rtp-only`, `unfinished` …
    pub state: String,
    /// Whether its files are closed.
    pub closed: bool,
    /// Whether nothing is known to be missing; else see `holes`.
    pub complete: bool,
    /// Final status code, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it ended, in SIP's words (`Reason`, reason phrase).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Caller.
    pub from: Party,
    /// Called.
    pub to: Party,
    /// Request-URI of the first request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_uri: Option<String>,
    /// Other identities it carried (`sip.pai`, `sip.diversion` …), by field name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<Identity>,
    /// Time of its first packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_packet: Option<String>,
    /// Time of its last packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_packet: Option<String>,
    /// Time of the first provisional response above 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ringing: Option<String>,
    /// Time of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
    /// Time of the BYE, CANCEL or final refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Seconds from answer to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub talk_secs: Option<f64>,
    /// Packets in the files.
    pub packets: Packets,
    /// Hunters that sent packets of it.
    pub hunters: Vec<String>,
    /// Filters that chose it.
    pub filter_ids: Vec<String>,
    /// By which rule a phone number filter matched, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_rule: Option<String>,
    /// Where the recorded media begins: `start`, or a time when a filter came too late for all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_from: Option<String>,
    /// What is known to be missing, and why (`before_match`, `before_capture`, `interface_down`, `kernel_dropped`, `interface_dropped`,
    /// `hunter_down`, `pending`, `undeclared`, `elsewhere`, a drop reason).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Hole>,
    /// Packets that came for another call first and stand in its files too (a TCP segment with messages of both).
    #[serde(skip_serializing_if = "is_zero")]
    pub shared_packets: u64,
    /// Dialogs of the call: forks have more than one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dialogs: Vec<Dialog>,
    /// Media streams with their quality.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Stream>,
    /// Formula and constants behind the quality figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_formula: Option<String>,
    /// Its capture files, beside this record.
    pub files: Vec<FileFact>,
}

/// Caller or called.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Party {
    /// User part.
    pub user: String,
    /// Host part.
    pub host: String,
    /// Display name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub display: String,
    /// URI as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Tag of the dialog.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

/// An identity and where it stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// [`crate::field::Field::name`].
    pub field: String,
    /// The value.
    pub value: String,
}

/// Packets by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Packets {
    /// Signalling.
    pub sip: u64,
    /// Media.
    pub rtp: u64,
    /// Media control.
    pub rtcp: u64,
}

/// Something missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Hole {
    /// Why, as in [`CallRecord::holes`].
    pub reason: String,
    /// From when, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Until when, where known; without it, until the call's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How many packets, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// At which hunter.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hunter: String,
}

/// One dialog of the call.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Dialog {
    /// Caller's tag.
    pub from_tag: String,
    /// Called's tag.
    pub to_tag: String,
    /// Where it stands.
    pub state: String,
}

/// One media stream in one direction.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Stream {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Encoding name.
    pub codec: String,
    /// Clock in Hz.
    pub clock_hz: u32,
    /// Sender, `address:port`.
    pub from: String,
    /// Receiver, `address:port`.
    pub to: String,
    /// How the stream was tied to the call: `sdp message 1 media 0 caller …`, `symmetric to …`.
    pub evidence: String,
    /// First packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_packet: Option<String>,
    /// Last packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_packet: Option<String>,
    /// Packets seen.
    pub packets: u64,
    /// Packets expected from the sequence numbers.
    pub expected: u64,
    /// Packets lost (RFC 3550 §A.3).
    pub lost: i64,
    /// Packets that came after a higher sequence number.
    pub late: u64,
    /// Packets seen twice.
    pub duplicates: u64,
    /// Interarrival jitter, its mean and its maximum, in ms (RFC 3550 §A.8).
    pub jitter_ms: f64,
    /// See [`Self::jitter_ms`].
    pub jitter_max_ms: f64,
    /// Longest gap between two packets, in ms.
    pub max_gap_ms: f64,
    /// Mean opinion score, by [`CallRecord::quality_formula`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos: Option<f64>,
    /// What its sender and its receiver say of it in RTCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp: Option<RtcpFacts>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl CallRecord {
    /// An empty record of the current schema.
    pub fn new(call_id: &[u8]) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            call_id: String::from_utf8_lossy(call_id).into_owned(),
            kind: "call".into(),
            state: "active".into(),
            ..Self::default()
        }
    }

    /// Writes it beside the call's files, replacing the earlier one; `synced` where nothing would write it again after a loss of power.
    ///
    /// # Errors
    /// [`RecordError::Io`], [`RecordError::Full`]; the earlier record is still there then.
    pub fn save(&self, dir: &Dir, stem: &str, synced: bool) -> Result<(), RecordError> {
        let name = name(stem);
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| RecordError::Unreadable { path: dir.said(&name), reason: e.to_string() })?;
        bytes.push(b'\n');
        dir.write_whole(&name, &bytes, synced)?;
        dir.note(&name);
        Ok(())
    }

    /// Takes a hole out of the record beside the files of this stem, whatever is left of the packets that it counts: all of them have come. Nothing
    /// where there is no such record, or no such hole.
    ///
    /// # Errors
    /// [`RecordError::Io`], [`RecordError::Full`], [`RecordError::Unreadable`]; the record is as it was then.
    pub fn fill(dir: &Dir, stem: &str, hole: &Hole) -> Result<(), RecordError> {
        let name = name(stem);
        let Some(bytes) = dir.read_whole(&name, MAX_BYTES)? else { return Ok(()) };
        let mut record: Self = serde_json::from_slice(&bytes)
            .map_err(|e| RecordError::Unreadable { path: dir.said(&name), reason: e.to_string() })?;
        let before = record.holes.len();
        let same = |h: &Hole| (&h.reason, &h.from, &h.until, &h.hunter) == (&hole.reason, &hole.from, &hole.until, &hole.hunter);
        record.holes.retain(|h| !same(h));
        if record.holes.len() == before {
            return Ok(());
        }
        record.complete = record.holes.is_empty();
        record.save(dir, stem, true)
    }
}

/// The name of the record of the files that begin with `stem`.
pub fn name(stem: &str) -> String {
    format!("{stem}.json")
}

/// A time as records and events write it: RFC 3339, UTC, nanoseconds.
pub fn time(ts: Timestamp) -> String {
    ts.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::dir::{Access, MinFree};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_record_is_replaced_whole_and_readable_by_us_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        let mut record = CallRecord::new(b"a\xff@b");
        record.streams.push(Stream { ssrc: 7, mos: Some(4.4), ..Stream::default() });

        record.save(&dir, "stem", false).unwrap();
        record.state = "ended".into();
        record.save(&dir, "stem", false).unwrap();

        let bytes = fs::read(dir.join("stem.json")).unwrap();
        assert_eq!(serde_json::from_slice::<CallRecord>(&bytes).unwrap(), record);
        assert!(bytes.starts_with(b"{\n  \"schema_version\": 1,\n  \"call_id\": \"a\xef\xbf\xbd@b\""));
        assert_eq!(fs::metadata(dir.join("stem.json")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(dir.files(|_| true).unwrap().len(), 1);
    }

    #[test]
    fn a_record_of_a_later_program_can_be_read() {
        let record: CallRecord = serde_json::from_str(r#"{"schema_version":1,"call_id":"x","novelty":[1]}"#).unwrap();

        assert_eq!((record.call_id.as_str(), record.files.len()), ("x", 0));
    }

    #[test]
    fn times_are_utc_with_nanoseconds() {
        assert_eq!(time(Timestamp::from_nanos(0)), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(time(Timestamp::from_nanos(-1)), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(time(Timestamp::from_secs_nanos(1_769_903_999, 5)), "2026-01-31T23:59:59.000000005Z");
    }
}
