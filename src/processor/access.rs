//! Who may call what: the table, and the guard that applies it before any service sees a call.
//!
//! ```text
//! request ─▶ method known? ─▶ who is it? (x-api-key, else certificate) ─▶ row and column of the table ─▶ service
//!            no: denied       wrong key: unauthenticated                   no: denied, counted
//! ```
//!
//! Promises: what the table does not name is denied; a call that is denied reaches no service and leaves a count. That a hunter acts in
//! its own name alone is checked where the name is read ([`super::shared::Shared::check_identity`]).
//!
//! To add a method: one row in [`RULES`]; a test holds the table against the protocol files.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::answers::Answers;
use super::intake::{Intake, Metered};
use crate::net::{Grant, Grants, KeyInUse, Keys, PeerIdentity, PeerInfo, Reloading, Role};
use crate::telemetry::{Escaped, Said};

/// The header with a key (reference name).
pub const API_KEY: &str = "x-api-key";

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Named by a certificate or a key.
    Is(Role),
    /// Over TLS, where neither certificates nor keys are demanded.
    Anybody,
}

/// A row: a method and who may call it.
#[derive(Debug)]
pub struct Rule {
    /// Path of the method.
    pub path: &'static str,
    /// Who may.
    pub may: &'static [Who],
}

const HUNTER: Who = Who::Is(Role::Hunter);
const PROCESSOR: Who = Who::Is(Role::Processor);
const ADMIN: Who = Who::Is(Role::Admin);
const SUBSCRIBER: Who = Who::Is(Role::Subscriber);

/// Brings packets: hunters, and processors that pass on what theirs brought. Nobody else, so that no evidence has a feigned origin.
const FEED: &[Who] = &[HUNTER, PROCESSOR, Who::Anybody];
/// Joins as a processor below this one.
const JOIN: &[Who] = &[PROCESSOR, Who::Anybody];
/// Reads which filters there are; a hunter only its own.
const READ_FILTERS: &[Who] = &[HUNTER, PROCESSOR, ADMIN, SUBSCRIBER, Who::Anybody];
/// Looks at nodes and counters.
const LOOK: &[Who] = &[PROCESSOR, ADMIN, SUBSCRIBER, Who::Anybody];
/// Sees packets and calls.
const WATCH: &[Who] = &[ADMIN, SUBSCRIBER];
/// Reads filters of a processor below this one.
const READ_BELOW: &[Who] = &[PROCESSOR, ADMIN, SUBSCRIBER];
/// Changes filters here.
const CHANGE: &[Who] = &[ADMIN];
/// Changes filters of a processor below this one, or passes such an order on.
const CHANGE_BELOW: &[Who] = &[PROCESSOR, ADMIN];

/// The method that hunters stream by.
const DATA_STREAM: &str = "/lippycat.data.DataService/StreamPackets";

/// Answered without end.
const ENDLESS: [&str; 6] = [
    DATA_STREAM,
    "/lippycat.data.DataService/SubscribePackets",
    "/lippycat.data.DataService/SubscribeCorrelatedCalls",
    "/lippycat.management.ManagementService/Heartbeat",
    "/lippycat.management.ManagementService/SubscribeFilters",
    "/lippycat.management.ManagementService/SubscribeTopology",
];

/// The table. What is not in it is denied.
pub const RULES: &[Rule] = &[
    Rule { path: DATA_STREAM, may: FEED },
    Rule { path: "/lippycat.data.DataService/SubscribePackets", may: WATCH },
    Rule { path: "/lippycat.data.DataService/SubscribeCorrelatedCalls", may: WATCH },
    Rule { path: "/lippycat.management.ManagementService/RegisterHunter", may: FEED },
    Rule { path: "/lippycat.management.ManagementService/RegisterProcessor", may: JOIN },
    Rule { path: "/lippycat.management.ManagementService/Heartbeat", may: FEED },
    Rule { path: "/lippycat.management.ManagementService/GetFilters", may: READ_FILTERS },
    Rule { path: "/lippycat.management.ManagementService/SubscribeFilters", may: FEED },
    Rule { path: "/lippycat.management.ManagementService/GetHunterStatus", may: LOOK },
    Rule { path: "/lippycat.management.ManagementService/UpdateFilter", may: CHANGE },
    Rule { path: "/lippycat.management.ManagementService/DeleteFilter", may: CHANGE },
    Rule { path: "/lippycat.management.ManagementService/ListAvailableHunters", may: LOOK },
    Rule { path: "/lippycat.management.ManagementService/GetTopology", may: LOOK },
    Rule { path: "/lippycat.management.ManagementService/SubscribeTopology", may: LOOK },
    Rule { path: "/lippycat.management.ManagementService/UpdateFilterOnProcessor", may: CHANGE_BELOW },
    Rule { path: "/lippycat.management.ManagementService/DeleteFilterOnProcessor", may: CHANGE_BELOW },
    Rule { path: "/lippycat.management.ManagementService/GetFiltersFromProcessor", may: READ_BELOW },
    Rule { path: "/lippycat.management.ManagementService/RequestAuthToken", may: CHANGE },
];

/// How callers are told apart.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Every client shows a certificate.
    pub certificates: bool,
    /// Keys that stand for a role and an id.
    pub keys: Option<Arc<Reloading<Keys>>>,
    /// What each subscriber may see; without them, everything.
    pub grants: Option<Arc<Reloading<Grants>>>,
    /// What is under way.
    pub intake: Intake,
    /// What is on its way back.
    pub answers: Answers,
    counters: Arc<AccessCounters>,
}

/// Calls that were denied.
#[derive(Debug, Default)]
pub struct AccessCounters {
    unknown_method: AtomicU64,
    wrong_key: AtomicU64,
    nameless: AtomicU64,
    wrong_role: AtomicU64,
    not_granted: AtomicU64,
}

/// Calls that were denied, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessCounts {
    /// The table has no such method.
    pub unknown_method: u64,
    /// A key that is in no file here.
    pub wrong_key: u64,
    /// Nobody said who is calling, and it matters.
    pub nameless: u64,
    /// Not for this role.
    pub wrong_role: u64,
    /// Not for this subscriber.
    pub not_granted: u64,
}

impl AccessCounts {
    /// All of them.
    pub const fn total(&self) -> u64 {
        let of_callers = self.wrong_key.saturating_add(self.nameless).saturating_add(self.wrong_role);
        self.unknown_method.saturating_add(of_callers).saturating_add(self.not_granted)
    }
}

/// Why a call is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Denial {
    UnknownMethod,
    WrongKey,
    Nameless { certificate: bool },
    WrongRole { who: PeerIdentity, rule: &'static [Who], method: String },
}

impl Access {
    /// Clients show certificates (`certificates`), or one of `keys`, or nothing.
    #[must_use]
    pub fn new(certificates: bool, keys: Option<Arc<Reloading<Keys>>>) -> Self {
        Self { certificates, keys, ..Self::default() }
    }

    /// The same, where subscribers see what they are granted.
    #[must_use]
    pub fn granting(self, grants: Option<Arc<Reloading<Grants>>>) -> Self {
        Self { grants, ..self }
    }

    /// Whether whoever calls must say who it is.
    pub const fn is_bound(&self) -> bool {
        self.certificates || self.keys.is_some()
    }

    /// What was denied so far.
    pub fn counts(&self) -> AccessCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        AccessCounts {
            unknown_method: of(&c.unknown_method),
            wrong_key: of(&c.wrong_key),
            nameless: of(&c.nameless),
            wrong_role: of(&c.wrong_role),
            not_granted: of(&c.not_granted),
        }
    }

    /// Whether the call may go on, and in whose name where that is known.
    fn decide(&self, path: &str, peer: Option<&PeerInfo>, key: Option<&[u8]>) -> Result<Option<PeerIdentity>, Denial> {
        let rule = RULES.iter().find(|rule| rule.path == path).ok_or(Denial::UnknownMethod)?;
        let named = match (&self.keys, key) {
            (Some(keys), Some(key)) => Some(keys.fresh().find(key).ok_or(Denial::WrongKey)?),
            _ => peer.and_then(|p| p.identity.clone()),
        };
        match named {
            Some(who) if rule.may.contains(&Who::Is(who.role)) => Ok(Some(who)),
            Some(who) => {
                let method = path.rsplit('/').next().unwrap_or_default().to_owned();
                Err(Denial::WrongRole { who, rule: rule.may, method })
            }
            None if self.is_bound() => Err(Denial::Nameless { certificate: peer.is_some_and(|p| p.certificate) }),
            // in plain text nobody can be told from anybody, and somebody said that this is wanted
            None if peer.is_some_and(|p| !p.tls) || rule.may.contains(&Who::Anybody) => Ok(None),
            None => Err(Denial::Nameless { certificate: peer.is_some_and(|p| p.certificate) }),
        }
    }

    fn refuse(&self, denial: &Denial, path: &str) -> Status {
        let c = &self.counters;
        let (counter, status) = match denial {
            Denial::UnknownMethod => {
                (&c.unknown_method, Status::permission_denied("no such method is served here; unknown methods are denied"))
            }
            Denial::WrongKey => {
                let text =
                    "this API key is not known here; check the file given with --api-key-file, and the processor's --api-keys";
                (&c.wrong_key, Status::unauthenticated(text))
            }
            Denial::Nameless { certificate } => (&c.nameless, Status::unauthenticated(self.who_are_you(*certificate))),
            Denial::WrongRole { who, rule, method } => (&c.wrong_role, Status::permission_denied(not_for(who, rule, method))),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        say_denied(path, &status);
        status
    }

    /// What whoever calls `method` may see; none: everything.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`: a subscriber of whom the file says nothing.
    pub(super) fn grant(&self, peer: Option<&PeerInfo>, method: &str) -> Result<Option<Arc<Grant>>, Status> {
        let who = peer.and_then(|p| p.identity.as_ref()).filter(|who| who.role == Role::Subscriber);
        let Some((grants, who)) = self.grants.as_ref().zip(who) else { return Ok(None) };
        let grant = grants.fresh().find(&who.id).cloned();
        grant.map(Some).ok_or_else(|| self.not_granted(method, &format!("nothing is granted to subscriber '{}'", Said(&who.id))))
    }

    /// Refuses what is not granted.
    pub(super) fn not_granted(&self, method: &str, why: &str) -> Status {
        self.counters.not_granted.fetch_add(1, Ordering::Relaxed);
        let text = format!("{why}; the processor's operator may add it to the file of --subscriber-grants");
        let status = Status::permission_denied(text);
        say_denied(method, &status);
        status
    }

    fn who_are_you(&self, certificate: bool) -> String {
        let means = match (self.certificates, self.keys.is_some()) {
            (false, true) => "give an API key with --api-key-file",
            (true, true) => {
                "give a certificate of `lc certs issue ROLE ID` with --tls-cert and --tls-key, or an API key with --api-key-file"
            }
            (_, false) => "give a certificate of `lc certs issue ROLE ID` with --tls-cert and --tls-key",
        };
        let why = if certificate { "the certificate names no role" } else { "this call needs to know who calls" };
        format!("{why}; {means}")
    }
}

/// One audit line.
fn say_denied(path: &str, status: &Status) {
    tracing::warn!(target: "audit", method = %Escaped(path.as_bytes()), why = status.message(), "call denied");
}

fn not_for(who: &PeerIdentity, rule: &[Who], method: &str) -> String {
    let roles: Vec<&str> = rule.iter().filter_map(|w| if let Who::Is(role) = w { Some(role.name()) } else { None }).collect();
    let first = roles.first().copied().unwrap_or("admin");
    let roles = roles.join(", ");
    format!("{method} is for {roles}, not for the {} '{}'; use what was issued with: lc certs issue {first} ID", who.role, who.id)
}

/// Puts an [`Access`] before services.
#[derive(Clone, Debug)]
pub struct AccessLayer(pub Access);

impl<S> Layer<S> for AccessLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { access: self.0.clone(), inner }
    }
}

/// A service behind an [`Access`]. A call in the name of a key carries that name in its [`PeerInfo`].
#[derive(Clone, Debug)]
pub struct Guard<S> {
    access: Access,
    inner: S,
}

impl<S> Guard<S> {
    /// Counts what of the request is under way.
    fn meter(&self, request: Request<Body>) -> Result<Request<Body>, Status> {
        let Some(peer) = request.extensions().get::<PeerInfo>() else { return Ok(request) };
        let ticket = self.access.intake.enter(peer, request.uri().path() == DATA_STREAM)?;
        Ok(request.map(|body| Body::new(Metered::new(body, ticket))))
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        let peer = request.extensions().get::<PeerInfo>();
        // the key goes no further than here
        let key = request.headers().get(API_KEY).map(http::HeaderValue::as_bytes);
        let who = match self.access.decide(request.uri().path(), peer, key) {
            Ok(who) => who,
            Err(denial) => {
                let status = self.access.refuse(&denial, request.uri().path());
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let is_endless = ENDLESS.contains(&request.uri().path());
        // a call that ends is over before its key is looked at again
        let keys = self.access.keys.as_ref().filter(|_| is_endless);
        let used = keys.zip(key).map(|(keys, key)| KeyInUse::of(keys, key));
        if let Some(peer) = request.extensions_mut().get_mut::<PeerInfo>() {
            peer.identity = who;
            peer.key = used;
        }
        request.headers_mut().remove(API_KEY);
        let peer = request.extensions().get::<PeerInfo>().filter(|_| !is_endless).cloned();
        let request = match self.meter(request) {
            Ok(request) => request,
            Err(status) => return Box::pin(async move { Ok(status.into_http()) }),
        };
        let (answer, answers) = (self.inner.call(request), self.access.answers.clone());
        Box::pin(async move {
            let answer = answer.await?;
            Ok(if let Some(peer) = peer { answers.give(answer, peer).await } else { answer })
        })
    }
}

#[cfg(test)]
mod tests;
