//! A limit for every place that logs: ten lines in a second, then silence, then how many were not written.
//!
//! What a peer or a packet can cause a million times is one line in the code: it must not fill a disk or hide other lines. Places are
//! told apart by themselves, so nobody has to remember to ask; [`super::Every`] is for those that want to count in their own words.
//! DEBUG and TRACE are not limited, since somebody asked for everything; audit lines are not, since each is a record.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines of one place in one second.
const BURST: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// One place that logs.
#[derive(Debug)]
struct Place {
    level: Level,
    file: &'static str,
    line: u32,
    window: Instant,
    used: u32,
    suppressed: u64,
}

/// What was not written of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    level: Level,
    file: &'static str,
    line: u32,
    suppressed: u64,
}

/// All places; as many as there are in the code.
#[derive(Debug, Default)]
struct Places {
    by_place: HashMap<Identifier, Place>,
    /// Whether anything is suppressed and not told.
    owing: bool,
}

impl Places {
    /// Whether this line is written.
    fn pass(&mut self, of: &'static Metadata<'static>, now: Instant) -> bool {
        let place = self.by_place.entry(of.callsite()).or_insert_with(|| Place {
            level: *of.level(),
            file: of.file().unwrap_or("?"),
            line: of.line().unwrap_or(0),
            window: now,
            used: 0,
            suppressed: 0,
        });
        if now.saturating_duration_since(place.window) >= SECOND {
            place.window = now;
            place.used = 0;
        }
        if place.used < BURST {
            place.used = place.used.saturating_add(1);
            return true;
        }
        place.suppressed = place.suppressed.saturating_add(1);
        self.owing = true;
        false
    }

    /// What was not written in seconds that are over.
    fn owed(&mut self, now: Instant) -> Vec<Told> {
        if !self.owing {
            return Vec::new();
        }
        let mut told = Vec::new();
        self.owing = false;
        for place in self.by_place.values_mut().filter(|p| p.suppressed > 0) {
            if now.saturating_duration_since(place.window) < SECOND && place.used >= BURST {
                self.owing = true;
                continue;
            }
            let suppressed = std::mem::take(&mut place.suppressed);
            told.push(Told { level: place.level, file: place.file, line: place.line, suppressed });
        }
        told.sort_by_key(|t| (t.file, t.line));
        told
    }
}

/// A format whose lines are limited.
#[derive(Debug)]
pub(super) struct Limited<F> {
    inner: F,
    json: bool,
    places: Mutex<Places>,
}

impl<F> Limited<F> {
    pub(super) fn new(inner: F, json: bool) -> Self {
        Self { inner, json, places: Mutex::default() }
    }

    /// In the form of the other lines.
    fn tell(&self, told: Told, writer: &mut Writer<'_>) -> fmt::Result {
        let Told { level, file, line, suppressed } = told;
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        if self.json {
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
        let of = event.metadata();
        let now = Instant::now();
        let (owed, pass) = {
            let mut places = self.places.lock();
            let limited = *of.level() <= Level::INFO && of.target() != "audit";
            (places.owed(now), !limited || places.pass(of, now))
        };
        for told in owed {
            self.tell(told, &mut writer)?;
        }
        if pass { self.inner.format_event(context, writer, event) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::logged;
    use super::*;

    fn flood(n: u32) {
        for i in 0..n {
            tracing::warn!(i, "hostile");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_million_lines_of_one_place_are_ten_and_then_a_number() {
        for json in [false, true] {
            let text = logged(json, || {
                flood(1_000_000);
                tracing::warn!("another place is not held back");
            });
            assert_eq!(text.matches("hostile").count(), 10, "{text}");
            assert_eq!(text.lines().count(), 11);
        }
    }

    #[test]
    fn what_was_not_written_is_told_by_whichever_line_comes_next() {
        let mut places = Places::default();
        let (start, site) = (Instant::now(), callsite());
        let passed = (0..25).filter(|_| places.pass(site, start)).count();

        assert_eq!((passed, places.owed(start).len()), (10, 0), "the second is not over");
        let later = places.owed(start + SECOND);
        assert_eq!((later[0].suppressed, later[0].level), (15, Level::WARN));
        assert!(places.owed(start + SECOND).is_empty() && places.pass(site, start + SECOND));
    }

    #[test]
    fn audit_lines_and_details_are_all_written() {
        let text = logged(true, || {
            for i in 0..50 {
                tracing::info!(target: "audit", i, "who did what");
            }
        });

        assert_eq!(text.lines().count(), 50);
    }

    #[test]
    fn the_number_is_a_line_of_its_own_in_the_form_of_the_others() {
        for json in [false, true] {
            let limited = Limited::new((), json);
            let told = Told { level: Level::WARN, file: "src/a.rs", line: 7, suppressed: 15 };
            let mut text = String::new();
            limited.tell(told, &mut Writer::new(&mut text)).unwrap();

            assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
            if json {
                let line: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!((&line["suppressed"], &line["place"]), (&15.into(), &"src/a.rs:7".into()));
            } else {
                assert!(text.contains("suppressed=15 place=src/a.rs:7"), "{text}");
            }
        }
    }

    /// The metadata of some place.
    fn callsite() -> &'static Metadata<'static> {
        use tracing::callsite::DefaultCallsite;
        static SITE: DefaultCallsite = DefaultCallsite::new(&META);
        static META: Metadata<'static> = Metadata::new(
            "here",
            "test",
            Level::WARN,
            Some("src/a.rs"),
            Some(1),
            None,
            tracing::field::FieldSet::new(&[], Identifier(&SITE)),
            tracing::metadata::Kind::EVENT,
        );
        &META
    }
}
