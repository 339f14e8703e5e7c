//! Fuzz targets: `make fuzz`. What they call is in `entry.rs`, which `tests/it/fuzz_corpora.rs` calls too.

#[expect(dead_code, reason = "the replay wants the list of entries; here each is linked alone, so that little is covered in vain")]
mod entry;
mod oracle;

use std::cell::RefCell;

use cpu_time::ThreadTime;

thread_local! {
    static ORACLE: RefCell<oracle::Oracle> = RefCell::default();
}

/// Calls the entry; panics when it takes out of proportion long.
fn judge(entry: entry::Entry, data: &[u8]) {
    // its own time: others may have the processor meanwhile
    let clock = || ThreadTime::now().as_duration();
    let judged = ORACLE.with_borrow_mut(|oracle| oracle.judge(data.len(), clock, || entry(data)));
    assert!(judged.is_none(), "{judged:?}");
}

macro_rules! targets {
    ($($name:ident)*) => { $(
        #[doc = concat!("The fuzz target `", stringify!($name), "`.")]
        pub fn $name(data: &[u8]) {
            judge(entry::$name, data);
        }
    )* };
}

targets!(packet defrag tcp sip sdp rtp ws pcap batch filters bpf spool config engine);
