//! What the parts of a processor share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::counts::Counters;
use super::data::Acks;
use super::filters::Distribution;
use super::ingest::Ingest;
use super::roster::Roster;
use crate::batch::{BatchSeq, BatchView, Epoch};
use crate::net::{PeerInfo, Role};
use crate::packet::Timestamp;
use crate::wire::data::FlowControl;

/// One batch on its way to the record thread.
pub struct Incoming {
    /// Whose.
    pub hunter: Arc<str>,
    /// The names behind its packets' interface indices.
    pub interfaces: Arc<[String]>,
    /// The batch.
    pub view: BatchView,
    /// Its epoch; one of ours for a peer that has none.
    pub epoch: Epoch,
    /// The epoch it announced.
    pub announced: Option<Epoch>,
    /// Its number.
    pub seq: BatchSeq,
    /// Where the acknowledgement goes.
    pub acks: Arc<Acks>,
    /// When it came, by our clock.
    pub received: Timestamp,
    /// Packets before it that will not come.
    pub missing: u64,
}

/// Work for the record thread.
pub enum Job {
    /// Write this.
    Batch(Box<Incoming>),
    /// A hunter said that it stops: its calls will not go on.
    Stopping {
        /// Which.
        hunter: Arc<str>,
    },
}

/// Everything shared.
pub struct Shared {
    /// This processor's name.
    pub id: String,
    /// Whether clients must say who they are: then ids are bound to that.
    pub bound: bool,
    /// Hunters.
    pub roster: Mutex<Roster>,
    /// What arrived and what is stored.
    pub ingest: Ingest,
    /// Filters and their distribution.
    pub filters: Arc<Distribution>,
    /// Packet counters.
    pub counters: Counters,
    /// To the record thread.
    pub jobs: mpsc::Sender<Job>,
    /// Set when data streams are to end.
    pub(super) ending: watch::Sender<bool>,
    /// Set once nobody hands in work any more.
    pub(super) stopping: AtomicBool,
    /// Whether hunters are paused.
    paused: AtomicBool,
    /// Open data streams, to be told of a pause.
    streams: Mutex<Vec<Weak<Acks>>>,
}

impl Shared {
    /// For a processor of this name.
    pub fn new(
        id: String,
        bound: bool,
        max_hunters: usize,
        ingest: Ingest,
        filter_version: u64,
        jobs: mpsc::Sender<Job>,
    ) -> Self {
        Self {
            id,
            bound,
            roster: Mutex::new(Roster::new(max_hunters)),
            ingest,
            filters: Arc::new(Distribution::new(filter_version)),
            counters: Counters::default(),
            jobs,
            ending: watch::Sender::new(false),
            stopping: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            streams: Mutex::default(),
        }
    }

    /// Flow control in force.
    pub fn flow(&self) -> FlowControl {
        if self.paused.load(Ordering::Relaxed) { FlowControl::FlowPause } else { FlowControl::FlowContinue }
    }

    /// Pauses or resumes every hunter; false when that was so already.
    pub fn pause(&self, paused: bool) -> bool {
        let mut streams = self.streams.lock();
        if self.paused.swap(paused, Ordering::Relaxed) == paused {
            return false;
        }
        let flow = if paused { FlowControl::FlowPause } else { FlowControl::FlowResume };
        streams.retain(|s| s.strong_count() > 0);
        for acks in streams.iter().filter_map(Weak::upgrade) {
            acks.tell(super::data::ack(None, BatchSeq(0), flow));
        }
        true
    }

    /// A data stream opened; in a pause it is told of it at once.
    pub(super) fn add_stream(&self, acks: &Arc<Acks>) {
        let mut streams = self.streams.lock();
        streams.retain(|s| s.strong_count() > 0);
        streams.push(Arc::downgrade(acks));
        // under the lock, so that a pause that begins or ends meanwhile is told after this
        if self.paused.load(Ordering::Relaxed) {
            acks.tell(super::data::ack(None, BatchSeq(0), FlowControl::FlowPause));
        }
    }

    /// A hunter's id must be the one of its certificate or key, where these are in use.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn check_identity(&self, peer: Option<&PeerInfo>, hunter: &str) -> Result<(), Status> {
        let identity = peer.and_then(|p| p.identity.as_ref());
        match identity {
            Some(i) if i.role == Role::Hunter && i.id == hunter => Ok(()),
            Some(i) if i.role == Role::Processor => Ok(()),
            Some(i) => Err(Status::permission_denied(format!(
                "this peer is {} '{}', not hunter '{hunter}'; use the certificate issued with: lc certs issue hunter {hunter}",
                i.role, i.id
            ))),
            None if self.bound => Err(Status::permission_denied(format!(
                "the certificate names no hunter; issue one with: lc certs issue hunter {hunter}"
            ))),
            None => Ok(()),
        }
    }
}
