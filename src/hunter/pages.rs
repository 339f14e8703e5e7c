//! A hunter's figures and health over HTTP: `/metrics`, `/statusz`, `/livez`, `/readyz`. Each answer is of one instant; no answer names anybody who
//! is captured.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{LOSSES, Report};
use super::inspect::{Link, Shared};
use crate::net::{Page, PageKind, Pages, Transport};
use crate::reason::DropReason;
use crate::telemetry::exposition::Kind;
use crate::telemetry::{Exposition, clock};
use crate::uplink::{BreakerState, PeerKind};

/// A part that gives no sign of life for this long has stopped.
const SILENT: Duration = Duration::from_secs(5);
/// What a processor may ask for.
const FLOW: [&str; 3] = ["continue", "slow", "pause"];

/// The pages.
pub struct HunterPages {
    shared: Arc<Shared>,
    id: Arc<str>,
    transport: Transport,
    /// Bytes the disk queue may take; 0 without one.
    spool_limit: u64,
}

/// Everything an answer is made of.
struct Moment {
    report: Report,
    link: Link,
    expiries: Vec<crate::net::transport::Expiry>,
    now: i64,
}

impl HunterPages {
    /// On the hunter's shared state.
    pub const fn new(shared: Arc<Shared>, id: Arc<str>, transport: Transport, spool_limit: u64) -> Self {
        Self { shared, id, transport, spool_limit }
    }

    fn moment(&self) -> Moment {
        Moment {
            report: self.shared.report(),
            link: self.shared.link.lock().clone(),
            expiries: self.transport.expiries(),
            now: clock::wall().as_nanos() / 1_000_000_000,
        }
    }

    /// What keeps it from capturing, if anything does. Being cut off from the processor does not: a restart would only lose what waits.
    fn trouble(r: &Report) -> Option<&'static str> {
        let [at_work, _] = r.threads;
        if at_work == 0 {
            Some("nothing is captured any more")
        } else if r.degraded {
            Some("an interface does not deliver")
        } else if r.alive.is_none_or(|at| at.elapsed() > SILENT) {
            Some("a capture thread gives no sign of life")
        } else {
            None
        }
    }

    fn is_live(r: &Report) -> bool {
        r.recent.ticked().elapsed() < SILENT
    }

    fn metrics(&self) -> String {
        let m = self.moment();
        let mut x = Exposition::default();
        let version = [("version", env!("CARGO_PKG_VERSION")), ("role", "hunter")];
        x.family("lc_build_info", Kind::Gauge, "What runs.").sample(&version, 1);
        packets(&mut x, &m.report);
        losses(&mut x, &m.report);
        self.queues(&mut x, &m);
        self.protection(&mut x, &m);
        let e = &m.report.engine;
        x.gauge("lc_calls_active", "Calls known.", m.report.calls);
        x.counter("lc_calls_total", "Calls seen.", e.calls);
        x.counter("lc_calls_evicted_total", "Calls evicted from a full table.", e.calls_evicted);
        let mut forgotten = x.family("lc_forgotten_total", Kind::Counter, "Forgotten because a table was full, by what.");
        let f = &e.forgotten;
        let what =
            [("flows", f.flows), ("tcp_directions", f.tcp_directions), ("tcp_bytes", f.tcp_bytes), ("datagrams", f.datagrams)];
        for (what, n) in what {
            forgotten.sample(&[("what", what)], n);
        }
        x.counter("lc_sip_messages_total", "SIP messages read.", e.sip_messages);
        let mut errors = x.family("lc_parse_errors_total", Kind::Counter, "What could not be read, by what it looked like.");
        errors.sample(&[("proto", "sip")], e.not_sip);
        errors.sample(&[("proto", "frame")], e.undecodable);
        let filters = self.shared.filters.current();
        x.gauge("lc_filters", "Filters in force.", filters.len());
        x.gauge("lc_filters_version", "Version of the filters in force.", filters.version());
        x.finish()
    }

    fn queues(&self, x: &mut Exposition, m: &Moment) {
        let b = &m.report.backlog;
        x.gauge("lc_memory_bytes", "Bytes of batches in memory.", b.in_memory_bytes);
        x.gauge("lc_memory_limit_bytes", "Bytes of batches that fit into memory.", b.max_bytes);
        x.gauge("lc_spool_bytes", "Bytes the disk queue takes.", b.spool_bytes);
        x.gauge("lc_spool_limit_bytes", "Bytes the disk queue may take; 0 without one.", self.spool_limit);
        x.gauge("lc_spool_batches", "Batches on disk and not in memory.", b.on_disk_batches);
        let oldest = if b.oldest_ns == 0 { 0 } else { m.now.saturating_sub(b.oldest_ns / 1_000_000_000).max(0) };
        x.gauge("lc_spool_oldest_seconds", "Age of the oldest part of the disk queue.", oldest);
        x.counter("lc_spool_errors_total", "Errors of the disk queue's file system.", b.spool_errors);
        x.counter("lc_sent_batches_total", "Batches put on the wire, repetitions included.", b.sent_batches);
        x.counter("lc_resent_batches_total", "Batches put on the wire again.", b.resent_batches);
        x.counter("lc_bad_acks_total", "Acknowledgements of what was never sent.", b.bad_acks);
        let help = "From sending a batch to its acknowledgement.";
        x.family("lc_ack_latency_seconds", Kind::Histogram, help).histogram(&b.ack_latency);
        x.gauge("lc_connected", "Whether there is a connection to a processor.", u8::from(b.connected));
        x.state("lc_flow_control_state", "What the processor asks for.", &FLOW, flow(&m.report));
        let mut breakers = x.family("lc_breaker_state", Kind::Gauge, "Whether a processor is tried: 1 for the state it is in.");
        for road in &m.link.roads {
            for name in BreakerState::NAMES {
                let labels = [("processor", road.target.as_str()), ("state", name)];
                breakers.sample(&labels, u8::from(road.breaker.name() == name));
            }
        }
    }

    fn protection(&self, x: &mut Exposition, m: &Moment) {
        x.gauge(
            "lc_insecure",
            "Whether packets travel unprotected, or to an unverified peer.",
            u8::from(self.transport.insecure),
        );
        let mut expiry = x.family("lc_cert_expiry_seconds", Kind::Gauge, "Until a certificate is over; negative: since it was.");
        for (role, end) in m.expiries.iter().filter_map(|(role, end)| Some((role, (*end)?))) {
            expiry.sample(&[("role", role)], end.saturating_sub(m.now));
        }
    }

    fn status(&self) -> String {
        let m = self.moment();
        let (r, b) = (&m.report, &m.report.backlog);
        let [k1, k2, k3] = r.imbalance();
        let drops: serde_json::Map<String, Value> =
            DropReason::ALL.iter().zip(r.drops).map(|(reason, n)| (reason.name().to_owned(), n.into())).collect();
        let breakers: Vec<Value> =
            m.link.roads.iter().map(|road| json!({"processor": road.target, "state": road.breaker.name()})).collect();
        let losses: serde_json::Map<String, Value> = LOSSES
            .iter()
            .zip(r.losses())
            .zip(r.recent.recent())
            .map(|((place, total), lately)| {
                let windows = json!({"total": total, "1s": lately.second, "1m": lately.minute, "1h": lately.hour});
                ((*place).to_owned(), windows)
            })
            .collect();
        let status = json!({
            "role": "hunter", "id": &*self.id, "version": env!("CARGO_PKG_VERSION"),
            "live": Self::is_live(r), "ready": Self::trouble(r).is_none(), "trouble": Self::trouble(r),
            "equation": {
                "k1": {"kernel_seen": r.kernel.seen(), "captured": r.kernel_captured, "kernel_dropped": r.kernel.kernel_dropped,
                       "interface_dropped": r.kernel.interface_dropped, "in_ring": r.kernel.in_ring, "difference": k1},
                "k2": {"captured": r.engine.captured, "shared": r.engine.shared, "matched": r.engine.forwarded,
                       "filtered": r.engine.filtered, "duplicates": r.engine.duplicates, "own": r.engine.own, "held": r.engine.held,
                       "dropped": r.engine.dropped_total(), "difference": k2},
                "k3": {"matched": r.engine.forwarded, "recovered": b.recovered_packets, "acked": b.acked_packets,
                       "in_memory": r.in_memory(), "on_disk": b.on_disk_packets, "dropped": r.given_up_after_match(),
                       "difference": k3},
            },
            "dropped": drops, "lost": losses,
            "processor": {"connected": m.link.processor, "delivery": delivery(r), "flow_control": flow(r), "breakers": breakers},
            "spool": {"bytes": b.spool_bytes, "limit_bytes": self.spool_limit, "batches": b.on_disk_batches},
            "insecure": self.transport.insecure,
        });
        format!("{status:#}\n")
    }
}

impl Pages for HunterPages {
    fn page(&self, path: &str) -> Option<Page> {
        let health = |trouble: Option<&str>| Page {
            good: trouble.is_none(),
            kind: PageKind::Plain,
            text: trouble.map_or_else(|| "ok\n".to_owned(), |t| format!("{t}\n")),
        };
        Some(match path {
            "/metrics" => Page { good: true, kind: PageKind::Metrics, text: self.metrics() },
            "/statusz" => Page { good: true, kind: PageKind::Json, text: self.status() },
            "/livez" => health((!Self::is_live(&self.shared.report())).then_some("no sign of life for 5 s")),
            "/readyz" => health(Self::trouble(&self.shared.report())),
            _ => return None,
        })
    }
}

const fn flow(r: &Report) -> &'static str {
    match (r.backlog.paused, r.backlog.slow) {
        (true, _) => "pause",
        (false, true) => "slow",
        (false, false) => "continue",
    }
}

const fn delivery(r: &Report) -> &'static str {
    match r.backlog.peer {
        PeerKind::Extended => "acknowledged",
        PeerKind::Plain => "best_effort",
    }
}

/// K1 to K3, term by term.
fn packets(x: &mut Exposition, r: &Report) {
    let (engine, kernel) = (&r.engine, &r.kernel);
    x.counter("lc_kernel_packets_total", "Frames the kernel and the interfaces know of.", kernel.seen());
    x.counter("lc_kernel_dropped_packets_total", "Frames for which the kernel had no room.", kernel.kernel_dropped);
    x.counter("lc_interface_dropped_packets_total", "Frames lost by an interface.", kernel.interface_dropped);
    x.gauge("lc_ring_packets", "Frames the kernel has taken and not handed over.", kernel.in_ring);
    x.counter("lc_captured_packets_total", "Frames captured.", engine.captured);
    x.counter("lc_shared_packets_total", "Further copies of packets that several calls own.", engine.shared);
    x.counter("lc_matched_packets_total", "Packets chosen.", engine.forwarded);
    x.counter("lc_filtered_packets_total", "Packets nobody asked for.", engine.filtered);
    x.counter("lc_seen_twice_packets_total", "Packets captured twice and kept once.", engine.duplicates);
    x.counter("lc_own_packets_total", "Packets of our own connections.", engine.own);
    x.gauge("lc_held_packets", "Packets that wait for a verdict.", engine.held);
    x.counter("lc_recovered_packets_total", "Packets an earlier run left on disk.", r.backlog.recovered_packets);
    let help = "Packets a processor has acknowledged.";
    x.family("lc_acked_packets_total", Kind::Counter, help).sample(&[("delivery", delivery(r))], r.backlog.acked_packets);
    let mut inflight = x.family("lc_inflight_packets", Kind::Gauge, "Packets chosen and not acknowledged.");
    inflight.sample(&[("place", "memory")], r.in_memory());
    inflight.sample(&[("place", "disk")], r.backlog.on_disk_packets);
    let mut error =
        x.family("lc_conservation_error_packets", Kind::Gauge, "Left minus right of each equation: 0, or there is a bug.");
    for (equation, n) in ["k1", "k2", "k3"].into_iter().zip(r.imbalance()) {
        error.sample(&[("side", "hunter"), ("equation", equation)], n);
    }
}

fn losses(x: &mut Exposition, r: &Report) {
    let mut dropped = x.family("lc_dropped_packets_total", Kind::Counter, "Packets given up, by reason.");
    for (reason, n) in DropReason::ALL.iter().zip(r.drops) {
        dropped.sample(&[("reason", reason.name())], n);
    }
    let mut lost = x.family("lc_lost_packets", Kind::Gauge, "Packets lost in the last second, minute and hour.");
    for (place, recent) in LOSSES.iter().zip(r.recent.recent()) {
        for (window, n) in recent.each() {
            lost.sample(&[("place", place), ("window", window)], n);
        }
    }
}
