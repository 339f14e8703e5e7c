//! `lc sniff`: the hunter's inspection without a processor. Events go to a writer, matching packets to a file.
//!
//! One source, one engine, one thread: the same input gives the same output, byte for byte.

mod print;
pub mod topology;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::capture::{CaptureError, Progress, Source};
use crate::engine::{Counters, Engine, EngineConfig};
use crate::filter::{BpfCompiler, FilterSet};
use crate::packet::{Frame, Timestamp};
use crate::record::dir::MinFree;
use crate::record::unified::Unified;
use crate::record::{Origin, Packet, RecordError};
use crate::voip::event::Event;
use crate::voip::output::{Output, Owner};

pub use print::Format;

/// How long an idle interface is waited for before timers are served.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// Frames between two looks at the timers.
const TIMERS_EVERY: u64 = 1024;

/// What to do.
pub struct SnifferConfig {
    /// The inspection.
    pub engine: EngineConfig,
    /// Filters; none: everything.
    pub filters: Arc<FilterSet>,
    /// Compiles BPF filters.
    pub bpf: Arc<dyn BpfCompiler + Send + Sync>,
    /// How events are written.
    pub format: Format,
    /// Keep matching packets here.
    pub write: Option<PathBuf>,
    /// Free space to leave there.
    pub min_free: MinFree,
    /// Stop after this many frames.
    pub count: Option<u64>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// What became of every frame.
    pub counters: Counters,
    /// Events written.
    pub events: u64,
}

/// Why it could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SnifferError {
    /// The source.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The file of matching packets.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The writer of events.
    #[error("cannot write events: {0}")]
    Events(#[from] io::Error),
}

/// Runs until the source ends, `stop` is set or the count is reached.
///
/// # Errors
/// What was read before an error is settled and written first.
pub fn run(
    config: SnifferConfig,
    source: &mut dyn Source,
    now: &dyn Fn() -> Timestamp,
    events: &mut dyn Write,
    stop: &AtomicBool,
) -> Result<Outcome, SnifferError> {
    let unified = match &config.write {
        Some(path) => Some(Unified::open(path, None, config.min_free, Vec::new())?),
        None => None,
    };
    let mut engine = Engine::new(config.engine, Arc::clone(&config.filters), config.bpf);
    engine.set_filters(&config.filters);
    let mut out = Sink {
        events: BufWriter::with_capacity(64 << 10, events),
        format: config.format,
        names: Vec::new(),
        unified,
        written: 0,
        failed: None,
    };
    let read = read(&mut engine, source, now, &mut out, stop, config.count);
    engine.finish(&mut out);
    out.events.flush()?;
    if let Some(u) = &mut out.unified {
        u.finish()?;
    }
    if let Some(e) = out.failed {
        return Err(e);
    }
    read?;
    Ok(Outcome { counters: engine.counters(), events: out.written })
}

fn read(
    engine: &mut Engine,
    source: &mut dyn Source,
    now: &dyn Fn() -> Timestamp,
    out: &mut Sink<'_>,
    stop: &AtomicBool,
    count: Option<u64>,
) -> Result<(), SnifferError> {
    let mut number = 1_u64;
    let mut next_timers = TIMERS_EVERY;
    let mut newest = Timestamp::MIN;
    loop {
        let left = count.map_or(u64::MAX, |n| n.saturating_sub(number.saturating_sub(1)));
        if left == 0 || stop.load(Ordering::Relaxed) || out.failed.is_some() {
            return Ok(());
        }
        out.names.clear();
        out.names.extend(source.interfaces().iter().map(|i| i.name.clone()));
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(crate::engine::BURST);
        let progress = source.burst(room, &mut |frames| {
            // a live source goes on slice by slice, to the end of its turn
            let left = count.map_or(u64::MAX, |n| n.saturating_sub(number.saturating_sub(1)));
            let frames = frames.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(frames);
            engine.handle_burst(frames, number, out);
            number = number.wrapping_add(frames.len() as u64);
            newest = frames.last().map_or(newest, |f| newest.max(f.ts));
        })?;
        match progress {
            Progress::End => return Ok(()),
            Progress::Frames(_) if number < next_timers => {}
            Progress::Frames(_) => {
                next_timers = number.saturating_add(TIMERS_EVERY);
                engine.handle_timeout(newest, out);
            }
            Progress::Idle => {
                newest = newest.max(now());
                engine.handle_timeout(newest, out);
                out.events.flush()?;
                source.wait(IDLE_WAIT)?;
            }
        }
    }
}

/// The engine's output: events as text, packets into the file.
struct Sink<'a> {
    events: BufWriter<&'a mut dyn Write>,
    format: Format,
    names: Vec<String>,
    unified: Option<Unified>,
    written: u64,
    failed: Option<SnifferError>,
}

impl Output for Sink<'_> {
    fn forward(&mut self, frame: &Frame<'_>, owner: Option<&Owner<'_>>) {
        let Some(file) = self.unified.as_mut().filter(|_| owner.is_none_or(|o| !o.repeat)) else { return };
        let interface = self.names.get(usize::from(frame.interface.0)).map_or("", String::as_str);
        let packet = Packet {
            ts: frame.ts,
            wire_len: frame.wire_len,
            link: frame.link,
            data: frame.data,
            origin: Origin { hunter: "", interface, filters: "" },
        };
        if let Err(e) = file.write(&packet) {
            self.failed.get_or_insert(e.into());
        }
    }

    fn event(&mut self, event: Event) {
        let names = &self.names;
        let file = |interface: u16| names.get(usize::from(interface)).cloned();
        self.written = self.written.saturating_add(1);
        if let Err(e) = print::event(&mut self.events, self.format, &event, &file) {
            self.failed.get_or_insert(e.into());
        }
    }

    fn wants_events(&self) -> bool {
        true
    }
}
