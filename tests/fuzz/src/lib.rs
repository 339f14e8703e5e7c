//! Fuzz targets: `cargo +nightly fuzz run --fuzz-dir tests/fuzz NAME`. What they call is in `entry.rs`, which `tests/it/fuzz_corpora.rs` calls too.

mod entry;
mod oracle;

use std::cell::RefCell;
use std::sync::LazyLock;
use std::time::Instant;

thread_local! {
    static ORACLE: RefCell<oracle::Oracle> = RefCell::default();
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Calls the entry of that name; panics when it takes out of proportion long.
pub fn run(name: &str, data: &[u8]) {
    let (_, entry) = entry::ENTRIES.iter().find(|(n, _)| *n == name).expect("an entry of entry.rs");
    let judged = ORACLE.with_borrow_mut(|oracle| oracle.judge(data.len(), || START.elapsed(), || entry(data)));
    assert!(judged.is_none(), "{judged:?}");
}
