//! `lc hunt`, `lc hunt voip`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgMatches;
use tokio::sync::watch;

use crate::batch::Limits;
use crate::capture::{Libpcap, Source};
use crate::config::{self, HuntConfig, Mode, Sandbox};
use crate::filter::Filter;
use crate::hunter::{self, Facts, HunterError, Parts, Report};
use crate::net::{Dialer, Transport};
use crate::record::readers::Readers;
use crate::sniffer;
use crate::telemetry::{OPERATOR, clock};
use crate::uplink::{BacklogConfig, Durability, Ending, Party, UplinkConfig, WhenFull};

use super::exit::{Exit, Outcome, Stop};
use super::inspection;
use super::memory::{self, Shares};
use super::pages;
use super::privileges::{self, Needs};
use super::runtime;
use super::sandbox::{self, Reach, Role};
use super::security;
use super::shown::shown;
use super::signals::{Signal, Signals};
use super::spool;
use super::start::{self, Started};

/// How long a stopping hunter waits for a processor that is away.
pub(super) const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let (mode, matches) = match matches.subcommand() {
        Some(("voip", below)) => (Mode::Voip, below),
        _ => (Mode::Generic, matches),
    };
    let started = start::start(matches)?;
    let config = started.merged.hunt(mode, &started.environment)?;
    security::warn_about(&config.security, "packets are sent");
    // certificates may be root's alone
    let (dialer, transport) = (security::dialer(&config.security)?, pages::of_client(&config.security));
    let needs = if config.capture.is_live() { Needs::Capture } else { Needs::Nothing };
    privileges::drop_to(config.system.user.as_deref(), needs, Readers::NONE)?;
    if config.system.sandbox == Sandbox::On {
        privileges::shed(needs)?;
        sandbox::enter(Role::Hunter, &reach(&config, &started))?;
    }
    runtime::block_on(supervise(config, (dialer, transport), matches, &started))
}

/// What it reads and writes from here on.
fn reach(config: &HuntConfig, started: &Started) -> Reach {
    let mut reach = Reach::default();
    reach.reads(started.merged.file.iter().chain(&config.filters.file).chain(&config.capture.read));
    reach.reads(config.security.files());
    if spool::asked(config).0 != Durability::Memory || config.hunter.disk_buffer.dir.is_some() {
        config.spool_dir.iter().for_each(|dir| reach.writes_into(dir, Readers::NONE));
    }
    reach
}

async fn supervise(
    config: HuntConfig,
    (dialer, transport): (Dialer, Transport),
    matches: &ArgMatches,
    started: &Started,
) -> Result<Outcome, Stop> {
    let mut signals = Signals::new()?;
    let (end, ending) = hunter::endings();
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let pages = pages::listen(config.hunter.metrics_listen.as_deref()).await?;
    let (filters, compile) = (config.filters.clone(), inspection::compile_options(config.mode, &config.voip)?);
    let (renew, local) = hunter::local_filters(inspection::local_filters(&filters)?);
    // a pipe may be waited for
    let parts = sniffer::topology::aside(move || assemble(&config, dialer, local, &told));
    let work = async {
        match parts.await.ok_or_else(|| stopped(HunterError::Panicked))?? {
            Some(parts) => {
                Ok(conclude(&Box::pin(hunter::run(Parts { pages, transport, ..parts }, ending)).await.map_err(stopped)?))
            }
            None => Ok(Outcome::Done),
        }
    };
    signals
        .during(work, |signal| match signal {
            Signal::Reload => {
                start::reload_level(matches, started);
                if let Some((filters, _)) = inspection::reload_filters(&filters, &compile) {
                    renew.send_replace(filters);
                }
            }
            Signal::Stop => {
                tracing::info!(name: OPERATOR, "stopping: flushing and waiting for acknowledgements");
                stop.store(true, Ordering::Relaxed);
                end.send_replace(Ending::Drain);
            }
            Signal::StopNow => {
                tracing::warn!(name: OPERATOR, "stopping now");
                end.send_replace(Ending::Now);
            }
        })
        .await
}

/// Turns the configuration into the hunter's own parts; `None`: told to `stop` meanwhile.
fn assemble(
    config: &HuntConfig,
    dialer: Dialer,
    local: watch::Receiver<Vec<Filter>>,
    stop: &AtomicBool,
) -> Result<Option<Parts>, Stop> {
    let compile = inspection::compile_options(config.mode, &config.voip)?;
    // what cannot be applied here is an error now, not a line in a log later
    inspection::compile(&local.borrow(), &compile)?;
    let hunter = &config.hunter;
    let offline = !config.capture.is_live();
    let shares = shares(config);
    let Some((sources, interfaces)) = sources(config, stop)? else { return Ok(None) };
    let spool::Opened { durability, queue, account } = spool::of_hunter(config)?;
    let instance = instance();
    Ok(Some(Parts {
        sources,
        offline,
        count: (config.capture.count > 0).then_some(config.capture.count),
        engine: shares.fit(inspection::engine(
            (config.mode, hunter.no_filter_policy),
            &config.capture,
            &config.voip,
            &config.system,
            false,
        )),
        bpf: Arc::new(Libpcap),
        facts: Facts {
            hostname: config.host.clone(),
            interfaces,
            mode: compile.mode,
            max_memory: shares.batches,
            memory_limit: shares.limit,
            instance,
            epochs: Vec::new(),
            earlier: Vec::new(),
        },
        compile,
        local,
        limits: Limits {
            packets: hunter.batch_size,
            bytes: usize::try_from(hunter.batch_bytes).unwrap_or(usize::MAX),
            age: hunter.batch_timeout,
            ..Limits::default()
        },
        backlog: BacklogConfig {
            max_bytes: usize::try_from(shares.batches).unwrap_or(usize::MAX),
            when_full: if waits(config) { WhenFull::Block } else { WhenFull::DropOldest },
            durability,
            ..BacklogConfig::default()
        },
        spool: queue,
        account,
        uplink: UplinkConfig {
            party: Party::Hunter,
            hunter_id: Arc::from(config.id.as_str()),
            targets: security::targets(&hunter.processor_addr)?,
            dialer,
            connect_timeout: offline.then_some(hunter.connect_timeout),
            drain_timeout: DRAIN,
            seed: instance,
        },
        pages: None,
        transport: Transport::default(),
        spool_limit: if durability == Durability::Memory { 0 } else { hunter.disk_buffer.max_mb.saturating_mul(1 << 20) },
    }))
}

/// What the parts of this hunter may take.
fn shares(config: &HuntConfig) -> Shares {
    let limit = memory::limit(config.system.memory_limit);
    let engines = inspection::engines(&config.capture, config.hunter.interfaces.len());
    let shares = Shares::of(limit, engines, inspection::rings(&config.capture, engines), config.hunter.max_memory);
    if shares.batches < config.hunter.max_memory {
        tracing::warn!(bytes = shares.batches, limit, "batches get a quarter of --memory-limit, which is less than --max-memory");
    }
    shares
}

/// A file waits for room, unless it was told not to.
fn waits(config: &HuntConfig) -> bool {
    let told = config.hunter.disk_buffer.when_full;
    !config.capture.is_live() && matches!(told, config::WhenFull::Auto | config::WhenFull::Block)
}

/// Sources and the names of what they capture from.
type Sources = (Vec<Box<dyn Source>>, Vec<String>);

fn sources(config: &HuntConfig, stop: &AtomicBool) -> Result<Option<Sources>, Stop> {
    let hunter = &config.hunter;
    let voip = (config.mode == Mode::Voip).then_some(&config.voip);
    let filter = hunter.bpf_filter.as_deref();
    if !config.capture.is_live() {
        let Some(source) = inspection::open_files(filter, &config.capture, voip, stop)? else { return Ok(None) };
        // a path says more about this machine than a peer needs to know
        let name = |p: &PathBuf| p.file_name().unwrap_or(p.as_os_str()).to_string_lossy().into_owned();
        let names = config.capture.read.iter().map(name).collect();
        return Ok(Some((vec![shown(source, &config.capture.read, true)], names)));
    }
    let live = inspection::open_interfaces(&hunter.interfaces, filter, &config.capture, voip)?;
    let sources = live.into_iter().map(|s| Box::new(s) as Box<dyn Source>).collect();
    Ok(Some((sources, hunter.interfaces.clone())))
}

pub(super) fn stopped(e: HunterError) -> Stop {
    match e {
        HunterError::Capture(e) => inspection::source_error(e),
        HunterError::Uplink(_) => Stop::new(Exit::CannotConnect, e),
        HunterError::Thread(_) | HunterError::Panicked => Stop::new(Exit::Failure, e),
    }
}

/// The final line: what became of every packet.
fn conclude(r: &Report) -> Outcome {
    let (e, k, b) = (&r.engine, &r.kernel, &r.backlog);
    let [_, k2, k3] = r.imbalance();
    inspection::warn_of_foreign_links(e);
    tracing::info!(
        name: OPERATOR,
        captured = e.captured,
        kernel_dropped = k.kernel_dropped,
        interface_dropped = k.interface_dropped,
        in_ring = k.in_ring,
        matched = e.forwarded,
        filtered = e.filtered,
        shared = e.shared,
        held = e.held,
        duplicates = e.duplicates,
        own = e.own,
        rtp_only = e.rtp_only,
        sip_tls = e.sip_tls,
        doubted_times = r.doubted_times,
        acknowledged = b.acked_packets,
        processor = r.processor(),
        recovered = b.recovered_packets,
        in_memory = r.in_memory(),
        on_disk = b.on_disk_packets,
        dropped = %hunter::drops(&r.drops),
        lost = r.lost(),
        lately = %r.recent.together(),
        limits = %e.limits(),
        unaccounted = k2.saturating_add(k3),
        difference = %r.difference(),
        "done"
    );
    Outcome::of_lost(r.lost())
}

/// A number that no other start of a program has.
pub(super) fn instance() -> u64 {
    ahash::RandomState::new().hash_one(clock::wall().as_nanos())
}
