//! A limit for what is logged: ten lines of a place in a second, twenty of all places, and then how many were not written.
//!
//! What a peer or a packet can cause a million times is one line in the code: it must not fill a disk or hide other lines. Places are
//! told apart by themselves, so nobody has to remember to ask.
//!
//! | lines in any second | of one place | of all |
//! |---|---|---|
//! | DEBUG, TRACE: somebody asked for everything | all | all |
//! | audit at INFO, [`OPERATOR`]: each is a record of what somebody did who may | all | all: whoever causes them is held back there |
//! | ERROR: data was lost, a part stopped | 10 | all |
//! | the rest: what peers and packets can cause, audit of calls denied included | 10 | 20, ten of them first lines of their places |
//! | "lines suppressed" | 1 | 10, the next ones a second later |
//!
//! So a place that wrote nothing in the last second writes one line, whatever floods the others. Monitors come and go with 20 audit lines a
//! second: all that peers can cause is 50.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The name of events that an operator causes: what was started, read again or stopped. No flood of others keeps them back:
/// `info!(name: OPERATOR, "stopping")`.
pub const OPERATOR: &str = "operator";

/// Lines of one place.
const PLACE_MAX: usize = 10;
/// Lines of all places that peers and packets can cause.
const CAUSED_MAX: usize = 20;
/// With so many of these, a place that wrote already is silent: the rest is for first lines.
const AGAIN_MAX: usize = 10;
/// Places that are told of at once.
const TOLD_MAX: usize = 10;
/// What all of these are counted in.
const SECOND: Duration = Duration::from_secs(1);

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Details,
    Record,
    Loss,
    Caused,
}

impl Class {
    fn of(of: &Metadata<'_>) -> Self {
        match *of.level() {
            Level::DEBUG | Level::TRACE => Self::Details,
            Level::INFO if of.target() == "audit" => Self::Record,
            _ if of.name() == OPERATOR => Self::Record,
            Level::ERROR => Self::Loss,
            _ => Self::Caused,
        }
    }
}

/// When the newest lines were written; as many as there may be in a second.
#[derive(Debug, Default)]
struct Recent(VecDeque<Instant>);

impl Recent {
    /// How many there were in the second that ends now.
    fn count(&mut self, now: Instant) -> usize {
        while self.0.front().is_some_and(|then| now.saturating_duration_since(*then) >= SECOND) {
            self.0.pop_front();
        }
        self.0.len()
    }
}

/// One place that logs.
#[derive(Debug)]
struct Place {
    level: Level,
    file: &'static str,
    line: u32,
    recent: Recent,
    suppressed: u64,
    /// When the first of these was.
    since: Option<Instant>,
}

/// What was not written of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    level: Level,
    file: &'static str,
    line: u32,
    suppressed: u64,
}

/// All places; as many as there are in the code.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_place: HashMap<Identifier, Place>,
    caused: Recent,
    /// When those are told of that have something suppressed.
    tell_at: Option<Instant>,
}

impl Places {
    /// Whether this line is written.
    fn pass(&mut self, of: &'static Metadata<'static>, now: Instant) -> bool {
        let class = Class::of(of);
        if matches!(class, Class::Details | Class::Record) {
            return true;
        }
        let place = self.by_place.entry(of.callsite()).or_insert_with(|| Place {
            level: *of.level(),
            file: of.file().unwrap_or("?"),
            line: of.line().unwrap_or(0),
            recent: Recent::default(),
            suppressed: 0,
            since: None,
        });
        let (own, caused) = (place.recent.count(now), self.caused.count(now));
        let max = if own == 0 { CAUSED_MAX } else { AGAIN_MAX };
        let pass = own < PLACE_MAX && (class == Class::Loss || caused < max);
        if pass {
            place.recent.0.push_back(now);
            if class == Class::Caused {
                self.caused.0.push_back(now);
            }
        } else {
            place.suppressed = place.suppressed.saturating_add(1);
            place.since.get_or_insert(now);
            self.tell_at.get_or_insert(now.checked_add(SECOND).unwrap_or(now));
        }
        pass
    }

    /// What was not written, once a second, of those places that have waited for longest.
    fn owed(&mut self, now: Instant) -> Vec<Told> {
        if self.tell_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let told = self.tell(TOLD_MAX);
        self.tell_at = self.by_place.values().any(|place| place.suppressed > 0).then(|| now.checked_add(SECOND)).flatten();
        told
    }

    /// What was not written of so many places, and has not been told.
    pub(super) fn tell(&mut self, max: usize) -> Vec<Told> {
        let mut owing: Vec<&mut Place> = self.by_place.values_mut().filter(|place| place.suppressed > 0).collect();
        owing.sort_by_key(|place| (place.since, place.file, place.line));
        owing
            .into_iter()
            .take(max)
            .map(|place| {
                place.since = None;
                let suppressed = std::mem::take(&mut place.suppressed);
                Told { level: place.level, file: place.file, line: place.line, suppressed }
            })
            .collect()
    }
}

/// A format whose lines are limited.
#[derive(Debug)]
pub(super) struct Limited<F> {
    inner: F,
    json: bool,
    places: Arc<Mutex<Places>>,
}

impl<F> Limited<F> {
    pub(super) const fn new(inner: F, json: bool, places: Arc<Mutex<Places>>) -> Self {
        Self { inner, json, places }
    }
}

impl Told {
    /// In the form of the other lines.
    pub(super) fn write(self, json: bool, writer: &mut Writer<'_>) -> fmt::Result {
        let Self { level, file, line, suppressed } = self;
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        if json {
            let line = serde_json::json!({
                "timestamp": time, "level": level.as_str(), "message": "lines suppressed", "suppressed": suppressed,
                "place": format!("{file}:{line}"), "target": module_path!(),
            });
            writeln!(writer, "{line}")
        } else {
            writeln!(writer, "{time} {level:>5} lines suppressed suppressed={suppressed} place={file}:{line}")
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = Instant::now();
        let (owed, pass) = {
            let mut places = self.places.lock();
            (places.owed(now), places.pass(event.metadata(), now))
        };
        for told in owed {
            told.write(self.json, &mut writer)?;
        }
        if pass { self.inner.format_event(context, writer, event) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
