//! The first word of a session: who we are, what the peer has of ours, what it wants.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status};

use super::backlog::{Backlog, PeerKind};
use super::channel::Link;
use super::facts::{Control, FilterChange, WireFilter};
use super::legacy::Legacy;
use super::run::{SessionError, UplinkConfig};
use crate::batch::{BatchSeq, Epoch};
use crate::net::Target;
use crate::spool::RunRecord;
use crate::wire::PEERS;
use crate::wire::management::management_service_client::ManagementServiceClient;
use crate::wire::management::{
    Filter, FilterRequest, FilterUpdate, FilterUpdateType, HunterCapabilities, HunterRegistration, ProcessorRegistration,
    ProcessorRegistrationResponse, RunLosses,
};

/// An unary call takes this long at most.
const CALL_MAX: Duration = Duration::from_secs(10);
/// A processor registers again this often: it shows that it lives, and tells who has come below it.
const AGAIN: Duration = Duration::from_secs(5);

/// What a registration led to.
pub(super) struct Registered {
    /// How the peer acknowledges.
    pub(super) kind: PeerKind,
    /// What it has.
    pub(super) resume: Vec<(Epoch, BatchSeq)>,
    /// How batches are rewritten for it, if they must be.
    pub(super) legacy: Option<Legacy>,
    /// Its filters, to be applied.
    pub(super) filters: Option<FilterChange>,
    /// Other processors that it names.
    pub(super) peers: Vec<String>,
}

type Client = ManagementServiceClient<Link>;

async fn called<T>(
    target: &Target,
    what: &'static str,
    call: impl Future<Output = Result<Response<T>, Status>> + Send,
) -> Result<T, SessionError> {
    let answer = timeout(CALL_MAX, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer within 10 s")));
    let failed = |status| SessionError::Call { target: target.to_string(), what, status: Box::new(status) };
    answer.map(Response::into_inner).map_err(failed)
}

/// Registers a hunter.
///
/// # Errors
/// [`SessionError::Full`] when there is no room for it, [`SessionError::Refused`], [`SessionError::Call`].
pub(super) async fn hunter(
    client: &mut Client,
    config: &UplinkConfig,
    target: &Target,
    backlog: &Backlog,
    control: &Arc<dyn Control>,
) -> Result<Registered, SessionError> {
    let facts = control.registration();
    let interfaces: Arc<[String]> = facts.interfaces.clone().into();
    let mut epochs: Vec<u64> = backlog.epochs().into_iter().map(|e| e.0).collect();
    epochs.extend(facts.epochs.iter().map(|e| e.0));
    epochs.sort_unstable();
    epochs.dedup();
    let request = HunterRegistration {
        hunter_id: config.hunter_id.to_string(),
        hostname: facts.hostname,
        interfaces: facts.interfaces,
        version: facts.version,
        capabilities: Some(HunterCapabilities {
            filter_types: facts.filter_types,
            max_buffer_size: facts.max_buffer_bytes,
            gpu_acceleration: false,
            af_xdp: false,
        }),
        epochs,
        durable_acks: true,
        instance: facts.instance,
        earlier: facts.earlier.iter().map(earlier).collect(),
    };
    let answer = called(target, "RegisterHunter", client.register_hunter(request)).await.map_err(full)?;
    if !answer.accepted {
        return Err(SessionError::Refused { target: target.to_string(), hunter: true, why: answer.error });
    }
    let legacy = !answer.durable_acks;
    let filters = answer.filters.into_iter().map(filter).collect();
    Ok(Registered {
        kind: if legacy { PeerKind::Plain } else { PeerKind::Extended },
        resume: answer.acked.iter().map(|p| (Epoch(p.epoch), BatchSeq(p.ack_sequence))).collect(),
        legacy: legacy.then_some(Legacy { interfaces }),
        filters: Some(FilterChange::Replace { filters, version: answer.filter_version, legacy }),
        peers: answer.peers,
    })
}

/// A refusal for want of room says where else there may be some.
fn full(e: SessionError) -> SessionError {
    let SessionError::Call { target, status, .. } = &e else { return e };
    if status.code() != Code::ResourceExhausted {
        return e;
    }
    let named = status.metadata().get(PEERS).and_then(|value| value.to_str().ok());
    let peers = named.map(|named| named.split(',').map(str::to_owned).collect());
    SessionError::Full { target: target.clone(), why: status.message().to_owned(), peers }
}

fn earlier(run: &RunRecord) -> RunLosses {
    RunLosses {
        instance: run.instance,
        began_ns: run.began_ns,
        until_ns: run.written_ns,
        kernel_dropped: run.kernel_dropped,
        interface_dropped: run.interface_dropped,
    }
}

/// Registers a processor. It needs no points to resume from: what is sent twice is recognised by its hunter's epoch and sequence.
pub(super) async fn processor(
    client: &mut Client,
    config: &UplinkConfig,
    target: &Target,
    control: &Arc<dyn Control>,
) -> Result<Registered, SessionError> {
    let answer = ask(client, config, target, control).await?;
    let legacy = !answer.durable_acks;
    Ok(Registered {
        kind: if legacy { PeerKind::Plain } else { PeerKind::Extended },
        resume: Vec::new(),
        legacy: legacy.then(|| Legacy { interfaces: Arc::default() }),
        filters: None,
        peers: Vec::new(),
    })
}

async fn ask(
    client: &mut Client,
    config: &UplinkConfig,
    target: &Target,
    control: &Arc<dyn Control>,
) -> Result<ProcessorRegistrationResponse, SessionError> {
    let facts = control.registration();
    let request = ProcessorRegistration {
        processor_id: config.hunter_id.to_string(),
        listen_address: facts.listen_address,
        version: facts.version,
        upstream_chain: facts.below,
        durable_acks: true,
        instance: facts.instance,
        depth: facts.depth,
    };
    let answer = called(target, "RegisterProcessor", client.register_processor(request)).await?;
    if answer.accepted {
        return Ok(answer);
    }
    Err(SessionError::Refused { target: target.to_string(), hunter: false, why: answer.error })
}

/// Registers a processor again and again, since who is below it changes; returns when that fails. A peer without our extensions is left
/// alone: it would connect back each time.
pub(super) async fn again(
    mut client: Client,
    config: &UplinkConfig,
    target: &Target,
    control: &Arc<dyn Control>,
    durable: bool,
) -> SessionError {
    if !durable {
        std::future::pending::<()>().await;
    }
    loop {
        sleep(AGAIN).await;
        if let Err(e) = ask(&mut client, config, target, control).await {
            return e;
        }
    }
}

fn filter(f: Filter) -> WireFilter {
    WireFilter {
        id: f.id,
        kind: f.r#type,
        pattern: f.pattern,
        target_hunters: f.target_hunters,
        enabled: f.enabled,
        description: f.description,
        media: f.media,
    }
}

/// Follows the processor's filters; returns when the stream ends.
pub(super) async fn follow_filters(
    mut client: Client,
    config: &UplinkConfig,
    control: &Arc<dyn Control>,
    durable: bool,
) -> Status {
    let request = FilterRequest { hunter_id: config.hunter_id.to_string() };
    let mut updates = match client.subscribe_filters(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status,
    };
    loop {
        match updates.message().await {
            Ok(Some(update)) => {
                if let Some(change) = change(update, durable) {
                    control.apply(change);
                }
            }
            Ok(None) => return Status::unavailable("the filter stream ended"),
            Err(status) => return status,
        }
    }
}

fn change(update: FilterUpdate, durable: bool) -> Option<FilterChange> {
    let kind = update.update_type();
    let (version, more) = (update.version, update.more);
    let filter = filter(update.filter?);
    Some(match kind {
        FilterUpdateType::UpdateDelete => FilterChange::Remove { id: filter.id, version, more },
        FilterUpdateType::UpdateAdd | FilterUpdateType::UpdateModify => {
            FilterChange::Put { filter, version, more, legacy: !durable }
        }
    })
}
