//! `--memory-limit`: one figure, shared among everything that remembers.
//!
//! ```text
//! limit (half of the container's or the machine's) ─┬─ base: program, threads, buffers of files and sockets
//!                                                   ├─ kernel rings of live capture
//!                                                   ├─ batches not yet acknowledged, a quarter at most
//!                                                   └─ engines: flows, calls, holds, reassembly, fragments, look-back in proportion
//! ```
//! Each part has its usual size where all of them fit, and less where they do not; what a smaller part gives up is counted where it is
//! counted anyway. The limit is not enforced by the system: it is what the parts add up to.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::{Bounds, EngineConfig};
use crate::telemetry;
use crate::voip::table;

/// Less than this is no limit a capture can live in; the option has it as its least.
const LEAST: u64 = 64 << 20;
/// What a process takes before it remembers anything, and what allocators keep back.
const BASE: u64 = 40 << 20;
/// What a call takes in a processor: its inspection (15 KiB with some media), its files' state, its record; while it is read at a start, less.
const CALL: u64 = 24 << 10;
/// A processor knows as many calls whatever is left.
const CALLS_LEAST: usize = 1000;
/// An engine gets this much whatever is left.
const ENGINE_LEAST: u64 = 8 << 20;

/// How much this process may take: what was asked for, else half of what there is.
pub(super) fn limit(asked: u64) -> u64 {
    let limit = match asked {
        0 => available(Path::new("/")).map_or(u64::MAX, |bytes| bytes / 2).max(LEAST),
        asked => asked,
    };
    telemetry::memory::set_limit(limit);
    limit
}

/// The parts of a hunter or a sniffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// All of it.
    pub(super) limit: u64,
    /// Batches not yet acknowledged, in bytes.
    pub(super) batches: u64,
    /// Each engine, in bytes.
    pub(super) engine: u64,
}

impl Shares {
    /// `engines` of them with kernel rings of `rings` bytes in all, and batches of `batches` bytes if they may.
    pub(super) fn of(limit: u64, engines: u64, rings: u64, batches: u64) -> Self {
        let batches = batches.min(limit / 4);
        let rest = limit.saturating_sub(BASE).saturating_sub(rings).saturating_sub(batches);
        Self { limit, batches, engine: rest.checked_div(engines).unwrap_or(rest).max(ENGINE_LEAST) }
    }

    /// An engine that fits; what was asked for beyond the usual and does not is said.
    pub(super) fn fit(self, engine: EngineConfig) -> EngineConfig {
        let fitting = engine.within(usize::try_from(self.engine).unwrap_or(usize::MAX));
        for (flag, asked, fits) in Self::less_than_asked(&engine, &fitting) {
            say_less(flag, asked, fits, self.limit);
        }
        fitting
    }

    /// Which bounds that are above the usual ones became smaller: the flag, what was asked for, what there is.
    fn less_than_asked(asked: &EngineConfig, fitting: &EngineConfig) -> impl Iterator<Item = (&'static str, usize, usize)> {
        let usual = (EngineConfig::usual_flows(), table::Limits::default().calls, Bounds::default().reassembly_bytes);
        let (calls, bytes) = (|e: &EngineConfig| e.table.limits.calls, |e: &EngineConfig| e.bounds.reassembly_bytes);
        [
            ("--max-flows", usual.0, asked.flows, fitting.flows),
            ("--max-calls", usual.1, calls(asked), calls(fitting)),
            ("--tcp-memory", usual.2, bytes(asked), bytes(fitting)),
        ]
        .into_iter()
        .filter(|(_, usual, asked, fits)| asked > usual && fits < asked)
        .map(|(flag, _, asked, fits)| (flag, asked, fits))
    }
}

/// What a processor may know of calls: three eighths, less the base, and a quarter at least. Blocks, batches that wait, batches that are passed on,
/// batches for monitors, unfinished messages and what is not read of connections have an eighth each at most.
pub(super) fn calls_of_a_processor(limit: u64) -> u64 {
    (limit / 8 * 3).saturating_sub(BASE).max(limit / 4)
}

/// Calls with files that it may know: as many as were asked for, or as fit.
pub(super) fn calls_within(limit: u64, asked: usize) -> usize {
    asked.min(usize::try_from(calls_of_a_processor(limit) / CALL).unwrap_or(usize::MAX).max(CALLS_LEAST))
}

/// What was asked for beyond the usual and does not fit is said.
pub(super) fn say_fewer_calls(limit: u64, asked: usize) {
    let fits = calls_within(limit, asked);
    if asked > table::Limits::default().calls && fits < asked {
        say_less("--max-calls", asked, fits, limit);
    }
}

fn say_less(flag: &str, asked: usize, fits: usize, limit: u64) {
    tracing::warn!(asked, fits, limit, "{flag} is more than fits into --memory-limit");
}

/// Memory of the machine, or of the smallest control group around this process.
fn available(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| {
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups
        .lines()
        .flat_map(|line| files_of(root, line))
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.chain(machine).min()
}

/// The limit files of one line of /proc/self/cgroup (cgroups(7)), from the innermost group out.
fn files_of(root: &Path, line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (base, name) = if controllers.is_empty() {
        (root.join("sys/fs/cgroup"), "memory.max")
    } else if controllers.split(',').any(|c| c == "memory") {
        (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    Path::new(group.trim_start_matches('/')).ancestors().map(|group| base.join(group).join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::inspection;
    use crate::config::{Choice, Environment, Merged, Mode, NoFilterPolicy, Sources, System};

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available(root.path())
    }

    #[test]
    fn the_smallest_group_around_the_process_counts() {
        let meminfo = ("proc/meminfo", "MemTotal:       8388608 kB\nMemFree: 1 kB\n");
        let v2 = ("proc/self/cgroup", "0::/system.slice/lc.service\n");

        assert_eq!(machine(&[meminfo]), Some(8 << 30));
        assert_eq!(machine(&[meminfo, v2, ("sys/fs/cgroup/system.slice/lc.service/memory.max", "max\n")]), Some(8 << 30));
        let outer = ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n");
        assert_eq!(machine(&[meminfo, v2, outer]), Some(1 << 30));
        let v1 = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n");
        assert_eq!(machine(&[meminfo, v1, ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "536870912\n")]), Some(512 << 20));
        assert_eq!(machine(&[]), None);
    }

    #[test]
    fn the_parts_never_add_up_to_more_than_the_limit() {
        for limit in [128 << 20, 256 << 20, 1 << 30, 1 << 40] {
            for engines in [1, 4] {
                let rings = engines * (4 << 20);
                let shares = Shares::of(limit, engines, rings, 64 << 20);
                let sum = BASE + rings + shares.batches + shares.engine * engines;
                assert!(sum <= limit, "{shares:?}");
            }
        }
    }

    #[test]
    fn bounds_asked_for_beyond_the_usual_shrink_with_the_others_and_that_is_said() {
        let environment = Environment::from_pairs::<&str, &str>([]);
        let merged = Merged::load(&Sources { file: Choice::Nothing, environment: &environment, flags: &[] }).unwrap();
        let config = merged.sniff(Mode::Voip).unwrap();
        let engine_of =
            |system: &System| inspection::engine((Mode::Voip, NoFilterPolicy::Deny), &config.capture, &config.voip, system, true);
        let usual = engine_of(&config.system);
        let large = System { max_flows: 4 << 20, max_calls: 2_000_000, tcp_memory: 4 << 30, ..config.system.clone() };
        let large = engine_of(&large);
        let said = |asked: &EngineConfig, bytes: u64| {
            let shares = Shares { limit: bytes, batches: 0, engine: bytes };
            let fitting = shares.fit(*asked);
            Shares::less_than_asked(asked, &fitting).map(|(flag, ..)| flag).collect::<Vec<_>>()
        };

        assert_eq!((usual.flows, usual.table.limits.calls), (EngineConfig::usual_flows(), table::Limits::default().calls));
        assert_eq!(usual.table.limits.call_bytes, table::Limits::default().call_bytes);
        assert_eq!(usual.bounds.reassembly_bytes, Bounds::default().reassembly_bytes);
        assert_eq!((large.flows, large.table.limits.calls, large.bounds.reassembly_bytes), (4 << 20, 2_000_000, 4 << 30));
        assert_eq!(large.table.limits.call_bytes, 20 * usual.table.limits.call_bytes);
        assert_eq!(said(&large, 1 << 40), [""; 0]);
        assert_eq!(said(&large, 1 << 30), ["--max-flows", "--max-calls", "--tcp-memory"]);
        assert_eq!(said(&usual, 128 << 20), [""; 0], "where all of it shrinks, nobody asked for more");
    }

    #[test]
    fn a_processor_knows_as_many_calls_as_are_asked_for_or_as_fit() {
        assert_eq!((calls_within(1 << 40, 2_000_000), calls_within(1 << 40, 100)), (2_000_000, 100));
        assert_eq!(calls_within(64 << 20, 2_000_000), CALLS_LEAST);
        let fits = calls_within(8 << 30, 2_000_000);
        assert!((100_000..2_000_000).contains(&fits) && fits as u64 * CALL <= calls_of_a_processor(8 << 30), "{fits}");
    }

    #[test]
    fn what_is_asked_for_is_the_limit_and_else_it_is_half_of_what_there_is() {
        assert_eq!(limit(1 << 30), 1 << 30);
        assert!(limit(0) >= LEAST);
    }
}
