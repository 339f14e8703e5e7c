//! The processors below this one: who they are, whether they are there, what is below them. Pure: time is an argument.
//!
//! A processor says, again and again, who is below it; so each knows its whole tree, and the link that would close a loop is refused as soon
//! as it is made. What slips through while two are made at once is found by the way each batch has come (`feed.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use prost::Message;

use crate::batch::HOPS_MAX;
use crate::packet::Timestamp;
use crate::telemetry::is_plain;
use crate::wire::management::ProcessorRegistration;

/// Most processors directly below.
const MAX: usize = 1000;
/// Most processors told further up.
const TOLD_MAX: usize = 1000;
/// Longest id: it stands in logs and batches.
const ID_MAX: usize = 256;
/// Most bytes of a registration.
const REGISTRATION_MAX: usize = 512 << 10;
/// Silent for this long, and without a stream: gone.
const GONE: Duration = Duration::from_secs(30);
/// Another process may take over an id whose owner has been silent for this long.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// Why a processor is not taken.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// No id, or one that would not be fit for logs.
    #[error("a processor needs an id of at most {ID_MAX} bytes without control or invisible characters")]
    BadId,
    /// Larger than anything sensible.
    #[error("a registration of {0} bytes; the limit is {REGISTRATION_MAX}")]
    TooLarge(usize),
    /// Too many.
    #[error("this processor takes {MAX} processors below it at most")]
    Full,
    /// Somebody else has this id.
    #[error("processor id '{id}' is in use by {owner}; give each processor an id of its own (--id)")]
    Taken {
        /// The id.
        id: String,
        /// Whose it is.
        owner: String,
    },
    /// It is its own ancestor.
    #[error(
        "loop: processor '{own}' is below '{id}' already, so '{id}' cannot be below '{own}'; let one of them not pass on (--processor)"
    )]
    Loop {
        /// Who is asked.
        own: String,
        /// Who asks.
        id: String,
    },
    /// Too deep.
    #[error("{0} processors would stand below each other; the limit is {HOPS_MAX}")]
    Depth(u32),
}

/// One processor.
#[derive(Clone, Debug)]
pub struct Lower {
    /// Where it connected from.
    pub remote: Option<SocketAddr>,
    /// It speaks our extensions.
    extended: bool,
    instance: u64,
    below: Vec<String>,
    depth: u32,
    heard: Timestamp,
    streaming: u32,
}

impl Lower {
    /// Whether its data stream is open.
    pub const fn is_streaming(&self) -> bool {
        self.streaming > 0
    }
}

/// All of them, by id.
#[derive(Debug, Default)]
pub struct Below {
    processors: BTreeMap<String, Lower>,
}

impl Below {
    /// Takes a processor, or the same one again; true when it was not known.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn register(
        &mut self,
        own: &str,
        r: ProcessorRegistration,
        remote: Option<SocketAddr>,
        now: Timestamp,
    ) -> Result<bool, Refusal> {
        let id = &r.processor_id;
        if id.is_empty() || id.len() > ID_MAX || !id.chars().all(is_plain) {
            return Err(Refusal::BadId);
        }
        if r.encoded_len() > REGISTRATION_MAX {
            return Err(Refusal::TooLarge(r.encoded_len()));
        }
        if id == own || r.upstream_chain.iter().any(|p| p == own) {
            return Err(Refusal::Loop { own: own.to_owned(), id: id.clone() });
        }
        let depth = r.depth.max(1);
        if usize::try_from(depth).is_ok_and(|d| d >= HOPS_MAX) {
            return Err(Refusal::Depth(depth.saturating_add(1)));
        }
        self.expire(now);
        let known = self.processors.get(id);
        if let Some(old) = known
            && old.instance != r.instance
            && old.streaming > 0
            && now.since(old.heard) < TAKE_OVER
        {
            let owner = old.remote.map_or_else(|| "an unknown address".to_owned(), |a| a.to_string());
            return Err(Refusal::Taken { id: id.clone(), owner });
        }
        let (new, streaming) = (known.is_none(), known.map_or(0, |old| old.streaming));
        if new && self.processors.len() >= MAX {
            return Err(Refusal::Full);
        }
        let lower = Lower {
            remote,
            extended: r.durable_acks,
            instance: r.instance,
            below: r.upstream_chain,
            depth,
            heard: now,
            streaming,
        };
        self.processors.insert(r.processor_id, lower);
        Ok(new)
    }

    /// A data stream opened or closed; false when nobody of this id is registered.
    pub fn stream(&mut self, id: &str, opened: bool) -> bool {
        let Some(p) = self.processors.get_mut(id) else { return false };
        p.streaming = if opened { p.streaming.saturating_add(1) } else { p.streaming.saturating_sub(1) };
        true
    }

    /// The processor of the predecessor at this address: its batches do not say who passes them on.
    pub fn old_at(&self, remote: Option<IpAddr>) -> Option<&str> {
        let at = |p: &&Lower| !p.extended && p.remote.map(|r| r.ip()) == remote;
        self.processors.iter().find(|(_, p)| at(p)).map(|(id, _)| id.as_str())
    }

    /// Heard of just now.
    pub fn heard(&mut self, id: &str, now: Timestamp) {
        if let Some(p) = self.processors.get_mut(id) {
            p.heard = now;
        }
    }

    /// Forgets who is gone.
    pub fn expire(&mut self, now: Timestamp) {
        self.processors.retain(|_, p| p.streaming > 0 || now.since(p.heard) < GONE);
    }

    /// Those directly below, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Lower)> {
        self.processors.iter()
    }

    /// Everybody below, however deep, and how many stand below each other, this processor included.
    pub fn tree(&self) -> (Vec<String>, u32) {
        let all = self.processors.iter().flat_map(|(id, p)| std::iter::once(id).chain(&p.below));
        let all: BTreeSet<&String> = all.collect();
        let depth = self.processors.values().map(|p| p.depth).max().unwrap_or(0);
        (all.into_iter().take(TOLD_MAX).cloned().collect(), depth.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    fn says(id: &str, below: &[&str], depth: u32) -> ProcessorRegistration {
        let upstream_chain = below.iter().map(|p| (*p).to_owned()).collect();
        ProcessorRegistration { processor_id: id.into(), upstream_chain, depth, instance: 1, ..ProcessorRegistration::default() }
    }

    #[test]
    fn the_link_that_closes_a_loop_is_refused_and_says_so() {
        let mut below = Below::default();
        assert_eq!(below.register("centre", says("west", &["farm"], 2), None, NOW), Ok(true));
        assert_eq!(below.register("centre", says("west", &["farm", "barn"], 3), None, NOW), Ok(false));

        assert_eq!(below.tree(), (vec!["barn".into(), "farm".into(), "west".into()], 4));
        for r in [says("centre", &[], 1), says("east", &["a", "centre"], 2)] {
            let e = below.register("centre", r, None, NOW).unwrap_err();
            assert!(e.to_string().starts_with("loop: processor 'centre' is below"), "{e}");
        }
    }

    #[test]
    fn more_than_ten_below_each_other_are_refused() {
        let mut below = Below::default();
        assert_eq!(below.register("top", says("nine", &[], 9), None, NOW), Ok(true));
        assert_eq!(below.tree().1, 10);
        assert_eq!(below.register("top", says("ten", &[], 10), None, NOW), Err(Refusal::Depth(11)));
    }

    #[test]
    fn an_id_belongs_to_one_process_while_its_stream_lives() {
        let mut below = Below::default();
        below.register("top", says("west", &[], 1), None, NOW).unwrap();
        let other = || ProcessorRegistration { instance: 2, ..says("west", &[], 1) };
        assert!(below.stream("west", true) && !below.stream("nobody", true));
        assert!(matches!(below.register("top", other(), None, NOW), Err(Refusal::Taken { .. })));
        let later = NOW.saturating_add(TAKE_OVER);
        assert_eq!(below.register("top", other(), None, later), Ok(false), "silent for long");
        below.stream("west", false);
        below.expire(later.saturating_add(GONE));
        assert_eq!(below.iter().count(), 0);
    }
}
