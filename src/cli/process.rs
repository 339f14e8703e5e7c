//! `lc process`.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgMatches;

use crate::config::{self, CallLayout, ListenHost, ProcessConfig, Sandbox, ServerDurability, ServerSecurity};
use crate::net::{AcceptLimits, Acceptor, Dialer, Grants, Keys, Reloading, ServerTls, Target, Transport, listen_addresses};
use crate::processor::answers::Answers;
use crate::processor::commit::{CommitError, Recovered, recover};
use crate::processor::filters::read_file;
use crate::processor::intake::Intake;
use crate::processor::{self, Access as Callers, Commit, Order, Outputs, Parts, ProcessorError, Rates, Reopen};
use crate::record::RecordError;
use crate::record::calls::{CallFiles, CallFilesConfig, Layout};
use crate::record::dir::{Access, Dir, MinFree};
use crate::record::name::{Pattern, Purpose};
use crate::record::readers::Readers;
use crate::record::rotate::{RotateConfig, Rotating};
use crate::record::state::{Acked, Places, State};
use crate::record::unified::Unified;
use crate::telemetry::OPERATOR;
use crate::wire::PEERS_MAX;

use super::exit::{Exit, Outcome, Stop};
use super::inspection::call_times;
use super::memory;
use super::pages;
use super::privileges::{self, Needs};
use super::runtime;
use super::sandbox::{self, Reach, Role};
use super::signals::{Signal, Signals};
use super::spool;
use super::start::{self, Started};
use super::upstream;

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let started = start::start(matches)?;
    let config = started.merged.process(&started.environment)?;
    if config.security == ServerSecurity::PlainText {
        tracing::warn!("INSECURE: packets are received in plain text, from whoever connects (--insecure)");
    }
    let files = &config.processor;
    let writes = files.write_file.is_some() || files.per_call_pcap.enabled || files.auto_rotate_pcap.enabled;
    if !writes && files.processor_addr.is_empty() {
        tracing::warn!("nothing is written: neither --write-file, --per-call-pcap nor --auto-rotate-pcap is set");
    }
    // certificates and keys may be root's alone
    let (tls, access) = tls(&config.security)?;
    let dialer = upstream::dialer(&config)?;
    let transport = pages::of_server(&config.security);
    let needs = if (1..1024).contains(&config.processor.listen().1) { Needs::LowPort } else { Needs::Nothing };
    let readers = privileges::readers(config.system.pcap_group.as_deref())?;
    privileges::drop_to(config.system.user.as_deref(), needs, readers)?;
    if config.system.sandbox == Sandbox::On {
        privileges::shed(needs)?;
        sandbox::enter(Role::Processor, &reach(&config, readers, &started))?;
    }
    runtime::block_on(supervise(config, readers, (tls, transport), (access, dialer), matches, &started))
}

/// What it reads and writes from here on.
fn reach(config: &ProcessConfig, readers: Readers, started: &Started) -> Reach {
    let mut reach = Reach::default();
    reach.reads(started.merged.file.iter().chain(&config.processor.filter_file));
    if let ServerSecurity::Tls { cert_file, key_file, client_ca_file, crl_file, api_keys_file, grants_file, .. } =
        &config.security
    {
        let lists = [client_ca_file, crl_file, api_keys_file, grants_file];
        reach.reads([cert_file, key_file].into_iter().chain(lists.into_iter().flatten()));
    }
    if let Some(above) = &config.upstream {
        reach.reads(above.files());
        reach.writes_into(&config.upstream_dir, Readers::NONE);
    }
    reach.writes_into(&config.state_dir, Readers::NONE);
    let p = &config.processor;
    p.write_file.iter().for_each(|file| reach.writes_file(file, readers));
    if p.per_call_pcap.enabled {
        reach.writes_into(&p.per_call_pcap.output_dir, readers);
    }
    if p.auto_rotate_pcap.enabled {
        reach.writes_into(&p.auto_rotate_pcap.output_dir, readers);
    }
    // files of an earlier run may have to be made what was stored, wherever they are
    let state_dir = Dir::open(&config.state_dir, Access::Private, MinFree::NONE).ok();
    if let Some(places) = state_dir.and_then(|dir| State::places(&dir)) {
        let before = [places.unified, places.calls, places.rotating].into_iter().flatten();
        before.filter(|dir| dir.is_dir()).for_each(|dir| reach.writes_into(&dir, Readers::NONE));
    }
    reach
}

async fn supervise(
    config: ProcessConfig,
    readers: Readers,
    (tls, transport): (Tls, Transport),
    (mut access, dialer): (Callers, Option<Dialer>),
    matches: &ArgMatches,
    started: &Started,
) -> Result<Outcome, Stop> {
    let mut signals = Signals::new()?;
    let (order, orders) = processor::orders();
    let limit = memory::limit(config.system.memory_limit);
    if config.processor.per_call_pcap.enabled {
        memory::say_fewer_calls(limit, config.system.max_calls as usize);
    }
    access.intake = Intake::within(limit);
    access.answers = Answers::within(limit);
    let grants = access.grants.clone();
    let stopping = Arc::new(AtomicBool::new(false));
    let mut reloads = 0;
    let mut heed = |signal| match signal {
        Signal::Reload => {
            start::reload_level(matches, started);
            if let Some(Err(e)) = tls.as_ref().map(|t| t.reload()) {
                tracing::error!(error = %e, "certificates not reloaded; the old ones stay in force");
            }
            if let Some(Err(e)) = grants.as_ref().map(|g| g.reload()) {
                tracing::error!(error = %e, "subscribers' grants not reloaded; the old ones stay in force");
            }
            reloads += 1;
            order.send_replace(Order::Reload(reloads));
        }
        Signal::Stop => {
            tracing::info!(name: OPERATOR, "stopping: writing what was received");
            stopping.store(true, Ordering::Release);
            order.send_replace(Order::Stop);
        }
        Signal::StopNow => {
            tracing::warn!(name: OPERATOR, "stopping now");
            order.send_replace(Order::StopNow);
        }
    };
    let assembling = Box::pin(assemble(&config, tls.clone(), access, (limit, readers), Arc::clone(&stopping)));
    let Some(parts) = signals.during(assembling, &mut heed).await? else {
        tracing::info!(name: OPERATOR, "stopped before the commit log of the last process was read; the next start goes on with it");
        return Ok(Outcome::of_lost(0));
    };
    let upstream = upstream::parts(&config, dialer, limit)?;
    let parts = Parts { transport, upstream, ..parts };
    let done = signals.during(Box::pin(processor::run(parts, orders)), &mut heed).await.map_err(stopped)?;
    let c = done.counts;
    tracing::info!(
        name: OPERATOR,
        received = c.received,
        unique = c.unique,
        duplicate = c.duplicate,
        written = c.committed,
        doubled = c.doubled,
        unwanted = c.unwanted,
        left_to_hunters = c.in_queue,
        lost = c.dropped,
        lately = %done.lately,
        refused = %c.refused(),
        difference = %c.difference(),
        "done"
    );
    let given_up = done.upstream.map_or(0, |above| {
        let b = &above.backlog;
        tracing::info!(
            name: OPERATOR,
            offered = b.offered_packets,
            recovered = b.recovered_packets,
            acknowledged = b.acked_packets,
            delivery = above.delivery(),
            in_memory = b.in_memory_packets,
            on_disk = b.on_disk_packets,
            dropped = b.dropped(),
            difference = above.imbalance(),
            "passed on"
        );
        b.dropped()
    });
    Ok(Outcome::of_lost(c.dropped.saturating_add(given_up)))
}

pub(super) fn stopped(e: ProcessorError) -> Stop {
    let exit = match e {
        ProcessorError::Filters(_) => Exit::Usage,
        ProcessorError::Uplink(_) => Exit::CannotConnect,
        ProcessorError::Thread(_) | ProcessorError::State(_) | ProcessorError::Panicked | ProcessorError::Stuck => Exit::Failure,
    };
    Stop::new(exit, e)
}

type Tls = Option<Arc<Reloading<ServerTls>>>;

/// Turns the configuration into the processor's own parts; `None` when it is told to stop meanwhile.
async fn assemble(
    config: &ProcessConfig,
    tls: Tls,
    access: Callers,
    (limit, readers): (u64, Readers),
    stopping: Arc<AtomicBool>,
) -> Result<Option<Parts>, Stop> {
    let p = &config.processor;
    let filters = filters(config)?;
    // a long log takes its time, and signals are heeded meanwhile
    let of = config.clone();
    let opened = processor::topology::aside(move || outputs(&of, limit, readers, &stopping)).await;
    let Some((outputs, commit, acked)) = opened.unwrap_or_else(|| Err(stopped(ProcessorError::Panicked)))? else {
        return Ok(None);
    };
    let (host, port) = p.listen();
    let host = host.map(|h| match h {
        ListenHost::Address(ip) => ip.to_string(),
        ListenHost::Name(name) => name,
    });
    let addresses = listen_addresses(host.as_deref(), port).await.map_err(|e| Stop::new(Exit::Usage, e))?;
    let acceptor = Acceptor::bind(&addresses, tls, limits(p, limit)).map_err(|e| Stop::new(Exit::Failure, e))?;
    Ok(Some(Parts {
        id: config.id.clone(),
        access,
        acceptor,
        max_hunters: usize::try_from(p.max_hunters).unwrap_or(usize::MAX),
        hunter_rates: Rates { bytes: NonZeroU64::new(p.hunter_max_rate), batches: NonZeroU64::new(p.hunter_max_batches) },
        peers: peers(&p.peers)?,
        max_subscribers: usize::try_from(p.max_subscribers).unwrap_or(usize::MAX),
        outputs,
        commit,
        reopen: reopen(config.clone(), limit, readers),
        filters,
        // versions must not go back over a restart; seconds grow faster than anybody edits
        filter_version: u64::try_from(crate::telemetry::clock::wall().as_nanos() / 1_000_000_000).unwrap_or(0),
        filter_file: p.filter_file.clone(),
        acked,
        stats: p.display_stats,
        pages: pages::listen(p.metrics_listen.as_deref()).await?,
        transport: Transport::default(),
        upstream: None,
    }))
}

// a configuration that passes its check starts
const _: () = assert!(config::MAX_PEERS == PEERS_MAX);

/// Where else hunters may go, as they are told.
fn peers(named: &[String]) -> Result<Vec<String>, Stop> {
    let peer = |text: &String| Target::named(text).map_err(|e| Stop::usage(format!("--peers: {e}")));
    named.iter().map(|text| peer(text).map(|target| target.to_string())).collect()
}

/// Each hunter has two connections, and two more while it makes others in their place; each monitor one; the rest is for everybody else.
/// What they may have sent that is not read takes an eighth of the memory.
fn limits(p: &config::Processor, limit: u64) -> AcceptLimits {
    let usual = AcceptLimits::default();
    let hunters = usize::try_from(p.max_hunters).unwrap_or(usize::MAX);
    let monitors = usize::try_from(p.max_subscribers).unwrap_or(usize::MAX);
    AcceptLimits {
        connections: usual.connections.max(hunters.saturating_mul(2).saturating_add(monitors).saturating_add(64)),
        memory: limit / 8,
        age: p.max_connection_age,
        ..usual
    }
}

fn filters(config: &ProcessConfig) -> Result<Vec<crate::filter::Filter>, Stop> {
    let Some(path) = &config.processor.filter_file else { return Ok(Vec::new()) };
    match read_file(path).map_err(Stop::from) {
        Err(e) if e.exit() == Exit::NotFound && !config.filter_file_named => Ok(Vec::new()),
        read => read,
    }
}

/// Opens every file; what an earlier run left is continued. `None` when it is told to stop before that is known.
fn outputs(
    config: &ProcessConfig,
    limit: u64,
    readers: Readers,
    stopping: &AtomicBool,
) -> Result<Option<(Outputs, Commit, Vec<Acked>)>, Stop> {
    let p = &config.processor;
    let min_free = spool::min_free(p.min_free);
    let failed = |e: RecordError| Stop::from(anyhow::Error::from(e));
    let state_dir = Dir::open(&config.state_dir, Access::Private, MinFree::NONE).map_err(failed)?;
    let durability = match p.durability {
        ServerDurability::Disk => processor::Durability::Disk,
        ServerDurability::Process => processor::Durability::Process,
    };
    let Recovered { state, commit } = match recover(&state_dir, durability, min_free, places(config)?, stopping) {
        Err(CommitError::Stopped) => return Ok(None),
        recovered => recovered.map_err(|e| Stop::new(Exit::Failure, e))?,
    };
    let State { acked, calls: known, unified: trusted, memory, losses, .. } = state;
    let calls = if p.per_call_pcap.enabled {
        let pattern = Pattern::parse(&p.per_call_pcap.file_pattern, Purpose::Call).map_err(|e| Stop::new(Exit::Usage, e))?;
        let mut cfg = CallFilesConfig::new(pattern);
        cfg.layout = match p.per_call_pcap.layout {
            CallLayout::Split => Layout::Split,
            CallLayout::Merged => Layout::Merged,
        };
        (cfg.min_free, cfg.readers) = (min_free, readers);
        cfg.max_pending_bytes = cfg.max_pending_bytes.min(usize::try_from(limit / 8).unwrap_or(usize::MAX));
        cfg.max_known_bytes = usize::try_from(memory::calls_of_a_processor(limit)).unwrap_or(usize::MAX);
        cfg.max_calls = memory::calls_within(limit, config.system.max_calls as usize);
        let (calls, fits) = (known.len(), cfg.max_calls);
        if calls > fits {
            tracing::warn!(calls, fits, "the last process knew more calls than --max-calls and --memory-limit let this one");
        }
        let mut files = CallFiles::open(&p.per_call_pcap.output_dir, cfg).map_err(failed)?;
        files.restore(&known);
        Some(files)
    } else {
        None
    };
    let unified = match &p.write_file {
        Some(path) => {
            let at_once = usize::try_from(limit / 48).unwrap_or(usize::MAX).clamp(512 << 10, 8 << 20);
            let file = Unified::open_for(path, None, min_free, trusted, readers).map_err(failed)?;
            Some(if durability == processor::Durability::Disk { file.bypassing_cache(at_once) } else { file })
        }
        None => None,
    };
    let rotating = if p.auto_rotate_pcap.enabled {
        let rotate = &p.auto_rotate_pcap;
        let pattern = Pattern::parse(&rotate.file_pattern, Purpose::Rotating).map_err(|e| Stop::new(Exit::Usage, e))?;
        let mut cfg = RotateConfig::new(pattern);
        cfg.max_bytes = rotate.max_size;
        cfg.idle = rotate.idle_timeout;
        if !rotate.max_duration.is_zero() {
            cfg.max_age = rotate.max_duration;
        }
        (cfg.min_free, cfg.readers) = (min_free, readers);
        Some(Rotating::open(&rotate.output_dir, cfg).map_err(failed)?)
    } else {
        None
    };
    let (times, grace, retain_age) = (call_times(&config.system), p.pcap_grace_period, p.retain_age);
    let outputs = Outputs { unified, calls, rotating, memory, losses, times, grace, retain_age };
    Ok(Some((outputs, commit, acked)))
}

/// Does it once more, after the disk did not confirm what was written; names of groups are not looked up again.
fn reopen(config: ProcessConfig, limit: u64, readers: Readers) -> Reopen {
    Box::new(move || {
        // the record thread looks between two attempts whether it is to stop
        let opened = outputs(&config, limit, readers, &AtomicBool::new(false)).map_err(|e| e.to_string())?;
        let (outputs, commit, _) = opened.ok_or(CommitError::Stopped)?;
        Ok((outputs, commit))
    })
}

/// Where the files are, wherever the next process is started.
fn places(config: &ProcessConfig) -> Result<Places, Stop> {
    let p = &config.processor;
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Stop::new(Exit::Failure, e));
    let unified = p.write_file.as_deref().map(absolute).transpose()?;
    Ok(Places {
        unified: unified.and_then(|p| p.parent().map(Path::to_path_buf)),
        calls: p.per_call_pcap.enabled.then(|| absolute(&p.per_call_pcap.output_dir)).transpose()?,
        rotating: p.auto_rotate_pcap.enabled.then(|| absolute(&p.auto_rotate_pcap.output_dir)).transpose()?,
    })
}

fn tls(security: &ServerSecurity) -> Result<(Tls, Callers), Stop> {
    let ServerSecurity::Tls { cert_file, key_file, client_ca_file, client_auth, crl_file, api_keys_file, grants_file } = security
    else {
        return Ok((None, Callers::default()));
    };
    let source = ServerTls {
        cert: cert_file.clone(),
        key: key_file.clone(),
        client_ca: client_ca_file.clone(),
        require_client: *client_auth,
        crl: crl_file.clone(),
    };
    let reloading = Reloading::new(source).map_err(|e| Stop::new(Exit::Usage, e))?;
    let keys = api_keys_file.clone().map(|path| Reloading::new(Keys::at(path)).map(Arc::new));
    let keys = keys.transpose().map_err(|e| Stop::new(Exit::Usage, e))?;
    let grants = grants_file.clone().map(|path| Reloading::new(Grants::at(path)).map(Arc::new));
    let grants = grants.transpose().map_err(|e| Stop::new(Exit::Usage, e))?;
    Ok((Some(Arc::new(reloading)), Callers::new(*client_auth, keys).granting(grants)))
}
