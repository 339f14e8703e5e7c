//! The disk queue: opened for `lc hunt`, and looked into by `lc spool ls|verify|cat|quarantine|drain`, a hunter's or a processor's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use tokio::sync::watch;

use crate::batch::{BatchSeq, BatchView, Epoch, ViewLimits};
use crate::config::{
    Durability as Asked, HuntConfig, Mode, Opt, OutputFormat, Reserve, SpoolConfig as Config, WhenFull, find_option,
};
use crate::hunter::{self, Account, Before, Facts};
use crate::processor::{self, UpstreamParts};
use crate::record::dir::MinFree;
use crate::record::unified::Unified;
use crate::record::{self, Packet};
use crate::spool::{self, Disk, Item, LastRun, Listed, Queue, RunRecord, SpoolConfig, SpoolError, SpoolFull, StateFile};
use crate::telemetry::clock;
use crate::uplink::{BacklogConfig, BacklogSnapshot, Durability, Ending, Party, UplinkConfig};

use super::exit::{Exit, Outcome, Stop};
use super::hunt;
use super::output::Listing;
use super::process;
use super::runtime;
use super::security;
use super::signals::{Signal, Signals};
use super::start;
use super::upstream;

/// A segment's usual size.
pub(super) const SEGMENT_BYTES: u64 = 16 << 20;

/// Nothing waits for long, and not much.
pub(super) const EAGER: (Duration, u64) = (Duration::from_millis(50), 2 << 20);

/// What a spool costs and promises: how old and how large what is not yet durable may become.
const fn sync(durability: Durability) -> (Duration, u64) {
    match durability {
        Durability::Wal => EAGER,
        Durability::Memory | Durability::Spill => (Duration::from_millis(500), 8 << 20),
    }
}

/// What a hunter has of its directory.
pub(super) struct Opened {
    /// Where its batches live.
    pub(super) durability: Durability,
    /// Its queue.
    pub(super) queue: Option<Queue<Disk>>,
    /// What the last run left, and where this one writes the same.
    pub(super) account: Option<Account>,
}

/// Opens a hunter's directory. Nobody asked for a queue (`auto`): then one that cannot be had is a warning.
pub(super) fn of_hunter(config: &HuntConfig) -> Result<Opened, Stop> {
    let offline = !config.capture.is_live();
    let (durability, demanded) = asked(config);
    if durability == Durability::Memory {
        return Ok(Opened { durability, queue: None, account: in_memory(config) });
    }
    match open(config, durability, offline) {
        Ok(queue) => {
            let opened = StateFile::open(queue.fs(), &config.id);
            let account = account(opened, |epoch, seq| queue.packets_after(epoch, seq));
            Ok(Opened { durability, queue: Some(queue), account })
        }
        Err(stop) if demanded => Err(stop),
        Err(stop) => {
            tracing::warn!(reason = %stop, "no disk queue: what is not acknowledged is lost when this hunter ends");
            Ok(Opened { durability: Durability::Memory, queue: None, account: None })
        }
    }
}

/// A live hunter without a queue says what a kill cost where a directory was named for it; a file can be read again.
fn in_memory(config: &HuntConfig) -> Option<Account> {
    let base = config.hunter.disk_buffer.dir.as_ref().filter(|_| config.capture.is_live())?;
    let opened = spool::lock(base, &config.id).map_err(std::io::Error::other).and_then(|disk| {
        let (file, last, runs) = StateFile::open(&disk, &config.id)?;
        Ok((file.holding(disk), last, runs))
    });
    account(opened, |_, _| 0)
}

/// No start fails for it.
fn account(
    opened: std::io::Result<(StateFile, LastRun, Vec<RunRecord>)>,
    found: impl Fn(Epoch, BatchSeq) -> u64,
) -> Option<Account> {
    let (file, last, runs) = match opened {
        Ok(opened) => opened,
        Err(e) => {
            tracing::warn!(error = %e, "should this hunter be killed, what it loses is not known: its state cannot be written down");
            return None;
        }
    };
    let now = clock::wall().as_nanos();
    Some(Account::new(file, Before::of(&last, found, now, hunter::booted_ns(now)), runs))
}

/// What is asked for, and whether it must be had.
pub(super) fn asked(config: &HuntConfig) -> (Durability, bool) {
    let hunter = &config.hunter;
    let offline = !config.capture.is_live();
    match hunter.durability {
        Asked::Memory => (Durability::Memory, true),
        Asked::Spill => (Durability::Spill, true),
        Asked::Wal => (Durability::Wal, true),
        Asked::Auto if hunter.disk_buffer.enabled => (Durability::Spill, true),
        // a file is its own disk queue
        Asked::Auto if offline => (Durability::Memory, true),
        Asked::Auto if config.mode == Mode::Voip => (Durability::Wal, false),
        Asked::Auto => (Durability::Spill, false),
    }
}

fn open(config: &HuntConfig, durability: Durability, offline: bool) -> Result<Queue<Disk>, Stop> {
    let Some(base) = &config.spool_dir else {
        return Err(Stop::usage(
            "no directory for the disk queue: neither HOME nor STATE_DIRECTORY is set; use --disk-buffer-dir",
        ));
    };
    let buffer = &config.hunter.disk_buffer;
    let when_full = match buffer.when_full {
        WhenFull::Auto if !offline => SpoolFull::DropOldest,
        WhenFull::DropOldest => SpoolFull::DropOldest,
        WhenFull::Auto | WhenFull::DropNewest | WhenFull::Block => SpoolFull::Refuse,
    };
    let (sync_after, sync_bytes) = sync(durability);
    queue(
        base,
        SpoolConfig {
            hunter_id: config.id.clone(),
            max_bytes: buffer.max_mb << 20,
            min_free: min_free(buffer.min_free),
            when_full,
            segment_bytes: SEGMENT_BYTES,
            sync_after,
            sync_bytes,
        },
        true,
    )
}

/// Opens a queue below `base`; `durable`: what it confirms survives a loss of power.
pub(super) fn queue(base: &Path, config: SpoolConfig, durable: bool) -> Result<Queue<Disk>, Stop> {
    let disk = spool::lock(base, &config.hunter_id).map_err(failed)?;
    let disk = if durable { disk } else { disk.volatile() };
    Queue::open(disk, config).map_err(failed)
}

fn failed(e: SpoolError) -> Stop {
    match e {
        SpoolError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => Stop::new(Exit::NotFound, e),
        SpoolError::Io { .. } | SpoolError::InUse { .. } | SpoolError::Version { .. } | SpoolError::Foreign { .. } => {
            Stop::new(Exit::Failure, e)
        }
    }
}

/// A reserve as the rooms that write files understand it.
pub(super) const fn min_free(reserve: Reserve) -> MinFree {
    match reserve {
        Reserve::Auto => MinFree { percent: 5, bytes: 1 << 30 },
        Reserve::Percent(percent) => MinFree { percent, bytes: u64::MAX },
        Reserve::Bytes(bytes) => MinFree { percent: 100, bytes },
    }
}

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let Some((command, matches)) = matches.subcommand() else { return Err(Stop::usage("see 'lc spool --help'")) };
    let of_processor = matches.get_one::<String>("role").is_some_and(|role| role == "processor");
    let mut flags = start::flags(matches);
    if of_processor {
        for flag in &mut flags {
            flag.option = of_processor_option(flag.option);
        }
    }
    let started = start::start_with(matches, &flags)?;
    let (merged, drains) = (&started.merged, command == "drain");
    let config = if of_processor {
        merged.upstream_spool(drains, &started.environment)?
    } else {
        merged.spool(drains, &started.environment)?
    };
    let format = merged.settings()?.remote.output_format;
    match command {
        "ls" => list(&config, Look::Ends, format),
        "verify" => list(&config, Look::Whole, format),
        "quarantine" => list(&config, Look::Aside, format),
        "cat" => cat(&config, matches.get_one::<PathBuf>("pcap").map_or(Path::new("-"), PathBuf::as_path)),
        "drain" => runtime::block_on(drain(config)),
        _ => Err(Stop::usage("see 'lc spool --help'")),
    }
}

/// What a flag of these commands means when the queue is a processor's: the road upwards is its own, as are its name and its directories.
fn of_processor_option(option: &'static Opt) -> &'static Opt {
    let Some(key) = option.key.strip_prefix("hunter.") else { return option };
    let road = key.starts_with("tls.") || key == "insecure";
    let section = if road { "processor.upstream" } else { "processor" };
    find_option(&format!("{section}.{key}")).unwrap_or(option)
}

/// Whose a queue is, as its files know it.
fn owner(config: &Config) -> String {
    if config.of_processor { upstream::owner(&config.id) } else { config.id.clone() }
}

/// Its directories: the usual one, and the one beside it where it has gone on there.
fn directories_of(config: &Config) -> Result<Vec<PathBuf>, Stop> {
    let found = spool::directories(&config.spool_dir, &owner(config));
    if found.is_empty() {
        let path = spool::directory(&config.spool_dir, &owner(config));
        let source = std::io::ErrorKind::NotFound.into();
        return Err(failed(SpoolError::Io { doing: "open", path, source }));
    }
    Ok(found)
}

/// The directories to look at: one queue's, or all.
fn directories(config: &Config) -> Result<Vec<PathBuf>, Stop> {
    if config.named {
        return directories_of(config);
    }
    let path = &config.spool_dir;
    let all = std::fs::read_dir(path).map_err(|source| failed(SpoolError::Io { doing: "open", path: path.clone(), source }))?;
    let mut found: Vec<PathBuf> = all.filter_map(Result::ok).map(|e| e.path()).filter(|p| p.is_dir()).collect();
    found.sort();
    Ok(found)
}

/// How closely segments are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// `ls`: where they begin and end.
    Ends,
    /// `verify`: every byte.
    Whole,
    /// `quarantine`: every byte, of those that were put aside.
    Aside,
}

/// Reads a directory. What holds segments of another format is said, and left out until the end of the command.
fn look<E: From<SpoolError>>(
    path: &Path,
    disk: &Disk,
    read: bool,
    other: &mut Option<SpoolError>,
    each: impl FnMut(Item) -> Result<(), E>,
) -> Result<Vec<Listed>, E> {
    if let Some(found) = spool::other(disk)? {
        tracing::warn!(directory = %path.display(), file = %found.name, format = found.version, "left out: this version cannot read it");
        *other = Some(SpoolError::Version { name: found.name, version: found.version });
        return Ok(Vec::new());
    }
    spool::list(disk, read, each)
}

/// The segments. What is damaged among those put aside was counted when they were.
fn list(config: &Config, how: Look, format: OutputFormat) -> Result<Outcome, Stop> {
    let (mut rows, mut json, mut lost, mut other) = (Vec::new(), Vec::new(), 0_u64, None);
    let read = how != Look::Ends;
    for path in directories(config)? {
        let hunter = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut disk = Disk::look(&path).map_err(failed)?;
        if how == Look::Aside {
            let Some(aside) = disk.put_aside().map_err(failed)? else { continue };
            disk = aside;
        }
        for s in look(&path, &disk, read, &mut other, |_| Ok::<_, SpoolError>(())).map_err(failed)? {
            let damaged = s.lost.iter().fold(0_u64, |sum, l| sum.saturating_add(l.range.packets));
            lost = lost.saturating_add(damaged);
            rows.push(row(&hunter, &s, read, damaged));
            json.push(object(&hunter, &s, read, damaged));
        }
    }
    let columns =
        vec!["hunter", "segment", "batches", "packets", "bytes", "created", if read { "damaged packets" } else { "first-last" }];
    Listing { columns, rows, json: json.into() }.print(format)?;
    match other {
        Some(e) => Err(failed(e)),
        None if how == Look::Aside => Ok(Outcome::Done),
        None => Ok(Outcome::of_lost(lost)),
    }
}

fn row(hunter: &str, s: &Listed, read: bool, damaged: u64) -> Vec<String> {
    let created = record::name::utc(crate::packet::Timestamp::from_nanos(s.created_ns));
    let last = if read { damaged.to_string() } else { format!("{}-{}", s.seqs.0, s.seqs.1) };
    vec![
        hunter.to_owned(),
        s.name.clone(),
        s.total.batches.to_string(),
        s.total.packets.to_string(),
        s.bytes.to_string(),
        created,
        last,
    ]
}

fn object(hunter: &str, s: &Listed, read: bool, damaged: u64) -> serde_json::Value {
    serde_json::json!({
        "hunter": hunter, "segment": s.name, "epoch": s.epoch.to_string(), "first_seq": s.seqs.0.0, "last_seq": s.seqs.1.0,
        "batches": s.total.batches, "packets": s.total.packets, "bytes": s.bytes, "created_ns": s.created_ns,
        "damaged_packets": read.then_some(damaged)
    })
}

/// `cat`: what is in it, as a capture file.
fn cat(config: &Config, to: &Path) -> Result<Outcome, Stop> {
    let found = directories_of(config)?;
    let recorded = |e: record::RecordError| Stop::from(anyhow::Error::from(e));
    let mut file = Unified::open(to, None, MinFree::NONE, Vec::new()).map_err(recorded)?;
    let (mut packets, mut listed, mut other) = (0_u64, Vec::new(), None);
    for path in found {
        let disk = Disk::look(&path).map_err(failed)?;
        listed.extend(look(&path, &disk, true, &mut other, |item| {
            packets = packets.saturating_add(u64::from(item.packets));
            write(&mut file, &item)
        })?);
    }
    file.finish().map_err(recorded)?;
    let lost = listed.iter().flat_map(|s| &s.lost).fold(0_u64, |sum, l| sum.saturating_add(l.range.packets));
    tracing::info!(packets, damaged = lost, segments = listed.len(), "written");
    other.map_or(Ok(Outcome::of_lost(lost)), |e| Err(failed(e)))
}

fn write(file: &mut Unified, item: &Item) -> Result<(), Stop> {
    let message = item.bytes.slice(crate::batch::GRPC_PREFIX.min(item.bytes.len())..);
    let view = BatchView::parse(message, &ViewLimits::default()).map_err(|e| Stop::new(Exit::Failure, e))?;
    for p in view.packets() {
        let filters: Vec<&str> = p.context().into_iter().flat_map(|c| c.filter_ids()).collect();
        let origin =
            record::Origin { hunter: view.hunter_id(), interface: p.interface_name().unwrap_or(""), filters: &filters.join(",") };
        let packet = Packet { ts: p.ts(), wire_len: p.wire_len(), link: p.link(), data: p.data(), origin };
        file.write(&packet).map_err(|e| Stop::from(anyhow::Error::from(e)))?;
    }
    Ok(())
}

impl From<SpoolError> for Stop {
    fn from(e: SpoolError) -> Self {
        failed(e)
    }
}

/// `drain`: sends what is in it to a processor.
async fn drain(config: Config) -> Result<Outcome, Stop> {
    directories_of(&config)?;
    let (sync_after, sync_bytes) = sync(Durability::Spill);
    let queue = queue(
        &config.spool_dir,
        SpoolConfig {
            hunter_id: owner(&config),
            max_bytes: u64::MAX,
            min_free: MinFree::NONE,
            when_full: SpoolFull::Refuse,
            segment_bytes: SEGMENT_BYTES,
            sync_after,
            sync_bytes,
        },
        true,
    )?;
    security::warn_about(&config.security, "packets are sent");
    let instance = hunt::instance();
    let uplink = UplinkConfig {
        party: if config.of_processor { Party::Processor } else { Party::Hunter },
        hunter_id: config.id.as_str().into(),
        targets: security::targets(&config.processor_addr)?,
        dialer: security::dialer(&config.security)?,
        connect_timeout: Some(Duration::from_secs(30)),
        drain_timeout: hunt::DRAIN,
        seed: instance,
    };
    let mut signals = Signals::new()?;
    let (end, ending) = hunter::endings();
    end.send_replace(Ending::Drain);
    let drained = signals.during(send(config, queue, uplink, instance, ending), |signal| match signal {
        Signal::Reload => {}
        Signal::Stop | Signal::StopNow => {
            end.send_replace(Ending::Now);
        }
    });
    let left = Box::pin(drained).await?;
    tracing::info!(sent = left.acked_packets, lost = left.dropped(), left = left.on_disk_packets, "drained");
    if left.on_disk_packets > 0 {
        return Err(Stop::new(Exit::Failure, anyhow::anyhow!("{} packets are still in the spool", left.on_disk_packets)));
    }
    Ok(Outcome::of_lost(left.dropped()))
}

/// As the hunter or the processor that it is would.
async fn send(
    config: Config,
    queue: Queue<Disk>,
    uplink: UplinkConfig,
    instance: u64,
    ending: watch::Receiver<Ending>,
) -> Result<BacklogSnapshot, Stop> {
    let room = BacklogConfig::default();
    if config.of_processor {
        let parts = UpstreamParts {
            uplink,
            queue,
            queue_limit: u64::MAX,
            memory: room.max_bytes,
            listen_address: config.listen_addr,
            instance,
        };
        return processor::drain(parts, ending).await.map_err(process::stopped);
    }
    let facts = Facts {
        hostname: config.host,
        interfaces: Vec::new(),
        mode: crate::filter::Mode::Generic,
        max_memory: 0,
        memory_limit: 0,
        instance,
        epochs: Vec::new(),
        earlier: Vec::new(),
    };
    hunter::drain(queue, room, facts, uplink, ending).await.map_err(hunt::stopped)
}
