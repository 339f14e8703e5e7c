//! Time as a test plays it, and threads that take turns, so that what they do depends on nothing but the play.
//!
//! ```text
//!  the test's thread ──[`Actor::act`]──▶ the actor's thread runs until it pauses, waits or ends ──▶ the test's thread goes on
//! ```
//! At any time one thread runs. An actor that pauses is not called before its pause is over; one that waits is called every time.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

use crate::packet::Timestamp;

thread_local! {
    static PART: RefCell<Option<Part>> = const { RefCell::new(None) };
}

#[derive(Clone)]
struct Part {
    play: Arc<Play>,
    turn: Option<Arc<Turn>>,
}

/// A play: what the time is.
#[derive(Debug)]
pub(crate) struct Play(Mutex<Timestamp>);

/// This thread takes part in a play until this is dropped.
pub(crate) struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        PART.take();
    }
}

impl Play {
    pub(crate) fn new(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(Mutex::new(now)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        *self.0.lock()
    }

    pub(crate) fn set(&self, now: Timestamp) {
        *self.0.lock() = now;
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        PART.set(Some(Part { play: Arc::clone(self), turn: None }));
        Entered
    }
}

#[derive(Debug, Default)]
struct Turn {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    acts: bool,
    /// When it wants to act again.
    wakes: Option<Timestamp>,
    killed: bool,
    ended: bool,
}

impl Turn {
    fn await_turn(&self) {
        let mut state = self.state.lock();
        while !state.acts {
            self.moved.wait(&mut state);
        }
        if state.killed {
            drop(state);
            std::panic::resume_unwind(Box::new("the process was ended by its test"));
        }
    }

    fn give_back(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        state.acts = false;
        change(&mut state);
        self.moved.notify_all();
    }
}

/// However its thread ends, the test's thread goes on.
struct Leaves(Arc<Turn>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.give_back(|s| s.ended = true);
    }
}

/// A thread that acts when it is told to.
#[derive(Debug)]
pub(crate) struct Actor {
    play: Arc<Play>,
    turn: Arc<Turn>,
    thread: Option<JoinHandle<()>>,
}

impl Actor {
    /// A thread that has not begun; tokio's clock is that of `runtime` there.
    pub(crate) fn new(play: &Arc<Play>, runtime: Handle, work: impl FnOnce() + Send + 'static) -> Self {
        let (play, turn) = (Arc::clone(play), Arc::new(Turn::default()));
        let part = Part { play: Arc::clone(&play), turn: Some(Arc::clone(&turn)) };
        let leaves = Leaves(Arc::clone(&turn));
        let thread = std::thread::spawn(move || {
            let leaves = leaves;
            let _clock = runtime.enter();
            PART.set(Some(part));
            leaves.0.await_turn();
            work();
        });
        Self { play, turn, thread: Some(thread) }
    }

    /// Lets it act, if it has something to do now.
    pub(crate) fn act(&self) {
        let now = self.play.now();
        let mut state = self.turn.state.lock();
        if state.ended || state.wakes.is_some_and(|at| at > now) {
            return;
        }
        state.acts = true;
        self.turn.moved.notify_all();
        while state.acts && !state.ended {
            self.turn.moved.wait(&mut state);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.turn.state.lock().ended
    }

    /// Ends it where it is; says whether it had ended in a panic of its own.
    pub(crate) fn kill(mut self) -> std::thread::Result<()> {
        {
            let mut state = self.turn.state.lock();
            (state.killed, state.wakes) = (true, None);
        }
        self.act();
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        ended.or_else(|e| if e.downcast_ref::<&str>() == Some(&"the process was ended by its test") { Ok(()) } else { Err(e) })
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let mut state = self.turn.state.lock();
            (state.killed, state.acts, state.wakes) = (true, true, None);
            self.turn.moved.notify_all();
        }
    }
}

/// The wall clock of the play.
pub(super) fn wall() -> Option<Timestamp> {
    PART.with_borrow(|part| part.as_ref().map(|p| p.play.now()))
}

/// Whether this thread takes turns.
pub(super) fn is_on() -> bool {
    PART.with_borrow(|part| part.as_ref().is_some_and(|p| p.turn.is_some()))
}

/// Gives the turn back for so long.
pub(super) fn pause(d: Duration) {
    let Some(Part { play, turn: Some(turn) }) = PART.with_borrow(Clone::clone) else { return };
    let wakes = play.now().saturating_add(d);
    turn.give_back(|s| s.wakes = Some(wakes));
    turn.await_turn();
}
