//! What hunters say of themselves, in bytes: it is kept and shown, and it is they who say how long it is.
//!
//! | bound | value | beyond it |
//! |---|---|---|
//! | a registration | 256 KiB | refused, `too_large` |
//! | filters that a hunter cannot apply, of one heartbeat; id and reason of each | 100; 256 bytes each | they are not kept, their texts are cut |
//! | reasons for drops, of one heartbeat; the name of each | 64; 64 bytes | they are not kept |
//! | everything of all hunters | 32 MiB, a sixteenth of `--memory-limit` at most | a registration is refused, `crowded` |
//! | of this, with what heartbeats say | half | what a heartbeat says of filters and drops is not kept, counted |

use crate::wire::management::{HunterHeartbeat, HunterRegistration, HunterStats};

use super::{Hunter, ID_MAX};

/// Bytes of all hunters.
const ALL_MAX: usize = 32 << 20;
/// A hunter beside its texts: its entry, its id as a key and in the filters it holds.
const HUNTER: usize = 1 << 10;
/// A text beside its bytes.
const TEXT: usize = 32;
/// Filters that a hunter could not apply that are kept of one heartbeat: as many as are shown.
const ERRORS: usize = 100;
/// Longest id or reason of one.
const ERROR_TEXT: usize = ID_MAX;
/// Reasons for drops kept of one heartbeat; a hunter of ours has 16.
const DROPS: usize = 64;
/// Longest name of one.
const DROP_TEXT: usize = 64;

/// Bytes that may be kept, where a process may take `limit` (0: nobody has said).
pub(in crate::processor) fn room(limit: u64) -> usize {
    if limit == 0 { ALL_MAX } else { usize::try_from(limit / 16).unwrap_or(ALL_MAX).min(ALL_MAX) }
}

fn texts<'a>(all: impl IntoIterator<Item = &'a String>) -> usize {
    all.into_iter().map(|t| t.len().saturating_add(TEXT)).fold(0, usize::saturating_add)
}

/// What is kept of a registration.
pub(super) fn of_registration(r: &HunterRegistration) -> usize {
    let single = texts([&r.hunter_id, &r.hostname, &r.version]);
    let types = r.capabilities.as_ref().map_or(0, |c| texts(&c.filter_types));
    // the id is a key in further tables
    let ids = r.hunter_id.len().saturating_mul(4);
    [HUNTER, single, types, texts(&r.interfaces), ids].into_iter().fold(0, usize::saturating_add)
}

/// What is kept of heartbeats.
fn of_heartbeats(stats: &HunterStats, errors: &[(String, String)]) -> usize {
    texts(stats.drops.keys()).saturating_add(errors.iter().map(|(id, why)| texts([id, why])).fold(0, usize::saturating_add))
}

impl Hunter {
    /// Bytes kept of it.
    pub(super) fn weight(&self) -> usize {
        of_registration(&self.registration).saturating_add(of_heartbeats(&self.stats, &self.filter_errors))
    }

    /// Keeps what a heartbeat says of packets and filters, within `room` bytes for texts; false when there is not room for all of them.
    pub(super) fn keep(&mut self, beat: &mut HunterHeartbeat, room: usize) -> bool {
        let mut stats = beat.stats.take().unwrap_or_else(|| std::mem::take(&mut self.stats));
        let all = stats.drops.len();
        stats.drops.retain(|reason, _| reason.len() <= DROP_TEXT);
        if stats.drops.len() > DROPS {
            stats.drops.clear();
        }
        let mut kept = stats.drops.len() == all;
        let mut errors: Vec<(String, String)> = std::mem::take(&mut beat.filter_errors)
            .into_iter()
            .take(ERRORS)
            .map(|e| (cut(e.id, ERROR_TEXT), cut(e.reason, ERROR_TEXT)))
            .collect();
        if of_heartbeats(&stats, &errors) > room {
            stats.drops.clear();
            errors.clear();
            kept = false;
        }
        (self.stats, self.filter_errors) = (stats, errors);
        kept
    }
}

fn cut(mut text: String, max: usize) -> String {
    text.truncate((0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    text.shrink_to_fit();
    text
}
