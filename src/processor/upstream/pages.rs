//! The road upwards in `/metrics` and `/statusz`.

use serde_json::{Value, json};

use super::UpstreamFigures;
use crate::reason::DropReason;
use crate::telemetry::Exposition;
use crate::telemetry::exposition::Kind;
use crate::uplink::Road;

/// What the processor above may ask for.
const ASKED: [&str; 3] = ["continue", "slow", "pause"];

/// Series of their own, since hunters' figures and these would add up to nothing.
pub(in crate::processor) fn metrics(x: &mut Exposition, above: &UpstreamFigures) {
    let b = &above.backlog;
    x.counter("lc_upstream_offered_packets_total", "Packets given to the road upwards.", b.offered_packets);
    x.counter("lc_upstream_recovered_packets_total", "Packets an earlier run had not passed on.", b.recovered_packets);
    let help = "Packets the processor above has acknowledged.";
    let mut acked = x.family("lc_upstream_acked_packets_total", Kind::Counter, help);
    acked.sample(&[("delivery", above.delivery())], b.acked_packets);
    let mut inflight = x.family("lc_upstream_inflight_packets", Kind::Gauge, "Packets on the road upwards.");
    inflight.sample(&[("place", "memory")], b.in_memory_packets);
    inflight.sample(&[("place", "disk")], b.on_disk_packets);
    let mut dropped = x.family("lc_upstream_dropped_packets_total", Kind::Counter, "Packets given up on it, by reason.");
    for (reason, n) in DropReason::ALL.iter().zip(b.dropped_packets) {
        dropped.sample(&[("reason", reason.name())], n);
    }
    let help = "Left minus right of the equation of the road upwards: 0, or there is a bug.";
    x.gauge("lc_upstream_conservation_error_packets", help, above.imbalance());
    x.gauge("lc_upstream_spool_bytes", "Bytes its disk queue takes.", b.spool_bytes);
    x.gauge("lc_upstream_spool_limit_bytes", "Bytes it may take.", above.queue_limit);
    x.counter("lc_upstream_spool_errors_total", "Errors of its file system.", b.spool_errors);
    x.counter("lc_upstream_resent_batches_total", "Batches put on the wire again.", b.resent_batches);
    x.family("lc_upstream_ack_latency_seconds", Kind::Histogram, "From sending a batch up to its acknowledgement.")
        .histogram(&b.ack_latency);
    x.gauge("lc_upstream_connected", "Whether there is a connection.", u8::from(above.link.connected.is_some()));
    x.gauge("lc_upstream_blocked", "Whether hunters wait for it.", u8::from(above.blocked));
    x.state("lc_upstream_flow_control_state", "What the processor above asks for.", &ASKED, above.asked());
    Road::expose(&above.link.roads, above.link.connected.as_deref(), x);
}

/// The same as JSON.
pub(in crate::processor) fn status(above: &UpstreamFigures) -> Value {
    let b = &above.backlog;
    let dropped: serde_json::Map<String, Value> = DropReason::ALL
        .iter()
        .zip(b.dropped_packets)
        .filter(|(_, n)| *n > 0)
        .map(|(reason, n)| (reason.name().to_owned(), n.into()))
        .collect();
    json!({
        "equation": {"offered": b.offered_packets, "recovered": b.recovered_packets, "acked": b.acked_packets,
                     "in_memory": b.in_memory_packets, "on_disk": b.on_disk_packets, "dropped": b.dropped(),
                     "difference": above.imbalance()},
        "dropped": dropped, "connected": above.link.connected, "delivery": above.delivery(), "flow_control": above.asked(),
        "blocked": above.blocked, "breakers": Road::status(&above.link.roads),
        "spool": {"bytes": b.spool_bytes, "limit_bytes": above.queue_limit, "batches": b.on_disk_batches},
    })
}
