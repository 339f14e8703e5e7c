//! A batch as it waits in rings: once, however many want it, with the form that monitors of the predecessor read beside it once one has
//! asked for that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;

use crate::batch::legacy::rewrite;
use crate::batch::{BatchError, BatchView, GRPC_PREFIX, ViewLimits};
use crate::uplink::describe;
use crate::wire::data::{PacketBatch, PacketContext};

/// A batch that was recognised as new.
#[derive(Debug)]
pub(in crate::processor) struct Offered {
    /// Whose.
    pub(super) hunter: Arc<str>,
    /// As it came, without gRPC prefix.
    pub(super) message: Bytes,
    /// How many.
    pub(super) packets: u64,
    /// The names behind its interface indices.
    interfaces: Arc<[String]>,
    /// Whether its packets say less than old monitors want to read.
    terse: bool,
    old: OnceLock<Bytes>,
    held: Held,
}

/// Bytes counted as long as they wait.
#[derive(Debug, Default)]
struct Held {
    all: Arc<AtomicU64>,
    mine: AtomicU64,
}

impl Held {
    fn add(&self, bytes: usize) {
        self.mine.fetch_add(bytes as u64, Ordering::Relaxed);
        self.all.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.mine.get_mut(), Ordering::Relaxed);
    }
}

impl Offered {
    /// Shares the memory of `view`.
    pub(in crate::processor) fn of(view: &BatchView, hunter: &Arc<str>, interfaces: &Arc<[String]>) -> Self {
        Self {
            hunter: Arc::clone(hunter),
            message: view.message().clone(),
            packets: view.len() as u64,
            interfaces: Arc::clone(interfaces),
            terse: view.epoch().is_some(),
            old: OnceLock::new(),
            held: Held::default(),
        }
    }

    /// Counted in `all` from here on.
    pub(super) fn held_in(mut self, all: &Arc<AtomicU64>) -> Self {
        self.held = Held { all: Arc::clone(all), mine: AtomicU64::new(0) };
        self.held.add(self.message.len());
        self
    }

    /// The part of it that is of calls which filters chose that `granted` knows; nothing is left of what is said of others.
    pub(super) fn narrowed(&self, granted: impl Fn(&str) -> bool) -> Option<Self> {
        let mut batch = PacketBatch::decode(self.message.clone()).ok()?;
        for context in &mut batch.contexts {
            if !context.filter_ids.iter().any(|id| granted(id)) {
                // the others keep their numbers
                *context = PacketContext::default();
            }
        }
        let known = |n: u32| {
            let context = n.checked_sub(1).and_then(|n| batch.contexts.get(usize::try_from(n).ok()?));
            context.is_some_and(|context| !context.filter_ids.is_empty())
        };
        let mut packets = std::mem::take(&mut batch.packets);
        packets.retain_mut(|p| {
            p.shared_contexts.retain(|n| known(*n));
            known(p.context) || !p.shared_contexts.is_empty() || p.matched_filter_ids.iter().any(|id| granted(id))
        });
        batch.packets = packets;
        if batch.packets.is_empty() {
            return None;
        }
        Some(Self {
            hunter: Arc::clone(&self.hunter),
            packets: batch.packets.len() as u64,
            message: batch.encode_to_vec().into(),
            interfaces: Arc::clone(&self.interfaces),
            terse: self.terse,
            old: OnceLock::new(),
            held: Held::default(),
        })
    }

    /// Read again: what is looked at by few does not wait in memory.
    pub(super) fn view(&self) -> Result<BatchView, BatchError> {
        BatchView::parse(self.message.clone(), &ViewLimits::default())
    }

    /// The message for monitors that read contexts, or for those that do not; made once.
    pub(super) fn form(&self, contexts: bool) -> Bytes {
        if contexts || !self.terse {
            return self.message.clone();
        }
        let make = || {
            let Ok(view) = self.view() else { return self.message.clone() };
            let made = rewrite(&view, view.sequence(), &self.interfaces, describe).bytes;
            self.held.add(made.len());
            made.slice(GRPC_PREFIX.min(made.len())..)
        };
        self.old.get_or_init(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::CapturedPacket;

    #[test]
    fn what_waits_is_counted_once_with_its_old_form_and_no_longer_when_it_is_gone() {
        let packets = vec![CapturedPacket { data: vec![1; 100].into(), link_type: 1, ..CapturedPacket::default() }];
        let message = PacketBatch { hunter_id: "edge".into(), sequence: 1, epoch: 7, packets, ..PacketBatch::default() };
        let view = BatchView::parse(message.encode_to_vec().into(), &ViewLimits::default()).unwrap();
        let all = Arc::default();
        let batch = Arc::new(Offered::of(&view, &Arc::from("edge"), &Arc::default()).held_in(&all));
        let sealed = batch.message.len() as u64;
        assert_eq!(all.load(Ordering::Relaxed), sealed);

        let second = Arc::clone(&batch);
        assert_eq!((batch.form(true), all.load(Ordering::Relaxed)), (batch.message.clone(), sealed));
        let old = batch.form(false);
        assert_eq!(second.form(false).as_ptr(), old.as_ptr(), "made once");
        assert!(all.load(Ordering::Relaxed) > sealed + 100);
        drop((batch, second));

        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
