//! The uplink's life: connect, register, stream, and again.
//!
//! ```text
//! dial (control) ─▶ RegisterHunter ─▶ dial (data) ─▶ StreamPackets ┐
//!                                                    SubscribeFilters ├─ the first that ends ends the session
//!                                                    Heartbeat, 5 s ┘
//! ```
//! A session that ends is followed by another after a short, growing, jittered wait; what was not acknowledged is sent again. Capture
//! never waits for any of this. Where it goes is chosen in `addresses`: the operator's processors, and those that they name. From one of the latter it
//! goes back as soon as one of the former takes it: what is under way is acknowledged before, so that nothing is sent to both.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval, sleep, sleep_until, timeout};
use tonic::{Code, Status};

use super::addresses::Address;
use super::backlog::{Backlog, PeerKind};
use super::channel::{Link, connect};
use super::facts::{Control, LinkState};
use super::heartbeat::{beat, say_goodbye};
use super::register::{self, Registered};
use super::stream;
use super::ways::{self, Way, Ways};
use crate::net::{Backoff, DialError, Dialer, Target};
use crate::reason::DropReason;
use crate::telemetry::Said;
use crate::wire::management::management_service_client::ManagementServiceClient;

/// A pause is questioned after this long, and again.
const PROBE: Duration = Duration::from_secs(30);
/// Whether that is due is looked at this often.
const SECOND: Duration = Duration::from_secs(1);
/// Most bytes of one control message: 100 000 filters of some 600 bytes.
const MESSAGE_MAX: usize = 64 << 20;
/// What is under way to a peer is waited for so long before its hunter goes back: the longest commit; then it is sent again.
const HANDOVER_MAX: Duration = Duration::from_secs(5);
/// A session this long counts as success even when there was nothing to acknowledge.
const STEADY: Duration = Duration::from_secs(5);
/// With a spool a stopping hunter waits this long for a processor that is away.
const AWAY_MAX: Duration = Duration::from_secs(1);
/// Patience for the last words of a graceful stop.
pub(super) const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// When the uplink is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Not yet.
    #[default]
    Run,
    /// Once everything is acknowledged.
    Drain,
    /// At once; what is not acknowledged is given up, counted; or left to the spool.
    Now,
}

/// What goes up: one hunter's batches, or those of all hunters of a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Party {
    /// A hunter.
    #[default]
    Hunter,
    /// A processor.
    Processor,
}

/// How an uplink is set up.
pub struct UplinkConfig {
    /// Who registers.
    pub party: Party,
    /// Our name.
    pub hunter_id: Arc<str>,
    /// The operator's own processors, most preferred first.
    pub targets: Vec<Target>,
    /// How they are reached.
    pub dialer: Dialer,
    /// Give up when there is no session for this long, from the start or later; `None`: never.
    pub connect_timeout: Option<Duration>,
    /// How long a drain may go on without an acknowledgement; at most twice this.
    pub drain_timeout: Duration,
    /// Spreads the retries of many hunters.
    pub seed: u64,
}

/// Why an uplink ended early.
#[derive(Debug, Error)]
pub enum UplinkError {
    /// No processor within the time allowed.
    #[error("cannot reach a processor: {0}")]
    CannotConnect(SessionError),
}

/// Why one session ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Reached, but HTTP/2 did not come about.
    #[error("{target}: {why}")]
    Transport {
        /// Where.
        target: String,
        /// Why.
        why: String,
    },
    /// It has not said anything by the time we must give up.
    #[error("{target}: no answer in time; check that a processor listens there")]
    NoAnswer {
        /// Where.
        target: String,
    },
    /// It does not want us.
    #[error("{target} refuses this {}: {}", if *hunter { "hunter" } else { "processor" }, Said(why))]
    Refused {
        /// Where.
        target: String,
        /// Whether it is a hunter that is refused.
        hunter: bool,
        /// Why.
        why: String,
    },
    /// It has no room for another hunter.
    #[error("{target} has no room for this hunter: {}", Said(why))]
    Full {
        /// Where.
        target: String,
        /// Why.
        why: String,
        /// Others that it names, if it says anything of others.
        peers: Option<Vec<String>>,
    },
    /// A call failed.
    #[error("{target}: {what}: {} ({:?})", Said(status.message()), status.code())]
    Call {
        /// Where.
        target: String,
        /// Which.
        what: &'static str,
        /// What it said.
        status: Box<Status>,
    },
}

impl SessionError {
    /// Whether waiting cannot help while both sides stay as they are.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Self::Dial(e) => e.is_settled(),
            Self::Transport { .. } | Self::NoAnswer { .. } | Self::Refused { .. } | Self::Full { .. } => false,
            Self::Call { status, .. } => {
                matches!(status.code(), Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated)
            }
        }
    }
}

/// Runs until told to end.
///
/// # Errors
/// [`UplinkError::CannotConnect`] when [`UplinkConfig::connect_timeout`] passes without a session.
pub async fn run(
    config: UplinkConfig,
    backlog: Arc<Backlog>,
    control: Arc<dyn Control>,
    ending: watch::Receiver<Ending>,
) -> Result<(), UplinkError> {
    let stalled = stalled(&config, &backlog, ending.clone());
    tokio::select! {
        biased;
        result = sessions(&config, &backlog, &control, &ending) => result,
        () = stalled => {
            control.link(LinkState::Down);
            give_up(&backlog);
            Ok(())
        }
    }
}

/// What was not acknowledged at the end stays on disk where there is a spool; else it is counted.
fn give_up(backlog: &Backlog) {
    if !backlog.is_spooled() {
        let packets = backlog.abandon(DropReason::Shutdown);
        tracing::warn!(packets, "no processor took the rest over in time; given up");
    }
}

/// One session after the other.
async fn sessions(
    config: &UplinkConfig,
    backlog: &Arc<Backlog>,
    control: &Arc<dyn Control>,
    ending: &watch::Receiver<Ending>,
) -> Result<(), UplinkError> {
    let mut backoff = Backoff::new(config.seed);
    let ways = Ways::new(config, control);
    let mut down_since = Instant::now();
    let mut ever_up = false;
    let mut before = None;
    let mut there = None;
    loop {
        let way = match there.take().map_or_else(|| ways.choose(*ending.borrow() != Ending::Run), Ok) {
            Ok(way) => way,
            Err(until) => match wait(backlog, ending, sleep_until(until)).await {
                Some(()) => continue,
                None => return Ok(()),
            },
        };
        let address = way.address.clone();
        let (began, acked) = (Instant::now(), backlog.snapshot().acked_batches);
        let patience = config.connect_timeout.map(|limit| ways.patience(&address, down_since + limit));
        let ended = session(&ways, way, backlog, ending, patience, backoff.random()).await;
        control.link(LinkState::Down);
        let (error, was_up) = match ended {
            Ended::Finished => return Ok(()),
            Ended::Moves(way) => {
                (ever_up, down_since, there) = (true, Instant::now(), Some(*way));
                continue;
            }
            Ended::Lost { error, was_up } => (error, was_up),
        };
        if was_up {
            ever_up = true;
            down_since = Instant::now();
        }
        // A processor that takes registrations but no batches is not called again and again at once.
        if was_up && (began.elapsed() >= STEADY || backlog.snapshot().acked_batches > acked) {
            backoff.reset();
            ways.was_up(&address);
        } else if ways.failed(&address, &error, backoff.random()) {
            backoff.reset();
        }
        if *ending.borrow() == Ending::Now {
            give_up(backlog);
            return Ok(());
        }
        if let Some(limit) = config.connect_timeout
            && (down_since.elapsed() >= limit || (!ever_up && ways.are_settled()))
        {
            // an attempt cut short says less than the one before
            let cut = matches!(error, SessionError::NoAnswer { .. });
            return Err(UplinkError::CannotConnect(before.filter(|_| cut).unwrap_or(error)));
        }
        let pause = backoff.wait();
        tracing::warn!(processor = %address.target, error = %error, retry_ms = pause.as_millis(), "not connected");
        before = Some(error);
        if wait(backlog, ending, sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

/// Waits; none when the hunter has ended meanwhile. To be told to drain ends the wait: the processor may be back since the last attempt.
async fn wait(backlog: &Backlog, ending: &watch::Receiver<Ending>, pause: Sleep) -> Option<()> {
    let (mut draining, mut at_once, mut stopping) = (ending.clone(), ending.clone(), ending.clone());
    let goes_on = *ending.borrow() == Ending::Run;
    tokio::select! {
        biased;
        () = pause => Some(()),
        () = drained(backlog, &mut draining) => None,
        () = told(&mut at_once, Ending::Now) => {
            give_up(backlog);
            None
        }
        () = told(&mut stopping, Ending::Drain), if goes_on => Some(()),
    }
}

enum Ended {
    Finished,
    /// Goes on there, where it is registered already.
    Moves(Box<Way>),
    Lost {
        error: SessionError,
        was_up: bool,
    },
}

async fn session(
    ways: &Ways<'_>,
    way: Way,
    backlog: &Arc<Backlog>,
    ending: &watch::Receiver<Ending>,
    patience: Option<Instant>,
    random: u64,
) -> Ended {
    let (config, control, address) = (ways.config, ways.control, way.address);
    let target = &address.target;
    let (mut draining, mut at_once) = (ending.clone(), ending.clone());
    let setup = tokio::select! {
        biased;
        setup = async {
            match way.up {
                Some(up) => Ok(*up),
                None => set_up(ways, &address, backlog, true).await,
            }
        } => setup,
        () = until(patience) => Err(SessionError::NoAnswer { target: target.to_string() }),
        () = drained(backlog, &mut draining) => return Ended::Finished,
        () = told(&mut at_once, Ending::Now) => Err(stopped(target)),
    };
    let up = match setup {
        Ok(up) => up,
        Err(error) => return Ended::Lost { error, was_up: false },
    };
    let Registered { kind, resume, legacy, filters, .. } = up.registered;
    if let Some(filters) = filters {
        control.apply(filters);
    }
    let connection = backlog.begin(kind, &resume);
    let durable = kind == PeerKind::Extended;
    control.link(LinkState::Up { target: target.to_string(), sockets: up.sockets, durable });
    tracing::info!(processor = %target, delivery = if durable { "acknowledged" } else { "best_effort" }, "connected");
    let call = |what| move |status: Status| SessionError::Call { target: target.to_string(), what, status: Box::new(status) };
    let steady = || ways.steady(&address);
    let mut data = std::pin::pin!(stream::run(up.data, Arc::clone(backlog), connection, kind, legacy));
    let error = tokio::select! {
        biased;
        r = &mut data => match r {
            Ok(()) => None,
            Err(status) => Some(call("StreamPackets")(status)),
        },
        e = beside(up.control.clone(), config, target, control, durable) => Some(e),
        () = question_pauses(backlog) => None,
        () = after(STEADY, &steady) => None,
        () = drained(backlog, &mut draining) => {
            // The stream ends as gRPC ends streams, so that the processor sees no breakage.
            backlog.hang_up();
            let goodbye = async {
                if config.party == Party::Hunter {
                    say_goodbye(up.control, config, control).await;
                }
            };
            let (_ended, ()) = tokio::join!(timeout(GOODBYE_MAX, data), goodbye);
            backlog.end(connection);
            return Ended::Finished;
        }
        () = told(&mut at_once, Ending::Now) => None,
        way = way_back(ways, &address, backlog, random) => {
            // what is under way is acknowledged here
            backlog.hang_up();
            tokio::select! {
                biased;
                _ended = timeout(HANDOVER_MAX, data) => {}
                () = told(&mut at_once, Ending::Now) => {}
            }
            backlog.end(connection);
            tracing::info!(peer = %target, processor = %way.address.target, "it may be used again; this hunter goes back to it");
            return Ended::Moves(Box::new(way));
        }
    };
    backlog.end(connection);
    Ended::Lost { error: error.unwrap_or_else(|| stopped(target)), was_up: true }
}

/// Returns once one of the operator's own processors takes us, while we are at a peer.
async fn way_back(ways: &Ways<'_>, from: &Address, backlog: &Arc<Backlog>, random: u64) -> Way {
    loop {
        until(from.peer.then(|| Instant::now() + ways::back_after(random))).await;
        for address in ways.own_ready() {
            match set_up(ways, &address, backlog, false).await {
                Ok(up) => return Way { address, up: Some(Box::new(up)) },
                Err(error) => {
                    tracing::debug!(processor = %address.target, %error, "not back yet");
                    ways.failed(&address, &error, random);
                }
            }
        }
    }
}

/// Does something after a while, and never returns.
async fn after(pause: Duration, then: &(dyn Fn() + Sync)) {
    sleep(pause).await;
    then();
    std::future::pending::<()>().await;
}

/// Returns at `when`; never, without one.
async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Returns once a drain was asked for and nothing was acknowledged for as long as is waited for.
async fn stalled(config: &UplinkConfig, backlog: &Backlog, mut ending: watch::Receiver<Ending>) {
    let patience = config.drain_timeout;
    told(&mut ending, Ending::Drain).await;
    if backlog.is_spooled() && config.connect_timeout.is_none() {
        return with_a_spool(backlog, patience).await;
    }
    loop {
        let acked = backlog.snapshot().acked_batches;
        sleep(patience).await;
        if !backlog.is_drained() && backlog.snapshot().acked_batches == acked {
            return;
        }
    }
}

/// What is on disk is not lost: a live hunter's stop is short, and shorter when there is nobody to send to.
async fn with_a_spool(backlog: &Backlog, patience: Duration) {
    let began = Instant::now();
    let mut connected = began;
    while began.elapsed() < patience && connected.elapsed() < AWAY_MAX {
        sleep(AWAY_MAX / 10).await;
        if backlog.is_connected() {
            connected = Instant::now();
        }
    }
}

fn stopped(target: &Target) -> SessionError {
    SessionError::Transport { target: target.to_string(), why: "the stream ended".to_owned() }
}

/// Everything a session needs.
pub(super) struct Up {
    control: ManagementServiceClient<Link>,
    data: Link,
    registered: Registered,
    /// Both ends of each.
    sockets: Vec<(SocketAddr, SocketAddr)>,
}

/// With `at_once` the filters are in force as soon as they are known; else they wait for the session.
async fn set_up(ways: &Ways<'_>, address: &Address, backlog: &Backlog, at_once: bool) -> Result<Up, SessionError> {
    let (config, target, dialer) = (ways.config, &address.target, ways.dialer(address));
    let mut sockets = Vec::new();
    ways.attempt(address);
    let channel = connect(dialer, target, &mut sockets).await?;
    let mut client =
        ManagementServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX);
    let registered = match config.party {
        Party::Hunter => register::hunter(&mut client, config, target, backlog, ways.control).await,
        Party::Processor => register::processor(&mut client, config, target, ways.control).await,
    };
    ways.hear(address, &registered);
    let mut registered = registered?;
    if at_once && let Some(filters) = registered.filters.take() {
        ways.control.apply(filters);
    }
    let data = connect(dialer, target, &mut sockets).await?;
    Ok(Up { control: client, data, registered, sockets })
}

/// What runs beside the data stream; returns when it ends.
async fn beside(
    client: ManagementServiceClient<Link>,
    config: &UplinkConfig,
    target: &Target,
    control: &Arc<dyn Control>,
    durable: bool,
) -> SessionError {
    let call = |what| move |status: Status| SessionError::Call { target: target.to_string(), what, status: Box::new(status) };
    match config.party {
        Party::Hunter => tokio::select! {
            e = register::follow_filters(client.clone(), config, control, durable) => call("SubscribeFilters")(e),
            e = beat(client, config, control) => call("Heartbeat")(e),
        },
        Party::Processor => register::again(client, config, target, control, durable).await,
    }
}

/// Never returns; asks through a pause that has lasted for long.
async fn question_pauses(backlog: &Backlog) {
    let mut ticks = interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        poll_fn(|cx| ticks.poll_tick(cx)).await;
        backlog.probe(PROBE);
    }
}

/// Returns once a drain was asked for and is complete.
async fn drained(backlog: &Backlog, ending: &mut watch::Receiver<Ending>) {
    told(ending, Ending::Drain).await;
    backlog.wait_drained().await;
}

/// Returns once `what` (or worse) was asked for; never, if whoever could ask is gone.
async fn told(ending: &mut watch::Receiver<Ending>, what: Ending) {
    let asked = |e: &Ending| match what {
        Ending::Run => true,
        Ending::Drain => *e != Ending::Run,
        Ending::Now => *e == Ending::Now,
    };
    if ending.wait_for(asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}
