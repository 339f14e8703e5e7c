//! `lc sniff`, `lc sniff voip`.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgMatches;

use crate::capture::{Libpcap, Source};
use crate::config::{Mode, NoFilterPolicy, OutputFormat, SniffConfig};
use crate::record::dir::MinFree;
use crate::record::readers::Readers;
use crate::sniffer::{self, Format, Renewed, SnifferConfig, SnifferError};
use crate::telemetry::{self, OPERATOR, clock};

use super::exit::{Outcome, Stop};
use super::inspection;
use super::memory::{self, Shares};
use super::privileges::{self, Needs};
use super::runtime;
use super::shown::shown;
use super::signals::{Signal, Signals};
use super::start::{self, Started};

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let (mode, matches) = match matches.subcommand() {
        Some(("voip", below)) => (Mode::Voip, below),
        _ => (Mode::Generic, matches),
    };
    let started = start::start(matches)?;
    let config = started.merged.sniff(mode)?;
    let needs = if config.capture.is_live() { Needs::Capture } else { Needs::Nothing };
    let readers = privileges::readers(config.system.pcap_group.as_deref())?;
    privileges::drop_to(config.system.user.as_deref(), needs, readers)?;
    runtime::block_on(supervise(config, readers, matches, &started))
}

async fn supervise(config: SniffConfig, readers: Readers, matches: &ArgMatches, started: &Started) -> Result<Outcome, Stop> {
    let mut signals = Signals::new()?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let (filters, compile) = (config.filters.clone(), inspection::compile_options(config.mode, &config.voip)?);
    let renewed = Arc::new(Renewed::default());
    let renew = Arc::clone(&renewed);
    if config.capture.is_live() {
        sniffer::topology::watch_memory();
    }
    let work = sniffer::topology::aside(move || assemble(&config, readers, renewed, &told));
    signals
        .during(
            async {
                work.await.unwrap_or_else(|| Err(anyhow::anyhow!("the sniffer panicked; this is a bug, please report it").into()))
            },
            |signal| match signal {
                Signal::Reload => {
                    start::reload_level(matches, started);
                    if let Some((_, set)) = inspection::reload_filters(&filters, &compile) {
                        renew.put(set);
                    }
                }
                Signal::Stop => {
                    tracing::info!(name: OPERATOR, "stopping");
                    stop.store(true, Ordering::Relaxed);
                }
                Signal::StopNow => std::process::exit(1),
            },
        )
        .await
}

/// Turns the configuration into the sniffer's own and runs it.
fn assemble(config: &SniffConfig, readers: Readers, renewed: Arc<Renewed>, stop: &AtomicBool) -> Result<Outcome, Stop> {
    let options = inspection::compile_options(config.mode, &config.voip)?;
    let filters = inspection::compile(&inspection::local_filters(&config.filters)?, &options)?;
    // nothing asked for is everything; a file of filters that are all off is nothing, as it would be at a hunter
    let policy = if config.filters.file.is_some() { NoFilterPolicy::Deny } else { NoFilterPolicy::Allow };
    let limit = memory::limit(config.system.memory_limit);
    let engines = inspection::engines(&config.capture, config.sniff.interfaces.len());
    let shares = Shares::of(limit, engines, inspection::rings(&config.capture, engines), 0);
    let sniffer = SnifferConfig {
        engine: shares.fit(inspection::engine((config.mode, policy), &config.capture, &config.voip, &config.system, true)),
        filters,
        bpf: Arc::new(Libpcap),
        format: match config.sniff.output_format {
            OutputFormat::Text => Format::Text,
            OutputFormat::Json => Format::Json,
        },
        write: config.sniff.write_file.clone(),
        min_free: MinFree::default(),
        readers,
        count: (config.capture.count > 0).then_some(config.capture.count),
        renewed,
        is_short: if config.capture.is_live() { telemetry::memory::is_short } else { || false },
    };
    if config.mode == Mode::Generic && sniffer.write.is_none() {
        tracing::warn!(
            "packets are only counted: without a mode there are no events; try 'lc sniff voip', or -w FILE to keep what matches"
        );
    }
    let (filter, voip) = (config.sniff.bpf_filter.as_deref(), (config.mode == Mode::Voip).then_some(&config.voip));
    if config.capture.threads > 1 {
        return Err(Stop::usage("--capture-threads: lc sniff captures with one thread; lc hunt takes more"));
    }
    let mut source: Box<dyn Source> = if config.capture.is_live() {
        let mut live = inspection::open_interfaces(&config.sniff.interfaces, filter, &config.capture, voip)?;
        match live.pop() {
            Some(source) => Box::new(source),
            None => return Ok(Outcome::Done),
        }
    } else {
        match inspection::open_files(filter, &config.capture, voip, stop)? {
            // events on the same terminal are progress enough
            Some(files) => shown(files, &config.capture.read, !io::stdout().is_terminal()),
            None => return Ok(Outcome::Done),
        }
    };
    let mut events = io::stdout().lock();
    let outcome = sniffer::run(sniffer, &mut *source, &clock::wall, &mut events, stop).map_err(stopped)?;
    let c = outcome.counters;
    if c.sip_tls > 0 {
        tracing::warn!("there is SIP over TLS; it is not decrypted, and its calls are not seen");
    }
    inspection::warn_of_foreign_links(&c);
    tracing::info!(
        name: OPERATOR,
        captured = c.captured,
        kernel_dropped = outcome.kernel.kernel_dropped.saturating_add(outcome.kernel.interface_dropped),
        forwarded = c.forwarded,
        filtered = c.filtered,
        duplicates = c.duplicates,
        dropped = c.dropped_total(),
        rtp_only = c.rtp_only,
        sip_tls = c.sip_tls,
        limits = %c.limits(),
        events = outcome.events,
        "done"
    );
    Ok(Outcome::of_lost(outcome.lost()))
}

fn stopped(e: SnifferError) -> Stop {
    match e {
        SnifferError::Capture(e) => inspection::source_error(e),
        SnifferError::Events(e) => Stop::from(e),
        SnifferError::Record(e) => Stop::from(anyhow::Error::from(e)),
    }
}
