//! Fuzz targets: `cargo +nightly fuzz run --fuzz-dir tests/fuzz NAME`. What they call is in `entry.rs`, which `tests/it/fuzz_corpora.rs` calls too.

mod entry;

/// Calls the entry of that name.
pub fn run(name: &str, data: &[u8]) {
    let (_, entry) = entry::ENTRIES.iter().find(|(n, _)| *n == name).expect("an entry of entry.rs");
    entry(data);
}
