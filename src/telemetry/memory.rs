//! How much memory this process may take, and takes. One figure for the whole process, so it stands here and is handed to nobody.
//!
//! Above nine tenths of the limit memory is short: tables forget earlier, and a processor asks its hunters to slow down.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::process::resident_bytes;

static LIMIT: AtomicU64 = AtomicU64::new(0);
static SHORT: AtomicBool = AtomicBool::new(false);
/// Times memory became short.
static TIMES: AtomicU64 = AtomicU64::new(0);

/// What is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes resident now.
    pub used: u64,
    /// Bytes it may take; 0: nobody has said.
    pub limit: u64,
    /// Whether it is short.
    pub short: bool,
    /// Times it became so.
    pub times: u64,
}

/// Says how much there is.
pub fn set_limit(bytes: u64) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// Looks at what is taken; call it once a second.
pub fn look() -> Memory {
    let memory = read();
    let short = is_short_at(memory.used, memory.limit, memory.short);
    if short != memory.short {
        SHORT.store(short, Ordering::Relaxed);
        if short {
            TIMES.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(used = memory.used, limit = memory.limit, "memory is short: what is idle is forgotten earlier");
        } else {
            tracing::info!(used = memory.used, limit = memory.limit, "memory is no longer short");
        }
    }
    Memory { short, ..memory }
}

/// Bytes this process may take, 0 when nobody has said; costs nothing.
pub fn limit() -> u64 {
    LIMIT.load(Ordering::Relaxed)
}

/// The figures of this moment.
pub fn read() -> Memory {
    Memory { used: resident_bytes(), limit: limit(), short: is_short(), times: TIMES.load(Ordering::Relaxed) }
}

/// Whether memory was short when somebody last looked; costs nothing.
pub fn is_short() -> bool {
    SHORT.load(Ordering::Relaxed)
}

/// From nine tenths on, until it is below eight.
const fn is_short_at(used: u64, limit: u64, before: bool) -> bool {
    let tenth = limit / 10;
    limit > 0 && used >= tenth.saturating_mul(if before { 8 } else { 9 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_from_nine_tenths_until_it_is_below_eight() {
        let steps = [(89, false), (90, true), (85, true), (80, true), (79, false), (89, false)];
        let mut short = false;
        for (used, expected) in steps {
            short = is_short_at(used, 100, short);
            assert_eq!(short, expected, "{used}");
        }
        assert!(!is_short_at(u64::MAX, 0, false), "nobody has set a limit");
    }
}
