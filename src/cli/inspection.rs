//! What `lc hunt` and `lc sniff` have in common: from the configuration to an engine, its filters and its source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::capture::{self, CaptureError, FileSource, Libpcap, LiveOptions, LiveSource, Paced, Replay, Speed};
use crate::config::{self, Capture, Filters, Mode, NoFilterPolicy, System, Voip};
use crate::engine::{self, Counters, EngineConfig};
use crate::filter::{self, CompileOptions, Filter, FilterKind, FilterSet, PhonePlan};
use crate::packet::headers::DecodeOptions;
use crate::processor::filters::{FilterFileError, read_file};
use crate::telemetry::{OPERATOR, RELOADS};
use crate::voip::expiry::CallTimes;
use crate::voip::table::{self, TableConfig};

use super::exit::{Exit, Stop};

/// What is looked for, and what with no filter.
pub(super) type Wanted = (Mode, NoFilterPolicy);

/// How an engine is set up.
pub(super) fn engine((mode, policy): Wanted, capture: &Capture, voip: &Voip, system: &System, quality: bool) -> EngineConfig {
    let times = CallTimes { live: capture.is_live(), ..call_times(system) };
    let lookback = usize::try_from(voip.lookback_mb).unwrap_or(usize::MAX).saturating_mul(1 << 20);
    EngineConfig {
        mode: match mode {
            Mode::Generic => engine::Mode::Generic,
            Mode::Voip => engine::Mode::Voip,
        },
        table: TableConfig {
            limits: table::Limits { times, ..table::Limits::default().with_calls(system.max_calls as usize) },
            no_filter: match policy {
                NoFilterPolicy::Allow => table::NoFilterPolicy::Allow,
                NoFilterPolicy::Deny => table::NoFilterPolicy::Deny,
            },
            quality,
            lookback: (voip.lookback, lookback),
            ..TableConfig::default()
        },
        decode: DecodeOptions {
            esp_null: capture.esp_null,
            esp_heuristic: capture.esp_heuristic,
            esp_icv: capture.esp_icv_size,
            ..DecodeOptions::default()
        },
        keep_duplicates: capture.keep_duplicates,
        flows: system.max_flows as usize,
        bounds: engine::Bounds {
            reassembly_bytes: usize::try_from(system.tcp_memory).unwrap_or(usize::MAX),
            ..engine::Bounds::default()
        },
    }
}

/// When a call is over whose end nobody saw; zero is never.
pub(super) fn call_times(system: &System) -> CallTimes {
    let or_never = |time: Duration| if time.is_zero() { Duration::MAX } else { time };
    CallTimes { rtp_idle: or_never(system.rtp_idle), max_age: or_never(system.call_max_age), live: false }
}

/// Engines that run at once: one for files, else one per capture thread.
pub(super) fn engines(capture: &Capture, interfaces: usize) -> u64 {
    if capture.is_live() { (interfaces as u64).saturating_mul(u64::from(capture.threads)).max(1) } else { 1 }
}

/// Bytes of their kernel rings, which count as this process's.
pub(super) fn rings(capture: &Capture, engines: u64) -> u64 {
    if capture.is_live() { engines.saturating_mul(capture.pcap_buffer_size) } else { 0 }
}

/// How filters are compiled for this mode.
pub(super) fn compile_options(mode: Mode, voip: &Voip) -> Result<CompileOptions, Stop> {
    let plan = match voip.phone_country.as_deref() {
        None => PhonePlan::none(),
        Some(country) => {
            let (international, national) = (voip.phone_international_prefix.as_deref(), voip.phone_national_prefix.as_deref());
            PhonePlan::new(country, international, national).map_err(|e| Stop::usage(format!("--phone-country: {e}")))?
        }
    };
    let mode = match mode {
        Mode::Generic => filter::Mode::Generic,
        Mode::Voip => filter::Mode::Voip,
    };
    Ok(CompileOptions { phone: plan, mode, ..CompileOptions::default() })
}

/// The filters named on this machine.
pub(super) fn local_filters(filters: &Filters) -> Result<Vec<Filter>, Stop> {
    let mut all = Vec::new();
    if let Some(path) = &filters.file {
        all.extend(read_file(path)?);
    }
    let named = [
        (FilterKind::SipUser, &filters.sip_user, "sip-user"),
        (FilterKind::PhoneNumber, &filters.phone, "phone"),
        (FilterKind::CallId, &filters.call_id, "call-id"),
    ];
    for (kind, patterns, flag) in named {
        all.extend(patterns.iter().map(|p| Filter::new(format!("{flag}:{p}"), kind, p.clone())));
    }
    Ok(all)
}

/// Compiles local filters; one that cannot be applied is an error, since nobody else would tell.
pub(super) fn compile(filters: &[Filter], options: &CompileOptions) -> Result<Arc<FilterSet>, Stop> {
    let (mut set, mut errors) = FilterSet::compile(filters, options);
    errors.extend(set.compile_bpf(&Libpcap));
    match errors.first() {
        Some(e) => Err(Stop::usage(format!("filter {}: {}", called(filters, &e.id), e.reason))),
        None => Ok(Arc::new(set)),
    }
}

/// A filter in an error: its id, of which that of an option's value holds the value, which is private.
fn called<'a>(filters: &[Filter], id: &'a str) -> &'a str {
    let of_option = |f: &Filter| f.id == id && f.pattern.len() < id.len() && id.ends_with(&f.pattern);
    if filters.iter().any(of_option) { id.split(':').next().unwrap_or(id) } else { id }
}

/// What SIGHUP does to the filters of `--filter-file`: reads them again. The old ones stay when that fails.
pub(super) fn reload_filters(filters: &Filters, options: &CompileOptions) -> Option<(Vec<Filter>, Arc<FilterSet>)> {
    filters.file.as_ref()?;
    let read = local_filters(filters).and_then(|all| compile(&all, options).map(|set| (all, set)));
    match read {
        Ok(read) => {
            RELOADS.succeeded();
            tracing::info!(name: OPERATOR, filters = read.0.len(), "filter file read again");
            Some(read)
        }
        Err(e) => {
            RELOADS.failed();
            tracing::error!(error = %e, "filter file not used; the filters in force stay");
            None
        }
    }
}

/// Opens capture files, at the speed asked for; `-f` and `--sip-port` mean what they mean for interfaces. `None`: told to
/// `stop` while a pipe was waited for.
pub(super) fn open_files(
    filter: Option<&str>,
    capture: &Capture,
    voip: Option<&Voip>,
    stop: &AtomicBool,
) -> Result<Option<Replay>, Stop> {
    let stopping = || stop.load(Ordering::Relaxed);
    let speed = match capture.speed {
        config::Speed::Recorded => Speed::Times(1000),
        config::Speed::Max => Speed::Max,
    };
    let files = match FileSource::open_while(&capture.read, &|| !stopping()) {
        Ok(files) => Paced::new(files, speed),
        Err(_) if stopping() => return Ok(None),
        Err(e) => return Err(source_error(e)),
    };
    Replay::new(files, &expression(filter, voip)).map(Some).map_err(source_error)
}

/// Opens interfaces, one source per capture thread.
pub(super) fn open_interfaces(
    interfaces: &[String],
    filter: Option<&str>,
    capture: &Capture,
    voip: Option<&Voip>,
) -> Result<Vec<LiveSource>, Stop> {
    let options = LiveOptions {
        snaplen: capture.snaplen,
        promiscuous: capture.promiscuous,
        buffer_bytes: u32::try_from(capture.pcap_buffer_size).unwrap_or(u32::MAX),
        filter: expression(filter, voip),
        ..LiveOptions::default()
    };
    capture::open_live(interfaces, usize::from(capture.threads), &options).map_err(source_error)
}

/// The capture filter: the user's, within the ports named.
fn expression(filter: Option<&str>, voip: Option<&Voip>) -> String {
    let user = filter.unwrap_or_default();
    voip.and_then(|v| ports(v, user)).unwrap_or_else(|| user.to_owned())
}

fn ports(voip: &Voip, user: &str) -> Option<String> {
    let rtp: Vec<(u16, u16)> = voip.rtp_port_ranges.iter().map(|r| (r.first, r.last)).collect();
    capture::voip_ports(&voip.sip_ports, &rtp, voip.udp_only, user)
}

impl From<FilterFileError> for Stop {
    fn from(e: FilterFileError) -> Self {
        let exit = match &e {
            FilterFileError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Exit::NotFound,
            FilterFileError::Read { .. } => Exit::Failure,
            FilterFileError::Wrong(_) => Exit::Usage,
        };
        Self::new(exit, e)
    }
}

/// A source's error with the exit code it means.
pub(super) fn source_error(e: CaptureError) -> Stop {
    let missing = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
    let exit = if matches!(&e, CaptureError::NoSuchInterface { .. }) || matches!(&e, CaptureError::Open { io, .. } if missing(io))
    {
        Exit::NotFound
    } else if matches!(&e, CaptureError::Bpf { .. } | CaptureError::Option { .. }) {
        Exit::Usage
    } else {
        Exit::Failure
    };
    Stop::new(exit, e)
}

/// A capture of something else than IP is taken for an idle one otherwise.
pub(super) fn warn_of_foreign_links(c: &Counters) {
    if c.captured > 0 && c.undecodable == c.captured {
        tracing::warn!(
            "not one frame could be read as IP; is it a link type that lc knows (Ethernet, Linux cooked, raw IP, loopback)?"
        );
    }
}
