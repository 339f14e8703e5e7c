//! A processor's figures and health over HTTP: `/metrics`, `/statusz`, `/livez`, `/readyz`. Each answer is of one instant; no answer names anybody
//! who is captured.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::access::Access;
use super::counts::{Counts, LOSSES, Refused};
use super::monitors::Figures;
use super::pressure::{Gauge, Level};
use super::roster::{Refusal, Roster};
use super::shared::Shared;
use super::upstream::UpstreamFigures;
use crate::net::{AcceptCounters, AcceptCounts, Health, Transport};
use crate::packet::Timestamp;
use crate::telemetry::exposition::Kind;
use crate::telemetry::{Exposition, Recent, clock};
use crate::wire::management::HunterStatus;

/// A part that gives no sign of life for this long has stopped.
const SILENT: Duration = Duration::from_secs(5);
/// Hunters with series of their own; the others are in the sums.
const HUNTERS_TOLD: usize = 800;

/// The pages.
pub struct ProcessorPages {
    shared: Arc<Shared>,
    transport: Transport,
    connections: Arc<AcceptCounters>,
}

/// One hunter.
struct HunterLine {
    id: String,
    up: bool,
    skew: f64,
    waits: u64,
}

/// Everything an answer is made of.
struct Moment {
    counts: Counts,
    recent: [Recent; LOSSES.len()],
    gauge: Gauge,
    level: Level,
    queue: [usize; 2],
    /// The road upwards.
    above: Option<UpstreamFigures>,
    /// Processors below, and whether their streams are open.
    below: Vec<(String, bool)>,
    connections: AcceptCounts,
    /// Who watches: how many, and what became of the packets offered to them.
    monitors: (usize, Figures),
    hunters: Vec<HunterLine>,
    said: Said,
    now: Timestamp,
}

/// What hunters say of themselves.
struct Said {
    bytes: usize,
    refused: [u64; Refusal::NAMES.len()],
    cut: u64,
}

impl Moment {
    const fn secs(&self) -> i64 {
        self.now.as_nanos() / 1_000_000_000
    }
}

impl ProcessorPages {
    /// On the processor's shared state.
    pub const fn new(shared: Arc<Shared>, transport: Transport, connections: Arc<AcceptCounters>) -> Self {
        Self { shared, transport, connections }
    }

    fn moment(&self) -> Moment {
        let now = self.shared.clock.now();
        let line = |(id, h): (&String, &super::roster::Hunter)| HunterLine {
            id: id.clone(),
            up: h.streaming > 0 && Roster::status(h, now) != HunterStatus::StatusError,
            skew: Duration::from_millis(h.clock_skew_ms.unsigned_abs()).as_secs_f64()
                * if h.clock_skew_ms < 0 { -1.0 } else { 1.0 },
            waits: h.pace.waits(),
        };
        let roster = self.shared.roster.lock();
        let hunters = roster.iter().map(line).collect();
        let said = Said { bytes: roster.bytes(), refused: roster.refused(), cut: roster.cut() };
        drop(roster);
        Moment {
            counts: self.shared.counters.counts(),
            recent: self.shared.recent.lock().recent(),
            gauge: self.shared.gauge(),
            level: self.shared.level(),
            queue: self.shared.queue(),
            above: self.shared.above(),
            below: self.shared.below.lock().iter().map(|(id, p)| (id.clone(), p.is_streaming())).collect(),
            connections: self.connections.read(),
            monitors: (self.shared.monitors.len(), self.shared.monitors.figures()),
            hunters,
            said,
            now,
        }
    }
}

impl Health for ProcessorPages {
    fn trouble(&self) -> Option<String> {
        if self.shared.ending.is_shut() {
            return Some("stopping".to_owned());
        }
        if self.shared.gauge().is_disk_full() {
            return Some("the disk is full or cannot be written".to_owned());
        }
        if self.shared.above().is_some_and(|above| above.blocked) {
            return Some("the queue for the processor above takes nothing".to_owned());
        }
        if !self.shared.begun.load(Ordering::Acquire) {
            return Some("what the last process left is still being written to its files".to_owned());
        }
        if self.shared.record_alive().is_none_or(|at| at.elapsed() > SILENT) {
            return Some("the record thread gives no sign of life".to_owned());
        }
        self.transport.trouble(clock::wall().as_nanos() / 1_000_000_000)
    }

    fn is_live(&self) -> bool {
        self.shared.recent.lock().ticked().elapsed() < SILENT
    }

    fn metrics(&self) -> String {
        let m = self.moment();
        let mut x = Exposition::default();
        x.process("processor");
        packets(&mut x, &m);
        pressure(&mut x, &m);
        connections(&mut x, &m.connections);
        monitors(&mut x, m.monitors);
        if let Some(doors) = self.shared.doors.get() {
            calls(&mut x, &doors.access);
        }
        if let Some(above) = &m.above {
            super::upstream::pages::metrics(&mut x, above);
        }
        let below = m.below.iter().filter(|(_, streaming)| *streaming).count();
        let mut processors =
            x.family("lc_processors", Kind::Gauge, "Processors below this one, by whether their stream is open.");
        processors.sample(&[("up", "1")], below);
        processors.sample(&[("up", "0")], m.below.len().saturating_sub(below));
        let help = "Numbers of batches that never came and would be taken for repetitions now: there were too many gaps.";
        x.counter("lc_sequences_closed_total", help, self.shared.ingest.closed());
        self.transport.tell(&mut x, m.secs());
        let files = *self.shared.files.lock();
        x.gauge("lc_calls_active", "Calls whose files may still grow.", files.calls);
        let help = "Calls forgotten for want of room: `ended` before late packets could come, `full` before their end; and those that time has ended.";
        let mut evicted = x.family("lc_calls_evicted_total", Kind::Counter, help);
        evicted.sample(&[("reason", "ended")], files.evicted_closed);
        evicted.sample(&[("reason", "full")], files.evicted);
        evicted.sample(&[("reason", "rtp_idle")], files.overdue.idle);
        evicted.sample(&[("reason", "max_age")], files.overdue.aged);
        x.counter("lc_pcap_reopen_total", "Call files closed for want of descriptors, and opened again.", files.reopened);
        x.parsing(files.parsing.named_errors(), files.parsing.named_limits());
        x.counter("lc_parser_panics_total", "Panics of the inspection; anything but 0 is a bug.", crate::engine::panics());
        x.gauge("lc_filters", "Filters in force.", self.shared.filters.len());
        x.gauge("lc_filters_version", "Version of the filters in force.", self.shared.filters.version());
        let help = "Times a hunter's stream was not read on, since more than --hunter-max-rate or --hunter-max-batches had come.";
        x.counter("lc_hunter_rate_waits_total", help, self.shared.rate_waits.load(Ordering::Relaxed));
        let up = m.hunters.iter().filter(|h| h.up).count();
        let mut hunters = x.family("lc_hunters", Kind::Gauge, "Hunters, by whether their stream is open and they are heard.");
        hunters.sample(&[("up", "1")], up);
        hunters.sample(&[("up", "0")], m.hunters.len().saturating_sub(up));
        registrations(&mut x, &m.said);
        let mut each = x.family("lc_hunter_up", Kind::Gauge, "Whether its stream is open and it is heard.");
        for h in m.hunters.iter().take(HUNTERS_TOLD) {
            each.sample(&[("hunter", &h.id)], u8::from(h.up));
        }
        let help = "How far its clock is ahead of ours, the way of a heartbeat included.";
        let mut each = x.family("lc_hunter_clock_skew_seconds", Kind::Gauge, help);
        for h in m.hunters.iter().take(HUNTERS_TOLD) {
            each.sample(&[("hunter", &h.id)], h.skew);
        }
        x.finish()
    }

    fn status(&self) -> String {
        let m = self.moment();
        let c = &m.counts;
        let [p1, p2] = c.imbalance();
        let trouble = self.trouble();
        let by_reason = |of: &[u64; Refused::ALL.len()]| {
            let each = Refused::ALL.iter().zip(of).map(|(why, n)| (why.name().to_owned(), Value::from(*n)));
            each.collect::<serde_json::Map<String, Value>>()
        };
        let losses: serde_json::Map<String, Value> = LOSSES
            .iter()
            .zip(c.losses())
            .zip(m.recent)
            .map(|((place, total), lately)| {
                let windows = json!({"total": total, "1s": lately.second, "1m": lately.minute, "1h": lately.hour});
                ((*place).to_owned(), windows)
            })
            .collect();
        let difference = |n: i128| i64::try_from(n).unwrap_or(i64::MAX);
        let [waiting, room] = m.queue;
        let w = m.monitors.1;
        let status = json!({
            "role": "processor", "id": self.shared.id, "version": env!("CARGO_PKG_VERSION"),
            "live": self.is_live(), "ready": trouble.is_none(), "trouble": trouble,
            "equation": {
                "p1": {"received": c.received, "unique": c.unique, "duplicate": c.duplicate, "waiting": c.waiting, "rejected": by_reason(&c.rejected),
                       "difference": difference(p1)},
                "p2": {"unique": c.unique, "committed": c.committed, "in_queue": c.in_queue, "dropped": c.dropped, "doubled": c.doubled, "unwanted": c.unwanted,
                       "difference": difference(p2)},
            },
            "declared": c.declared, "undeclared": c.undeclared, "elsewhere": c.elsewhere, "late": c.late, "refused_streams": by_reason(&c.refusals), "lost": losses,
            "subscribers": {"now": m.monitors.0, "limit": self.shared.monitors.max(), "offered": w.offered, "delivered": w.delivered, "skipped": w.skipped,
                            "filtered": w.filtered, "waiting": w.waiting, "difference": difference(w.imbalance())},
            "flow_control": m.level.name(), "queue": {"batches": waiting, "limit": room},
            "hunters": m.hunters.iter().map(|h| json!({"id": h.id, "up": h.up, "rate_waits": h.waits})).collect::<Vec<Value>>(),
            "processors": m.below.iter().map(|(id, up)| json!({"id": id, "up": up})).collect::<Vec<Value>>(),
            "upstream": m.above.as_ref().map(super::upstream::pages::status),
            "insecure": self.transport.insecure,
        });
        format!("{status:#}\n")
    }
}

/// P1 and P2, term by term.
fn packets(x: &mut Exposition, m: &Moment) {
    let c = &m.counts;
    x.counter("lc_received_packets_total", "Packets of every batch that could be read.", c.received);
    x.counter("lc_unique_packets_total", "Packets of batches that were new.", c.unique);
    x.counter("lc_duplicates_total", "Packets of batches that were here before.", c.duplicate);
    let mut rejected = x.family("lc_rejected_packets_total", Kind::Counter, "Packets of refused batches, by reason.");
    for (why, n) in Refused::ALL.iter().zip(c.rejected) {
        rejected.sample(&[("reason", why.name())], n);
    }
    let mut refused = x.family("lc_refused_streams_total", Kind::Counter, "Data streams that ended with a refusal, by reason.");
    for (why, n) in Refused::ALL.iter().zip(c.refusals) {
        refused.sample(&[("reason", why.name())], n);
    }
    x.counter("lc_committed_packets_total", "Packets in every file they belong to.", c.committed);
    let mut inflight = x.family("lc_inflight_packets", Kind::Gauge, "Packets received and not yet in files.");
    inflight.sample(&[("place", "waiting")], c.waiting);
    inflight.sample(&[("place", "queue")], c.in_queue);
    let mut dropped = x.family("lc_dropped_packets_total", Kind::Counter, "Packets given up here, by reason.");
    dropped.sample(&[("reason", "unwritable")], c.dropped);
    let mut left_out =
        x.family("lc_left_out_packets_total", Kind::Counter, "Packets of old hunters that no file is to have, by reason.");
    left_out.sample(&[("reason", "doubled")], c.doubled);
    left_out.sample(&[("reason", "unwanted")], c.unwanted);
    x.counter("lc_declared_packets_total", "Packets hunters gave up and said so.", c.declared);
    x.counter("lc_undeclared_packets_total", "Packets missing between two batches without a word.", c.undeclared);
    x.counter("lc_elsewhere_packets_total", "Packets that hunters say another processor has.", c.elsewhere);
    x.counter(
        "lc_late_packets_total",
        "Packets that came after later ones of their hunter, by another way; undeclared until then.",
        c.late,
    );
    let help = "Session secrets of TLS that came with packets; they are taken out, and nobody gets them.";
    x.counter("lc_tls_keys_refused_total", help, c.tls_keys);
    let mut error =
        x.family("lc_conservation_error_packets", Kind::Gauge, "Left minus right of each equation: 0, or there is a bug.");
    for (equation, n) in ["p1", "p2"].into_iter().zip(c.imbalance()) {
        error.sample(&[("side", "processor"), ("equation", equation)], n);
    }
    error.sample(&[("side", "subscriber"), ("equation", "offered")], m.monitors.1.imbalance());
    let mut lost = x.family("lc_lost_packets", Kind::Gauge, "Packets lost in the last second, minute and hour.");
    for (place, recent) in LOSSES.iter().zip(m.recent) {
        for (window, n) in recent.each() {
            lost.sample(&[("place", place), ("window", window)], n);
        }
    }
}

fn pressure(x: &mut Exposition, m: &Moment) {
    let [waiting, room] = m.queue;
    x.gauge("lc_record_queue_batches", "Batches that wait for the record thread.", waiting);
    x.gauge("lc_record_queue_limit_batches", "Batches that may.", room);
    let help = "How long it took until what was written could be acknowledged.";
    x.family("lc_commit_duration_seconds", Kind::Histogram, help).histogram(&m.gauge.commits());
    x.gauge("lc_disk_full", "Whether the disk is full or cannot be written.", u8::from(m.gauge.is_disk_full()));
    x.state("lc_flow_control_state", "What the hunters are asked for.", &Level::NAMES, m.level.name());
}

fn registrations(x: &mut Exposition, said: &Said) {
    let mut refused = x.family("lc_registrations_refused_total", Kind::Counter, "Registrations of hunters refused, by reason.");
    for (reason, n) in Refusal::NAMES.iter().zip(said.refused) {
        refused.sample(&[("reason", reason)], n);
    }
    x.gauge("lc_registration_bytes", "What the hunters say of themselves.", said.bytes);
    let help = "Heartbeats that said more than is kept.";
    x.counter("lc_heartbeats_cut_total", help, said.cut);
}

fn calls(x: &mut Exposition, access: &Access) {
    let (c, under_way, answers) = (access.counts(), access.intake.counts(), access.answers.counts());
    let mut denied =
        x.family("lc_calls_denied_total", Kind::Counter, "Calls that nobody may make, or not who called, by reason.");
    let reasons = [
        ("no_such_method", c.unknown_method),
        ("wrong_key", c.wrong_key),
        ("nameless", c.nameless),
        ("wrong_role", c.wrong_role),
        ("not_granted", c.not_granted),
        ("data_streams", under_way.streams),
        ("large", under_way.large),
        ("crowded", under_way.crowded),
        ("slow", under_way.slow),
        ("answers", answers.refused),
        ("not_taken", answers.late),
    ];
    for (reason, n) in reasons {
        denied.sample(&[("reason", reason)], n);
    }
    x.gauge("lc_unfinished_message_bytes", "Bytes of messages that have begun and not ended.", under_way.bytes);
    x.gauge("lc_waiting_answer_bytes", "Bytes of answers that are not taken yet, lists of filters aside.", answers.bytes);
}

fn monitors(x: &mut Exposition, (now, f): (usize, Figures)) {
    x.gauge("lc_subscribers", "Monitors that are subscribed to packets.", now);
    x.counter("lc_subscriber_offered_packets_total", "Packets of hunters that monitors asked for, for each of them.", f.offered);
    x.counter("lc_subscriber_delivered_packets_total", "Of these, handed to a monitor's connection.", f.delivered);
    let help = "Of these, not looked at, since the monitor reads too slowly; told to it.";
    x.counter("lc_subscriber_skipped_packets_total", help, f.skipped);
    x.counter("lc_subscriber_filtered_packets_total", "Of these, not let through by the monitor's filter.", f.filtered);
    x.gauge("lc_subscriber_waiting_packets", "Of these, waiting for their monitors.", f.waiting);
}

fn connections(x: &mut Exposition, c: &AcceptCounts) {
    x.gauge("lc_connections", "Connections open.", c.open);
    x.gauge("lc_connection_window_bytes", "Bytes these may hold of what was sent and is not read.", c.window_bytes);
    x.counter("lc_connections_accepted_total", "Connections accepted.", c.accepted);
    let mut refused = x.family("lc_connections_refused_total", Kind::Counter, "Connections refused, by reason.");
    let reasons = [
        ("full", c.refused_full),
        ("address", c.refused_address),
        ("identity", c.refused_identity),
        ("memory", c.refused_memory),
        ("revoked", c.revoked),
        ("silent", c.silent),
        ("aged", c.aged),
        ("handshake_late", c.handshakes_late),
        ("handshake_failed", c.handshakes_failed),
        ("not_http2", c.not_http2),
        ("error", c.errors),
    ];
    for (reason, n) in reasons {
        refused.sample(&[("reason", reason)], n);
    }
}
