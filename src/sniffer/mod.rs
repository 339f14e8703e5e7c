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

use parking_lot::Mutex;

use crate::capture::{CaptureError, KernelStats, Outages, Progress, Source};
use crate::engine::{Counters, EngineConfig, Guarded};
use crate::filter::{BpfCompiler, FilterSet};
use crate::flow::PacketTime;
use crate::packet::{Frame, InterfaceId, Timestamp};
use crate::record::dir::MinFree;
use crate::record::readers::Readers;
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
    /// Who may read what is kept.
    pub readers: Readers,
    /// Stop after this many frames.
    pub count: Option<u64>,
    /// Where other filters come from.
    pub renewed: Arc<Renewed>,
    /// Whether memory is short: never for files, whose events do not depend on who else runs.
    pub is_short: fn() -> bool,
}

/// Filters that are to take the place of those in force.
#[derive(Debug, Default)]
pub struct Renewed(Mutex<Option<Arc<FilterSet>>>);

impl Renewed {
    /// They are in force from the next frames on.
    pub fn put(&self, filters: Arc<FilterSet>) {
        *self.0.lock() = Some(filters);
    }

    fn take(&self) -> Option<Arc<FilterSet>> {
        self.0.lock().take()
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// What became of every frame.
    pub counters: Counters,
    /// What the kernel says it saw.
    pub kernel: KernelStats,
    /// Events written.
    pub events: u64,
}

impl Outcome {
    /// Packets that were lost: not delivered by the kernel or the interface, or held for a call and given up for want of room.
    pub fn lost(&self) -> u64 {
        let kernel = self.kernel.kernel_dropped.saturating_add(self.kernel.interface_dropped);
        kernel.saturating_add(self.counters.crowded_out())
    }
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
        Some(path) => Some(Unified::open_for(path, None, config.min_free, Vec::new(), config.readers)?),
        None => None,
    };
    let mut engine = Guarded::new(config.engine, Arc::clone(&config.filters), config.bpf);
    engine.set_filters(&config.filters);
    let mut out = Sink {
        events: BufWriter::with_capacity(64 << 10, events),
        format: config.format,
        places: Vec::new(),
        files: 1,
        unified,
        written: 0,
        failed: None,
    };
    if let Some(ahead) = source.read_ahead() {
        topology::read_ahead(ahead);
    }
    let read = read(&mut engine, source, now, &mut out, stop, (config.count, &config.renewed, config.is_short));
    engine.finish(&mut out);
    out.events.flush()?;
    if let Some(u) = &mut out.unified {
        u.finish()?;
    }
    if let Some(e) = out.failed {
        return Err(e);
    }
    read?;
    Ok(Outcome { counters: engine.counters(), kernel: source.stats(), events: out.written })
}

fn read(
    engine: &mut Guarded,
    source: &mut dyn Source,
    now: &dyn Fn() -> Timestamp,
    out: &mut Sink<'_>,
    stop: &AtomicBool,
    (count, renewed, is_short): (Option<u64>, &Renewed, fn() -> bool),
) -> Result<(), SnifferError> {
    let mut taken = 0_u64;
    // of each file, how many frames it has given; a live source is one file
    let mut given: Vec<u64> = Vec::new();
    let mut next_timers = TIMERS_EVERY;
    let mut time = PacketTime::default();
    let mut outages = Outages::default();
    loop {
        let left = count.map_or(u64::MAX, |n| n.saturating_sub(taken));
        if left == 0 || stop.load(Ordering::Relaxed) || out.failed.is_some() {
            return Ok(());
        }
        if let Some(filters) = renewed.take() {
            engine.set_filters(&filters);
        }
        if let Some(since) = outages.poll(source) {
            engine.note_outage(since, now());
        }
        out.learn(source);
        given.resize(out.files, 0);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(crate::engine::BURST);
        let progress = source.burst(room, &mut |frames| {
            // a live source goes on slice by slice, to the end of its turn
            let left = count.map_or(u64::MAX, |n| n.saturating_sub(taken));
            let frames = frames.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(frames);
            let index = frames.first().and_then(|f| out.place(f.interface)).map_or(0, |p| p.index);
            let before = given.get(index).copied().unwrap_or(0);
            engine.handle_burst(frames, before.wrapping_add(1), out);
            if let Some(n) = given.get_mut(index) {
                *n = before.wrapping_add(frames.len() as u64);
            }
            taken = taken.wrapping_add(frames.len() as u64);
            frames.last().into_iter().for_each(|f| time.note(f.ts));
        });
        let progress = match progress.map_err(|e| outages.take(e, time.now())) {
            Ok(progress) => progress,
            Err(None) => Progress::Idle,
            Err(Some(e)) => return Err(e.into()),
        };
        match progress {
            Progress::End => return Ok(()),
            // a replay that waits for its next frame
            Progress::Frames(0) => out.events.flush()?,
            Progress::Frames(_) if taken < next_timers => {}
            Progress::Frames(_) => {
                next_timers = taken.saturating_add(TIMERS_EVERY);
                engine.set_short(is_short());
                engine.handle_timeout(time.now(), out);
            }
            Progress::Idle => {
                time.advance(now());
                engine.set_short(is_short());
                engine.handle_timeout(time.now(), out);
                out.events.flush()?;
                if let Err(Some(e)) = source.wait(IDLE_WAIT).map_err(|e| outages.take(e, time.now())) {
                    return Err(e.into());
                }
            }
        }
    }
}

/// Where the frames of an interface come from.
struct Whence {
    interface: String,
    /// The file, or the interface again.
    file: String,
    /// Number of the file.
    index: usize,
}

/// The engine's output: events as text, packets into the file.
struct Sink<'a> {
    events: BufWriter<&'a mut dyn Write>,
    format: Format,
    /// By interface.
    places: Vec<Whence>,
    /// Files known.
    files: usize,
    unified: Option<Unified>,
    written: u64,
    failed: Option<SnifferError>,
}

impl Sink<'_> {
    /// Asks the source about interfaces that have come to light.
    fn learn(&mut self, source: &dyn Source) {
        for (n, info) in source.interfaces().iter().enumerate().skip(self.places.len()) {
            let file = u16::try_from(n).ok().and_then(|n| source.file_of(InterfaceId(n)));
            let (index, file) = file.unwrap_or((0, &info.name));
            self.files = self.files.max(index.saturating_add(1));
            self.places.push(Whence { interface: info.name.clone(), file: file.to_owned(), index });
        }
    }

    fn place(&self, interface: InterfaceId) -> Option<&Whence> {
        self.places.get(usize::from(interface.0))
    }
}

impl Output for Sink<'_> {
    fn forward(&mut self, frame: &Frame<'_>, owner: Option<&Owner<'_>>) {
        let Some(file) = self.unified.as_mut().filter(|_| owner.is_none_or(|o| !o.repeat)) else { return };
        let interface = self.places.get(usize::from(frame.interface.0)).map_or("", |p| p.interface.as_str());
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
        let places = &self.places;
        let file = |interface: InterfaceId| places.get(usize::from(interface.0)).map(|p| p.file.as_str());
        self.written = self.written.saturating_add(1);
        if let Err(e) = print::event(&mut self.events, self.format, &event, &file) {
            self.failed.get_or_insert(e.into());
        }
    }

    fn wants_events(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
