//! A hunter's figures and health over HTTP: `/metrics`, `/statusz`, `/livez`, `/readyz`. Each answer is of one instant; no answer names anybody who
//! is captured.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{LOSSES, Report};
use super::inspect::{Link, Shared};
use crate::capture::KernelStats;
use crate::net::{Health, Transport};
use crate::reason::DropReason;
use crate::telemetry::exposition::Kind;
use crate::telemetry::{Exposition, clock};
use crate::uplink::{PeerKind, Road};

/// A part that gives no sign of life for this long has stopped.
const SILENT: Duration = Duration::from_secs(5);
/// Interfaces with series of their own.
const SOURCES_TOLD: usize = 100;
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
            now: clock::wall().as_nanos() / 1_000_000_000,
        }
    }

    /// What keeps it from capturing, if anything does. Being cut off from the processor does not: a restart would only lose what waits.
    fn trouble_of(r: &Report) -> Option<&'static str> {
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
        let before = *self.shared.before.lock();
        x.gauge(
            "lc_hunter_unaccounted_packets_max",
            "Packets lost with runs that were killed, at most, since one stopped by itself.",
            before.at_most(),
        );
        let errors = self.shared.state_errors.load(Ordering::Relaxed);
        x.counter("lc_hunter_state_errors_total", "Records of the hunter's state that could not be written or read.", errors);
        x.gauge("lc_connected", "Whether there is a connection to a processor.", u8::from(b.connected));
        x.state("lc_flow_control_state", "What the processor asks for.", &FLOW, flow(&m.report));
        Road::expose(&m.link.roads, m.link.processor.as_deref(), x);
    }
}

impl Health for HunterPages {
    fn metrics(&self) -> String {
        let m = self.moment();
        let mut x = Exposition::default();
        x.process("hunter");
        packets(&mut x, &m.report);
        losses(&mut x, &m.report);
        self.queues(&mut x, &m);
        self.transport.tell(&mut x, m.now);
        let e = &m.report.engine;
        x.gauge("lc_calls_active", "Calls known.", m.report.calls);
        x.counter("lc_calls_total", "Calls seen.", e.calls);
        let mut evicted = x.family("lc_calls_evicted_total", Kind::Counter, "Calls forgotten before their end, by reason.");
        evicted.sample(&[("reason", "full")], e.calls_evicted);
        evicted.sample(&[("reason", "rtp_idle")], e.calls_idle);
        evicted.sample(&[("reason", "max_age")], e.calls_aged);
        let f = &e.forgotten;
        let mut evicted = x.family("lc_flows_evicted_total", Kind::Counter, "Flows forgotten, by reason.");
        evicted.sample(&[("reason", "full")], f.flows);
        evicted.sample(&[("reason", "emergency")], f.flows_emergency);
        x.counter(
            "lc_tcp_reassembly_dropped_bytes_total",
            "Bytes of TCP that were not put together for want of room.",
            f.tcp_bytes,
        );
        x.counter("lc_tcp_reassembly_given_up_total", "Directions of TCP that are no longer put together.", f.tcp_directions);
        x.counter("lc_defrag_evicted_total", "Fragmented datagrams given up: bounds, age.", f.datagrams);
        x.counter("lc_parser_panics_total", "Panics of the inspection; anything but 0 is a bug.", crate::engine::panics());
        x.counter("lc_sip_messages_total", "SIP messages read.", e.sip_messages);
        x.parsing(e.parsing.named_errors(), e.parsing.named_limits());
        let filters = self.shared.filters.current();
        x.gauge("lc_filters", "Filters in force.", filters.len());
        x.gauge("lc_filters_version", "Version of the filters in force.", filters.version());
        x.finish()
    }

    fn status(&self) -> String {
        let m = self.moment();
        let (r, b) = (&m.report, &m.report.backlog);
        let [k1, k2, k3] = r.imbalance();
        let drops: serde_json::Map<String, Value> =
            DropReason::ALL.iter().zip(r.drops).map(|(reason, n)| (reason.name().to_owned(), n.into())).collect();
        let limits: serde_json::Map<String, Value> = r.engine.reached().map(|(name, n)| (name, n.into())).collect();
        let breakers = Road::status(&m.link.roads);
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
            "live": self.is_live(), "ready": Self::trouble_of(r).is_none(), "trouble": Self::trouble_of(r),
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
            "dropped": drops, "lost": losses, "limits": limits, "unaccounted": unaccounted(&self.shared),
            "processor": {"connected": m.link.processor, "delivery": delivery(r), "flow_control": flow(r), "breakers": breakers},
            "spool": {"bytes": b.spool_bytes, "limit_bytes": self.spool_limit, "batches": b.on_disk_batches},
            "insecure": self.transport.insecure,
        });
        format!("{status:#}\n")
    }

    fn is_live(&self) -> bool {
        self.shared.recent.lock().ticked().elapsed() < SILENT
    }

    fn trouble(&self) -> Option<String> {
        Self::trouble_of(&self.shared.report()).map(str::to_owned)
    }
}

fn unaccounted(shared: &Shared) -> Value {
    let b = *shared.before.lock();
    json!({
        "packets_max": b.at_most(), "last_run": b.last_run, "readable": !b.unreadable, "host_down": b.host_down,
        "errors": shared.state_errors.load(Ordering::Relaxed),
    })
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
    let engine = &r.engine;
    let mut each = |name, kind, help, of: fn(&KernelStats) -> u64| {
        let mut family = x.family(name, kind, help);
        for (source, kernel) in r.kernels.iter().take(SOURCES_TOLD) {
            family.sample(&[("if", source)], of(kernel));
        }
    };
    each("lc_kernel_packets_total", Kind::Counter, "Frames the kernel and the interfaces know of.", KernelStats::seen);
    each("lc_kernel_dropped_packets_total", Kind::Counter, "Frames for which the kernel had no room.", |k| k.kernel_dropped);
    each("lc_interface_dropped_packets_total", Kind::Counter, "Frames lost by an interface.", |k| k.interface_dropped);
    each("lc_ring_packets", Kind::Gauge, "Frames the kernel has taken and not handed over.", |k| k.in_ring);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::{Backlog, BacklogConfig};

    #[test]
    fn what_the_kernel_says_is_told_for_each_interface_however_many_threads_it_has() {
        let sources = ["eth0", "eth0", "eth1"].map(str::to_owned).to_vec();
        let shared = Arc::new(Shared::of(Arc::new(Backlog::new(BacklogConfig::default())), sources));
        for (n, slot) in (1_u64..).zip(&shared.progress) {
            slot.lock().kernel = KernelStats { received: n * 10, kernel_dropped: n, ..KernelStats::default() };
        }
        let pages = HunterPages::new(shared, "edge".into(), Transport::default(), 0);

        let text = pages.metrics();

        for line in ["lc_kernel_dropped_packets_total{if=\"eth0\"} 3\n", "lc_kernel_dropped_packets_total{if=\"eth1\"} 3\n"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.contains("lc_parser_panics_total ") && text.contains("lc_ring_packets{if=\"eth1\"} 0\n"), "{text}");
    }
}
