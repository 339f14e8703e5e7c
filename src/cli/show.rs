//! `lc show status`, `lc show hunter`, `lc show config`.

use clap::ArgMatches;

use crate::config::RemoteConfig;

use crate::uplink::manage::{self, HunterAnswer, StatusAnswer};

use super::config;
use super::exit::{Exit, Outcome, Stop};
use super::output::Listing;
use super::runtime;
use super::security;
use super::start;

/// Filter ids in the table; the JSON form has all that the processor told.
const IDS_SHOWN: usize = 20;

/// What is asked of a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Status,
    Hunter(String),
}

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let (question, matches) = match matches.subcommand() {
        Some(("status", matches)) => (Question::Status, matches),
        Some(("hunter", matches)) => {
            let id = matches.get_one::<String>("hunter").or_else(|| matches.get_one::<String>("hunter-flag"));
            (Question::Hunter(id.cloned().unwrap_or_default()), matches)
        }
        Some(("config", matches)) => return config::dump(matches),
        _ => return Err(Stop::usage("show what? see 'lc show --help'")),
    };
    let started = start::start(matches)?;
    let config = started.merged.remote(&started.environment)?;
    let format = config.remote.output_format;
    runtime::block_on(ask(config, question))?.print(format)?;
    Ok(Outcome::Done)
}

/// The processor's answer; an unknown hunter is [`Exit::NotFound`], a failure to connect [`Exit::CannotConnect`].
async fn ask(config: RemoteConfig, question: Question) -> Result<Listing, Stop> {
    let hunter = match &question {
        Question::Status => "",
        Question::Hunter(id) => id,
    };
    let answer = fetch(&config, hunter).await?;
    match question {
        Question::Status => Ok(status(&answer)),
        Question::Hunter(id) => {
            match answer.all.iter().find(|h| h.id == id) {
                Some(h) => Ok(one(h)),
                None => Err(Stop::new(Exit::NotFound, anyhow::anyhow!("no hunter '{id}' at this processor"))
                    .hint("see 'lc list hunters'")),
            }
        }
    }
}

/// Asks the processor that `remote` names.
pub(super) async fn fetch(config: &RemoteConfig, hunter: &str) -> Result<StatusAnswer, Stop> {
    security::warn_about(&config.security, "questions and answers travel");
    let target = config.remote.processor.parse().map_err(|e| Stop::usage(format!("processor {e}")))?;
    let dialer = security::dialer(&config.security)?;
    let asked = tokio::time::timeout(config.remote.connect_timeout, manage::status(&dialer, &target, hunter));
    match asked.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(Stop::new(Exit::CannotConnect, e)),
        Err(_) => Err(Stop::new(Exit::CannotConnect, anyhow::anyhow!("no answer from {target} in time"))),
    }
}

fn status(a: &StatusAnswer) -> Listing {
    let [all, healthy, warning, error] = a.hunters;
    let mut rows = vec![
        ("processor", a.processor.clone()),
        ("status", a.status.to_owned()),
        ("hunters", format!("{all} ({healthy} healthy, {warning} warning, {error} error)")),
        ("packets received", a.received.to_string()),
        ("packets stored", a.stored.to_string()),
        ("packets received twice", a.duplicates.to_string()),
        ("filters", format!("{} (version {})", a.filters, a.filter_version)),
        ("subscribers", format!("{} (packets skipped: {})", a.subscribers, a.skipped)),
    ];
    if !a.processors.is_empty() {
        rows.push(("processors below", a.processors.join(", ")));
    }
    let [offered, recovered, acked, waiting, dropped] = a.passed_on;
    let (above, connected) = a.upstream.clone().unwrap_or_default();
    if a.upstream.is_some() {
        rows.push(("passed on to", format!("{above} ({})", if connected { "connected" } else { "not connected" })));
        rows.push(("packets for it", format!("{offered}, and {recovered} of an earlier run")));
        rows.push(("packets it acknowledged", acked.to_string()));
        rows.push(("packets on the way", waiting.to_string()));
        rows.push(("packets given up", dropped.to_string()));
    }
    let rows = rows.into_iter().map(|(k, v)| vec![k.to_owned(), v]).collect();
    let json = serde_json::json!({
        "processor_id": a.processor, "status": a.status, "total_hunters": all, "healthy_hunters": healthy, "warning_hunters": warning,
        "error_hunters": error, "total_packets_received": a.received, "packets_stored": a.stored, "packets_duplicate": a.duplicates,
        "total_filters": a.filters, "filter_version": a.filter_version, "subscribers": a.subscribers, "subscriber_skipped": a.skipped, "processors": a.processors,
        "upstream_processor": above, "upstream_connected": connected, "upstream_offered": offered, "upstream_recovered": recovered,
        "upstream_acked": acked, "upstream_backlog": waiting, "upstream_dropped": dropped
    });
    Listing { columns: vec!["what", "value"], rows, json }
}

fn one(h: &HunterAnswer) -> Listing {
    let [captured, matched, forwarded, dropped] = h.packets;
    let [received, kernel_dropped, interface_dropped, in_ring] = h.kernel;
    let [spool_bytes, spool_batches] = h.spool;
    let drops: Vec<String> = h.drops.iter().map(|(r, n)| format!("{r}={n}")).collect();
    let refused: Vec<String> = h.filter_errors.iter().map(|(id, why)| format!("{id}: {why}")).collect();
    let mut ids = h.filter_ids.iter().take(IDS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if h.filters as usize > IDS_SHOWN {
        ids.push_str(", …");
    }
    let rows = [
        ("hunter", h.id.clone()),
        ("host", h.hostname.clone()),
        ("remote", h.remote.clone()),
        ("status", h.status.to_owned()),
        ("connected", format!("{} s", h.connected_secs)),
        ("captures from", h.interfaces.join(", ")),
        ("filters meant for it", format!("{} ({ids})", h.filters)),
        ("filters in force", format!("{} (version {})", h.active_filters, h.filter_version)),
        ("filters not applied", if refused.is_empty() { "none".to_owned() } else { refused.join("; ") }),
        ("packets captured", captured.to_string()),
        ("packets matched", matched.to_string()),
        ("packets acknowledged", forwarded.to_string()),
        ("packets given up", if drops.is_empty() { dropped.to_string() } else { format!("{dropped} ({})", drops.join(" ")) }),
        ("packets held", h.held.to_string()),
        (
            "kernel",
            format!(
                "{received} received, {kernel_dropped} dropped, {interface_dropped} dropped by the interface, {in_ring} in the ring"
            ),
        ),
        ("not yet acknowledged", format!("{} KiB", h.window_bytes >> 10)),
        ("waiting on its disk", format!("{spool_batches} batches, {} MiB", spool_bytes >> 20)),
        ("memory", format!("{} MiB", h.rss_bytes >> 20)),
        ("processor use", format!("{:.1} %", h.cpu_percent)),
    ];
    let rows = rows.into_iter().map(|(k, v)| vec![k.to_owned(), v]).collect();
    Listing { columns: vec!["what", "value"], rows, json: json(h) }
}

/// A hunter as JSON.
pub(super) fn json(h: &HunterAnswer) -> serde_json::Value {
    let [captured, matched, forwarded, dropped] = h.packets;
    let [received, kernel_dropped, interface_dropped, in_ring] = h.kernel;
    let errors: Vec<serde_json::Value> =
        h.filter_errors.iter().map(|(id, reason)| serde_json::json!({"id": id, "reason": reason})).collect();
    let [spool_bytes, spool_batches] = h.spool;
    let drops: serde_json::Map<String, serde_json::Value> = h.drops.iter().map(|(r, n)| (r.clone(), (*n).into())).collect();
    serde_json::json!({
        "hunter_id": h.id, "hostname": h.hostname, "remote_addr": h.remote, "status": h.status,
        "connected_duration_sec": h.connected_secs, "interfaces": h.interfaces, "filters": h.filters,
        "filter_ids": h.filter_ids, "filter_version": h.filter_version, "filter_errors": errors,
        "stats": {
            "packets_captured": captured, "packets_matched": matched, "packets_forwarded": forwarded, "packets_dropped": dropped,
            "drops": drops, "held_packets": h.held, "kernel_received": received, "kernel_dropped": kernel_dropped,
            "interface_dropped": interface_dropped, "in_ring": in_ring, "buffer_bytes": h.window_bytes,
            "spool_bytes": spool_bytes, "spool_batches": spool_batches,
            "active_filters": h.active_filters, "memory_rss_bytes": h.rss_bytes, "cpu_percent": h.cpu_percent
        },
        "capabilities": { "filter_types": h.filter_types }
    })
}
