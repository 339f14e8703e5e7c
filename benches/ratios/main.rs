//! `make bench`: what `lc` costs, beside tcpdump and beside itself, as one table of ratios.
//!
//! Makes its own traffic files, keeps them in the page cache, and measures in turns, so that whatever else the machine does
//! meets both sides alike. A ratio is the median of several rounds; absolute figures hold for this machine and this minute.
//!
//! | variable | |
//! |---|---|
//! | `BENCH_ROWS` | only the rows whose key holds one of these words |
//! | `BENCH_MB` | size of the traffic files (512) |
//! | `BENCH_ROUNDS` | rounds per row (5) |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::unchecked_time_subtraction,
    reason = "a measuring program: it reads the clock, prints, and stops where something is not as it must be"
)]

#[path = "../../tests/allocations/counting.rs"]
mod counting;
mod drain;
mod growth;
mod inspect;
mod media;
mod monitors;
mod process;
mod push;
mod rows;
#[path = "../../tests/allocations/steady.rs"]
mod steady;
mod stream;
mod table;
mod traffic;

use std::env;
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: counting::Counting<mimalloc::MiMalloc> = counting::Counting(mimalloc::MiMalloc);

/// Where files are and how much is measured.
struct Bench {
    dir: PathBuf,
    bytes: u64,
    rounds: usize,
    wanted: Vec<String>,
}

impl Bench {
    fn wants(&self, key: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|w| key.contains(w.as_str()))
    }
}

fn main() {
    let number = |name: &str, usual: u64| env::var(name).map_or(usual, |v| v.parse().unwrap_or_else(|e| panic!("{name}: {e}")));
    let bench = Bench {
        dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench"),
        bytes: number("BENCH_MB", 512) << 20,
        rounds: number("BENCH_ROUNDS", 5).max(1) as usize,
        wanted: env::var("BENCH_ROWS").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
    };
    let _old = std::fs::remove_dir_all(&bench.dir);
    std::fs::create_dir_all(&bench.dir).unwrap();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{cores} cores: a hunter, a processor and its writer share them. Ratios count; absolute figures are this machine's.\n"
    );
    println!("{}", table::head());
    rows::all(&bench, &mut |row| println!("{row}"));
    std::fs::remove_dir_all(&bench.dir).unwrap();
}
