//! Events as text: one JSON object per line (EVE spelling), or a table for people.

use std::io::{self, Write};

use serde::Serialize;

use crate::packet::{FiveTuple, InterfaceId, IpProto};
use crate::telemetry::is_plain;
use crate::voip::event::{CallEvent, Common, Event, SipEvent, StreamEvent};

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The common part, as EVE spells it; the protocol's object follows.
#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    timestamp: String,
    flow_id: u64,
    event_type: &'static str,
    src_ip: String,
    src_port: u16,
    dest_ip: String,
    dest_port: u16,
    proto: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    frame: u64,
    #[serde(flatten)]
    body: Body<'a, T>,
}

#[derive(Serialize)]
enum Body<'a, T: Serialize> {
    #[serde(rename = "sip")]
    Sip(&'a T),
    #[serde(rename = "stream")]
    Stream(&'a T),
    #[serde(rename = "call")]
    Call(&'a T),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if hands over a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Writes one event; `file` names the capture file of an interface.
///
/// # Errors
/// What the writer says.
pub(super) fn event<'f>(
    out: &mut dyn Write,
    format: Format,
    event: &Event,
    file: &dyn Fn(InterfaceId) -> Option<&'f str>,
) -> io::Result<()> {
    match (format, event) {
        (Format::Json, Event::Sip(e)) => json(out, "sip", &e.common, file, Body::Sip(&**e)),
        (Format::Json, Event::Stream(e)) => json(out, "stream", &e.common, file, Body::Stream(&**e)),
        (Format::Json, Event::Call(e)) => json(out, "call", &e.common, file, Body::Call(&**e)),
        (Format::Text, Event::Sip(e)) => sip_text(out, e),
        (Format::Text, Event::Stream(e)) => stream_text(out, e),
        (Format::Text, Event::Call(e)) => call_text(out, e),
    }
}

fn json<'f, T: Serialize>(
    out: &mut dyn Write,
    event_type: &'static str,
    c: &Common,
    file: &dyn Fn(InterfaceId) -> Option<&'f str>,
    body: Body<'_, T>,
) -> io::Result<()> {
    let name = if c.place.frame == 0 { None } else { file(c.place.interface) };
    let line = Line {
        timestamp: c.ts.to_string(),
        flow_id: flow_id(&c.tuple),
        event_type,
        src_ip: c.tuple.src.ip.to_string(),
        src_port: c.tuple.src.port,
        dest_ip: c.tuple.dst.ip.to_string(),
        dest_port: c.tuple.dst.port,
        proto: proto(c.tuple.proto),
        file: name,
        frame: c.place.frame,
        body,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn proto(p: IpProto) -> &'static str {
    match p {
        IpProto::TCP => "TCP",
        IpProto::UDP => "UDP",
        IpProto::SCTP => "SCTP",
        _ => "OTHER",
    }
}

/// The same number for both directions of a flow, in every run (FNV-1a over the sorted endpoints, cut to what JSON numbers hold exactly).
fn flow_id(t: &FiveTuple) -> u64 {
    let (a, b) = if t.src <= t.dst { (t.src, t.dst) } else { (t.dst, t.src) };
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            h = (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for e in [a, b] {
        eat(&e.ip.octets());
        eat(&e.port.to_be_bytes());
    }
    eat(&[t.proto.0]);
    h & ((1 << 53) - 1)
}

fn sip_text(out: &mut dyn Write, e: &SipEvent) -> io::Result<()> {
    let what = match (&e.method, e.status) {
        (Some(m), _) => m.clone(),
        (None, Some(s)) => format!("{s} {}", e.cseq_method),
        (None, None) => "?".to_owned(),
    };
    let flaws = if e.malformed.is_empty() { String::new() } else { format!("  malformed: {}", e.malformed.join(",")) };
    writeln!(
        out,
        "{}  {:<21} > {:<21}  {:<14} {}@{} > {}@{}  {}{flaws}",
        e.common.ts,
        e.common.tuple.src.to_string(),
        e.common.tuple.dst.to_string(),
        visible(&what),
        visible(&e.from_user),
        visible(&e.from_host),
        visible(&e.to_user),
        visible(&e.to_host),
        visible(&e.call_id),
    )
}

fn stream_text(out: &mut dyn Write, e: &StreamEvent) -> io::Result<()> {
    let f = &e.facts;
    let mos = f.mos.map_or_else(|| "-".to_owned(), |m| format!("{m:.2}"));
    writeln!(
        out,
        "{}  stream {} > {}  ssrc {:08x} {} {} packets, {} lost, jitter {:.2} ms, MOS {mos}",
        e.common.ts, f.src, f.dst, f.ssrc, f.codec, f.packets, f.lost, f.jitter_mean_ms
    )
}

fn call_text(out: &mut dyn Write, e: &CallEvent) -> io::Result<()> {
    let f = &e.facts;
    let end = if f.unfinished { " (unfinished)" } else { "" };
    let parties = if f.messages == 0 {
        // media that nobody signalled has addresses and no names
        format!("{} > {}", e.common.tuple.src, e.common.tuple.dst)
    } else {
        let party = |user: &str, host: &str| format!("{}@{}", visible(user), visible(host));
        format!("{} > {}", party(&f.from_user, &f.from_host), party(&f.to_user, &f.to_host))
    };
    writeln!(
        out,
        "{}  call {}{end}  {parties}  {} messages, {} media packets  {}",
        e.common.ts,
        f.state,
        f.messages,
        f.media_packets,
        visible(&f.call_id)
    )
}

/// What a hostile field may print on a terminal: what cannot be shown as it is is written as an escape.
fn visible(s: &str) -> String {
    s.chars().flat_map(|c| if is_plain(c) { vec![c] } else { c.escape_default().collect::<Vec<_>>() }).collect()
}
