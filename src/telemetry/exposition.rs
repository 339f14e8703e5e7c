//! Figures as Prometheus reads them: the text format, version 0.0.4.
//!
//! Promises: one `HELP` and one `TYPE` line per family, label values escaped, at most [`SERIES_MAX`] series: what is beyond is left out, counted in
//! `lc_metrics_left_out`. Everything is written from figures of one moment, given by the caller: nothing is registered, nothing counted here.

use std::fmt::{Display, Write};

use super::{Histogram, RELOADS, memory};

/// Most series of one answer (reliability limits). A series is a line; a histogram has one for each bucket.
pub const SERIES_MAX: usize = 2000;

/// What a family's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Comes and goes.
    Gauge,
    /// Durations by size.
    Histogram,
}

/// The text, as it grows.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    series: usize,
    left_out: u64,
}

/// One family's samples.
#[derive(Debug)]
pub struct Family<'a> {
    to: &'a mut Exposition,
    name: &'static str,
}

impl Exposition {
    /// What an inspection could not read, by protocol, and what it read up to a bound, by protocol and bound.
    pub fn parsing(
        &mut self,
        errors: impl Iterator<Item = (&'static str, u64)>,
        limits: impl Iterator<Item = ([&'static str; 2], u64)>,
    ) {
        let mut family = self.family("lc_parse_errors_total", Kind::Counter, "What could not be read, by protocol.");
        for (proto, n) in errors {
            family.sample(&[("proto", proto)], n);
        }
        let help = "What was read only up to a bound, by protocol and bound; the packets are kept.";
        let mut family = self.family("lc_parse_limit_total", Kind::Counter, help);
        for ([proto, limit], n) in limits {
            family.sample(&[("proto", proto), ("limit", limit)], n);
        }
    }

    /// Begins a family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // writing to a string does not fail
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { to: self, name }
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(name, Kind::Counter, help).sample(&[], value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// A state that is one of several: 1 for this one, 0 for the others.
    pub fn state(&mut self, name: &'static str, help: &'static str, all: &[&str], now: &str) {
        let mut family = self.family(name, Kind::Gauge, help);
        for state in all {
            family.sample(&[("state", state)], u8::from(*state == now));
        }
    }

    /// What is told of every process: its version and role, its memory, what it has read again.
    pub fn process(&mut self, role: &str) {
        let version = [("version", env!("CARGO_PKG_VERSION")), ("role", role)];
        self.family("lc_build_info", Kind::Gauge, "What runs.").sample(&version, 1);
        let m = memory::read();
        let mut budget = self.family("lc_memory_budget_bytes", Kind::Gauge, "Memory of this process, and what it may take.");
        budget.sample(&[("of", "used")], m.used);
        budget.sample(&[("of", "limit")], m.limit);
        self.gauge(
            "lc_memory_short",
            "Whether nine tenths of it are used: what is idle is forgotten earlier.",
            u8::from(m.short),
        );
        self.counter("lc_memory_short_total", "Times it became short.", m.times);
        let help = "Certificates, keys, filters and log levels that were read again, by whether they could be used.";
        let mut reloads = self.family("lc_config_reload_total", Kind::Counter, help);
        for (result, n) in RELOADS.counts() {
            reloads.sample(&[("result", result)], n);
        }
    }

    /// All of it.
    pub fn finish(mut self) -> String {
        let left_out = self.left_out;
        self.series = 0;
        self.gauge("lc_metrics_left_out", "Series that this answer has no room for.", left_out);
        self.text
    }
}

impl Family<'_> {
    /// One value.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    /// Durations by size.
    pub fn histogram(&mut self, h: &Histogram) {
        for (ms, n) in h.cumulative() {
            let le = format!("{}.{:03}", ms / 1000, ms % 1000);
            self.line("_bucket", &[("le", &le)], n);
        }
        self.line("_bucket", &[("le", "+Inf")], h.count());
        self.line("_sum", &[], h.total().as_secs_f64());
        self.line("_count", &[], h.count());
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let to = &mut *self.to;
        if to.series >= SERIES_MAX.saturating_sub(1) {
            to.left_out = to.left_out.saturating_add(1);
            return;
        }
        to.series = to.series.saturating_add(1);
        to.text.push_str(self.name);
        to.text.push_str(suffix);
        for (n, (label, value)) in labels.iter().enumerate() {
            to.text.push(if n == 0 { '{' } else { ',' });
            to.text.push_str(label);
            to.text.push_str("=\"");
            escape(value, &mut to.text);
            to.text.push('"');
        }
        // writing to a string does not fail
        let _ = writeln!(to.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

fn escape(value: &str, to: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            '\n' => to.push_str("\\n"),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn text_is_as_prometheus_reads_it() {
        let mut x = Exposition::default();
        x.counter("lc_a_total", "How many.", 3);
        x.family("lc_b", Kind::Gauge, "By name.").sample(&[("name", "a\"b\\c\nd"), ("x", "y")], -1);
        x.state("lc_s", "State.", &["on", "off"], "off");
        let mut h = Histogram::default();
        h.take(Duration::from_millis(1500));
        x.family("lc_h_seconds", Kind::Histogram, "Time.").histogram(&h);

        let text = x.finish();

        assert!(text.starts_with("# HELP lc_a_total How many.\n# TYPE lc_a_total counter\nlc_a_total 3\n"), "{text}");
        assert!(text.contains("\nlc_b{name=\"a\\\"b\\\\c\\nd\",x=\"y\"} -1\n"), "{text}");
        assert!(text.contains("\nlc_s{state=\"on\"} 0\nlc_s{state=\"off\"} 1\n"), "{text}");
        assert!(text.contains("_bucket{le=\"1.000\"} 0\nlc_h_seconds_bucket{le=\"2.500\"} 1\n"), "{text}");
        assert!(text.contains("_bucket{le=\"+Inf\"} 1\nlc_h_seconds_sum 1.5\nlc_h_seconds_count 1\n"), "{text}");
    }

    #[test]
    fn series_beyond_the_bound_are_left_out_and_counted() {
        let mut x = Exposition::default();
        let mut family = x.family("lc_hunter_up", Kind::Gauge, "Each.");
        for n in 0..5000 {
            family.sample(&[("hunter", &n.to_string())], 1);
        }

        let text = x.finish();

        assert_eq!(text.lines().filter(|l| !l.starts_with('#')).count(), SERIES_MAX);
        assert!(text.ends_with("lc_metrics_left_out 3001\n"), "{}", text.len());
    }
}
