//! Whose a data stream is, and whose each batch on it: a hunter's stream carries that hunter's batches, a processor's those of every hunter
//! below it, each with the way it came.
//!
//! | checked | against | else |
//! |---|---|---|
//! | the hunter of the first batch, or the processor that passed it on | certificate or key, where they are in use; what is registered | the stream ends |
//! | every batch: the same hunter, or passed on by the same processor | the first | the stream ends |
//! | a stream of the predecessor's processor | its address, from which it registered; its certificate, where they are in use | it is taken for a hunter's |
//! | every batch that was passed on: not by this processor before, and not by too many | its way | the stream ends |

use std::collections::HashMap;
use std::sync::Arc;

use tonic::Status;

use super::counts::Refused;
use super::pace::Pace;
use super::roster::ID_MAX;
use super::shared::Shared;
use crate::batch::{BatchSeq, BatchView, Epoch, HOPS_MAX};
use crate::net::PeerInfo;
use crate::telemetry::{Said, clock};

/// Largest batch of a hunter that speaks our extensions, with room for what is declared beside its packets.
const BATCH_MAX: usize = (4 << 20) + (64 << 10);
/// Largest message of a hunter of the predecessor.
const OLD_BATCH_MAX: usize = 10 << 20;
/// Room for what processors on the way add.
const ADDED_MAX: usize = 128 << 10;
/// Largest message of anybody.
pub(super) const MESSAGE_MAX: usize = OLD_BATCH_MAX + ADDED_MAX;
/// Hunters remembered per stream of a processor; with more, they are looked at anew.
const HUNTERS: usize = 10_000;
/// Bytes of their names and of those of their interfaces, likewise: three interfaces of each.
const HUNTER_BYTES: usize = 2 << 20;
/// A name beside its bytes.
const NAME: usize = 32;

/// Why a stream ends, and what it is told.
pub(super) type Refusal = (Refused, Status);

/// Who a stream belongs to, once its first batch has said so.
pub(super) struct Feed {
    shared: Arc<Shared>,
    from: From,
    /// Largest message it may send.
    pub(super) message_max: usize,
}

enum From {
    Hunter {
        named: Named,
        /// For a peer without epochs: one of ours.
        own_epoch: Epoch,
        pace: Arc<Pace>,
    },
    Processor {
        id: String,
        hunters: Known,
    },
    /// One of the predecessor: its batches are numbered by their hunters' connections to it, which say nothing here.
    OldProcessor {
        id: String,
        hunters: HashMap<Box<str>, Counted>,
    },
}

/// A hunter of a processor of the predecessor: its batches are numbered as they come.
struct Counted {
    hunter: Arc<str>,
    epoch: Epoch,
    last: u64,
}

/// Hunters whose batches came on one stream.
#[derive(Default)]
struct Known {
    hunters: HashMap<Box<str>, Named>,
    bytes: usize,
}

/// A hunter, and the names behind its packets' interface indices.
#[derive(Clone)]
struct Named {
    hunter: Arc<str>,
    interfaces: Arc<[String]>,
}

/// Whose a batch is.
pub(super) struct Whose {
    pub(super) hunter: Arc<str>,
    pub(super) interfaces: Arc<[String]>,
    /// The epoch by which it is recognised.
    pub(super) epoch: Epoch,
    /// The same, where the sender knows it.
    pub(super) announced: Option<Epoch>,
    /// Its number there.
    pub(super) seq: BatchSeq,
}

impl Drop for Feed {
    /// However it ends: also when its connection is gone and nobody asks for its end.
    fn drop(&mut self) {
        match &self.from {
            From::Hunter { named, .. } => self.shared.roster.lock().stream(&named.hunter, false),
            From::Processor { id, .. } | From::OldProcessor { id, .. } => {
                // it may have been forgotten
                let _known = self.shared.below.lock().stream(id, false);
            }
        }
    }
}

impl Feed {
    /// By the first batch.
    pub(super) fn open(shared: &Arc<Shared>, peer: Option<&PeerInfo>, view: &BatchView) -> Result<Self, Refusal> {
        if let Some(id) = view.path().last() {
            return Self::of_processor(shared, peer, id);
        }
        if let Some(feed) = Self::of_old_processor(shared, peer, view) {
            return Ok(feed);
        }
        let id = view.hunter_id();
        shared.check_identity(peer, id).map_err(|status| (Refused::Foreign, status))?;
        let mut roster = shared.roster.lock();
        let Some(hunter) = roster.get(id) else {
            let text = format!("hunter '{id}' is not registered; call RegisterHunter first");
            return Err((Refused::Unregistered, Status::failed_precondition(text)));
        };
        let interfaces: Arc<[String]> = hunter.registration.interfaces.clone().into();
        let message_max = if hunter.registration.durable_acks { BATCH_MAX } else { OLD_BATCH_MAX };
        let pace = Arc::clone(&hunter.pace);
        roster.stream(id, true);
        let own_epoch = Epoch::starting(clock::wall(), id);
        let from = From::Hunter { named: Named { hunter: Arc::from(id), interfaces }, own_epoch, pace };
        Ok(Self { shared: Arc::clone(shared), from, message_max })
    }

    fn of_processor(shared: &Arc<Shared>, peer: Option<&PeerInfo>, id: &str) -> Result<Self, Refusal> {
        shared.check_processor(peer, id).map_err(|status| (Refused::Foreign, status))?;
        if !shared.below.lock().stream(id, true) {
            let text = format!("processor '{id}' is not registered; call RegisterProcessor first");
            return Err((Refused::Unregistered, Status::failed_precondition(text)));
        }
        let from = From::Processor { id: id.to_owned(), hunters: Known::default() };
        Ok(Self { shared: Arc::clone(shared), from, message_max: MESSAGE_MAX })
    }

    /// A hunter that is not registered, at the address of a processor of the predecessor, is one of that processor's.
    fn of_old_processor(shared: &Arc<Shared>, peer: Option<&PeerInfo>, view: &BatchView) -> Option<Self> {
        if view.epoch().is_some() || shared.roster.lock().get(view.hunter_id()).is_some() {
            return None;
        }
        let mut below = shared.below.lock();
        let id = below.old_at(peer.map(|p| p.remote.ip()))?.to_owned();
        shared.check_processor(peer, &id).ok()?;
        below.stream(&id, true);
        let from = From::OldProcessor { id, hunters: HashMap::new() };
        Some(Self { shared: Arc::clone(shared), from, message_max: MESSAGE_MAX })
    }

    /// A batch of so many bytes was taken. What a processor passes on was read as fast as its own limit lets it.
    pub(super) fn spend(&self, bytes: usize) {
        if let From::Hunter { pace, .. } = &self.from {
            pace.spend(bytes, self.shared.hunter_rates);
        }
    }

    /// Returns when the stream may be read on.
    pub(super) async fn paced(&self) {
        if let From::Hunter { pace, .. } = &self.from {
            pace.wait(&self.shared.rate_waits).await;
        }
    }

    /// Whose stream it is, for logs.
    pub(super) fn id(&self) -> &str {
        match &self.from {
            From::Hunter { named, .. } => &named.hunter,
            From::Processor { id, .. } | From::OldProcessor { id, .. } => id,
        }
    }

    /// Whether this batch may come on this stream, and whose it is. The sender was heard of just now.
    pub(super) fn whose(&mut self, view: &BatchView) -> Result<Whose, Refusal> {
        let now = self.shared.clock.now();
        match &mut self.from {
            From::Hunter { named, own_epoch, .. } => {
                if view.hunter_id() != &*named.hunter || view.is_passed_on() {
                    let text = format!("this stream is hunter '{}'s, not '{}'s", named.hunter, Said(view.hunter_id()));
                    return Err((Refused::Foreign, Status::permission_denied(text)));
                }
                self.shared.roster.lock().heard(&named.hunter, now);
                let announced = view.epoch();
                let Named { hunter, interfaces } = named.clone();
                let epoch = announced.unwrap_or(*own_epoch);
                Ok(Whose { hunter, interfaces, epoch, announced, seq: view.sequence() })
            }
            From::Processor { id, hunters } => {
                check_way(&self.shared.id, id, view)?;
                self.shared.below.lock().heard(id, now);
                let named = (1..=ID_MAX).contains(&view.hunter_id().len());
                let Some((epoch, seq)) = view.key().filter(|_| named) else {
                    let text = format!("a batch that was passed on names no epoch, or no hunter of 1 to {ID_MAX} bytes");
                    return Err((Refused::Malformed, Status::invalid_argument(text)));
                };
                let Named { hunter, interfaces } = hunters.remember(view);
                Ok(Whose { hunter, interfaces, epoch, announced: Some(epoch), seq })
            }
            From::OldProcessor { id, hunters } => {
                let named = (1..=ID_MAX).contains(&view.hunter_id().len());
                if view.epoch().is_some() || view.is_passed_on() || !named {
                    let text = format!("this stream is processor '{id}'s");
                    return Err((Refused::Foreign, Status::permission_denied(text)));
                }
                self.shared.below.lock().heard(id, now);
                if hunters.len() >= HUNTERS {
                    hunters.clear();
                }
                let new = || Counted {
                    hunter: Arc::from(view.hunter_id()),
                    epoch: Epoch::starting(clock::wall(), view.hunter_id()),
                    last: 0,
                };
                let counted = hunters.entry(view.hunter_id().into()).or_insert_with(new);
                counted.last = counted.last.saturating_add(1);
                let (hunter, seq) = (Arc::clone(&counted.hunter), BatchSeq(counted.last));
                Ok(Whose { hunter, interfaces: Arc::default(), epoch: counted.epoch, announced: None, seq })
            }
        }
    }
}

/// A batch goes up a tree: what has been here before, or comes from too deep, shows that there is none.
fn check_way(own: &str, from: &str, view: &BatchView) -> Result<(), Refusal> {
    let way = || view.path().chain([own]).collect::<Vec<_>>().join(" → ");
    if view.path().last() != Some(from) {
        let text = format!("this stream is processor '{from}'s");
        return Err((Refused::Foreign, Status::permission_denied(text)));
    }
    if view.path().any(|p| p == own) {
        let text = format!("processors pass batches on in a loop: {}; let one of them not pass on (--processor)", way());
        return Err((Refused::Loop, Status::failed_precondition(text)));
    }
    if view.path().len() >= HOPS_MAX {
        let text = format!("more than {HOPS_MAX} processors below each other: {}", way());
        return Err((Refused::Depth, Status::failed_precondition(text)));
    }
    Ok(())
}

impl Known {
    fn remember(&mut self, view: &BatchView) -> Named {
        let known = self.hunters.get(view.hunter_id());
        let same = |n: &&Named| n.interfaces.iter().map(String::as_str).eq(view.relay_interfaces());
        if let Some(named) = known.filter(same) {
            return named.clone();
        }
        let interfaces: Arc<[String]> = view.relay_interfaces().map(str::to_owned).collect();
        let named = Named { hunter: Arc::from(view.hunter_id()), interfaces };
        let weight = named.weight();
        if self.hunters.len() >= HUNTERS || self.bytes.saturating_add(weight) > HUNTER_BYTES {
            *self = Self::default();
        }
        if weight <= HUNTER_BYTES {
            let before = self.hunters.insert(view.hunter_id().into(), named.clone());
            self.bytes = self.bytes.saturating_add(weight).saturating_sub(before.map_or(0, |n| n.weight()));
        }
        named
    }
}

impl Named {
    fn weight(&self) -> usize {
        let names = self.interfaces.iter().map(|name| name.len().saturating_add(NAME)).fold(0, usize::saturating_add);
        // its id is a key, too
        self.hunter.len().saturating_add(NAME).saturating_mul(2).saturating_add(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ViewLimits;
    use crate::wire::data::{BatchRelay, PacketBatch};
    use prost::Message;

    fn passed_on(hunter: &str, interfaces: &[String]) -> BatchView {
        let relay = BatchRelay { path: vec!["west".to_owned()], interfaces: interfaces.to_vec(), ..BatchRelay::default() };
        let batch = PacketBatch { hunter_id: hunter.to_owned(), relay: Some(relay), ..PacketBatch::default() };
        BatchView::parse(batch.encode_to_vec().into(), &ViewLimits::default()).unwrap()
    }

    #[test]
    fn what_a_stream_remembers_of_hunters_is_bounded_in_bytes() {
        let mut known = Known::default();
        let (few, many) = (vec!["eth0".to_owned(); 3], vec!["x".repeat(1000); 100]);

        let mut most = 0;
        for n in 0..1000 {
            let named = known.remember(&passed_on(&format!("h{n}"), if n % 2 == 0 { &many } else { &few }));
            assert_eq!(named.interfaces.len(), if n % 2 == 0 { 100 } else { 3 });
            let bytes: usize = known.hunters.values().map(Named::weight).sum();
            assert_eq!(bytes, known.bytes);
            most = most.max(bytes);
        }
        assert!((1 << 20..=HUNTER_BYTES).contains(&most), "{most}");

        let whole = known.hunters.len();
        let again = known.remember(&passed_on("h999", &few));
        assert_eq!((known.hunters.len(), again.interfaces.len()), (whole, 3), "it is known");
        let named = known.remember(&passed_on("huge", &["x".repeat(3 << 20)]));
        assert_eq!((known.hunters.contains_key("huge"), named.interfaces.len()), (false, 1));
    }
}
