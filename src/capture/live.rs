//! Live interfaces through libpcap: one non-blocking handle each, read by `dispatch`, waited for by poll(2).
//!
//! ```text
//! open:  activate ─ link type ─ non-blocking ─ [refuse everything ─ drain ─ count from here ─ filter]
//! run:   wait(descriptors, waker, timeout) ─ dispatch(≤ QUOTA per handle) ─ …
//! gone:  error once, the other interfaces go on ─ recover() by the caller, with back-off ─ a Gap
//! ```
//! Promises: no frame of a filtered handle that the kernel counted goes uncounted here, so that K1 closes at rest;
//! nanosecond kernel timestamps; a wake-up ends every wait. Never immediate mode (it costs a system call per frame here
//! and slows the sender), never a changed filter, no clock: a gap is bounded by the times of the frames around it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::handle::Handle;
use super::{CaptureError, InterfaceInfo, KernelStats, MAX_CAPLEN, Progress, Source, Wake, sys};
use crate::packet::{Frame, InterfaceId, Timestamp};

/// Polls between looks at the interfaces' states where no wait is quiet; a look is two system calls per interface.
const LOOK_EVERY: u32 = 128;

/// Gaps remembered per source; a flapping interface has its oldest gaps forgotten, and counted.
pub const MAX_GAPS: usize = 256;

/// How interfaces are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveOptions {
    /// Bytes kept of each frame, 64 to 262144 (the default: everything).
    pub snaplen: u32,
    /// Also frames for other stations. `any` does not know it.
    pub promiscuous: bool,
    /// Bytes of the kernel's ring, per handle; 1 MiB to 1 GiB, default 16 MiB (64 blocks of 256 KiB).
    pub buffer_bytes: u32,
    /// How long the kernel keeps a frame before handing over a block that is not full; 1 ms to 1 s, default 50 ms: half a
    /// batch's age, and 64 blocks of it outlast a stall of three seconds.
    pub retire: Duration,
    /// The `-f` expression, empty for everything.
    pub filter: String,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            snaplen: MAX_CAPLEN,
            promiscuous: false,
            buffer_bytes: 16 << 20,
            retire: Duration::from_millis(50),
            filter: String::new(),
        }
    }
}

/// Whether an interface delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveState {
    /// Capturing.
    Up,
    /// There, but administratively down; frames come again by themselves when it is up.
    Down,
    /// Vanished, or its handle failed; [`Source::recover`].
    Gone,
}

/// An interface and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceState<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id in frames.
    pub interface: InterfaceId,
    /// Its state.
    pub state: LiveState,
}

/// A time in which an interface did not deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which.
    pub interface: InterfaceId,
    /// The last frame before; `None` when there was none.
    pub after: Option<Timestamp>,
    /// The first frame since; `None` while it lasts.
    pub before: Option<Timestamp>,
}

/// Ends a wait from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<sys::Event>);

impl Waker {
    /// Makes the current or next [`Source::wait`] of its source return [`Wake::Woken`].
    pub fn wake(&self) {
        self.0.notify();
    }
}

/// Frames from one or more interfaces, for one thread.
pub struct LiveSource {
    handles: Vec<Handle>,
    interfaces: Vec<InterfaceInfo>,
    options: Arc<LiveOptions>,
    event: Arc<sys::Event>,
    /// An error that came after frames.
    pending: Option<CaptureError>,
    gaps: Vec<Gap>,
    forgotten_gaps: u64,
    polls: u32,
}

impl LiveSource {
    pub(super) fn new(mut handles: Vec<Handle>, options: Arc<LiveOptions>) -> Result<Self, CaptureError> {
        let mut interfaces = Vec::with_capacity(handles.len());
        for (n, handle) in handles.iter_mut().enumerate() {
            handle.interface = InterfaceId(u16::try_from(n).unwrap_or(u16::MAX));
            interfaces.push(InterfaceInfo { name: handle.name.clone(), link: handle.link, snaplen: handle.snaplen });
        }
        let event = sys::Event::new().map_err(|e| CaptureError::Live { name: names(&interfaces), reason: e.to_string() })?;
        let event = Arc::new(event);
        Ok(Self { handles, interfaces, options, event, pending: None, gaps: Vec::new(), forgotten_gaps: 0, polls: 0 })
    }

    /// What ends a wait from another thread.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.event))
    }

    /// Every interface and whether it delivers.
    pub fn states(&self) -> impl Iterator<Item = InterfaceState<'_>> {
        self.handles.iter().map(|h| InterfaceState { name: &h.name, interface: h.interface, state: h.state })
    }

    /// The times in which interfaces did not deliver, oldest first, at most [`MAX_GAPS`].
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Gaps that were forgotten because there were more.
    pub fn forgotten_gaps(&self) -> u64 {
        self.forgotten_gaps
    }

    fn begin_gap(&mut self, interface: InterfaceId, after: Option<Timestamp>) {
        if self.gaps.iter().any(|g| g.interface == interface && g.before.is_none()) {
            return;
        }
        if self.gaps.len() >= MAX_GAPS {
            self.gaps.remove(0);
            self.forgotten_gaps = self.forgotten_gaps.saturating_add(1);
        }
        self.gaps.push(Gap { interface, after, before: None });
    }

    /// On a quiet wait and now and then: whether every interface is what it was.
    fn look(&mut self) -> Result<(), CaptureError> {
        let mut found = None;
        for n in 0..self.handles.len() {
            let Some(handle) = self.handles.get_mut(n) else { continue };
            if let Err(e) = handle.look() {
                let (interface, last) = (handle.interface, handle.last);
                self.begin_gap(interface, last);
                found = found.or(Some(e));
            }
        }
        found.map_or(Ok(()), Err)
    }
}

impl Source for LiveSource {
    fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        if let Some(e) = self.pending.take() {
            return Err(e);
        }
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(LOOK_EVERY) {
            // An interface that went down says nothing while others are busy.
            self.pending = self.look().err();
        }
        let mut total = 0usize;
        let mut failed: SmallVec<[(InterfaceId, Option<Timestamp>); 4]> = SmallVec::new();
        for handle in &mut self.handles {
            let before = handle.last;
            let result = handle.dispatch(&mut self.gaps, f);
            match result {
                Ok(n) => total = total.saturating_add(n),
                Err(e) => {
                    failed.push((handle.interface, handle.last.or(before)));
                    self.pending = self.pending.take().or(Some(e));
                }
            }
        }
        for (interface, last) in failed {
            self.begin_gap(interface, last);
        }
        match (total, self.pending.take()) {
            (0, Some(e)) => Err(e),
            (0, None) => Ok(Progress::Idle),
            (n, pending) => {
                self.pending = pending;
                Ok(Progress::Frames(n))
            }
        }
    }

    fn burst(&mut self, _max: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        self.poll(&mut |frame| f(&[frame]))
    }

    fn wait(&mut self, timeout: Duration) -> Result<Wake, CaptureError> {
        if self.pending.is_some() {
            return Ok(Wake::Ready);
        }
        let ready = {
            let open = self.handles.iter().filter(|h| h.state == LiveState::Up).filter_map(|h| h.capture.as_ref());
            let fds: SmallVec<[BorrowedFd<'_>; 8]> = open.map(AsFd::as_fd).chain([self.event.as_fd()]).collect();
            sys::wait_readable(&fds, timeout)
        };
        let ready = ready.map_err(|e| CaptureError::Live { name: names(&self.interfaces), reason: e.to_string() })?;
        if self.event.take() {
            return Ok(Wake::Woken);
        }
        if ready {
            return Ok(Wake::Ready);
        }
        self.look()?;
        Ok(Wake::Timeout)
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        &self.interfaces
    }

    fn is_whole(&self) -> bool {
        self.handles.iter().all(|h| h.state == LiveState::Up)
    }

    fn recover(&mut self) -> Result<(), CaptureError> {
        let mut first = None;
        for handle in &mut self.handles {
            let result = match handle.state {
                LiveState::Up => Ok(()),
                LiveState::Down => handle.look().and_then(|()| match handle.state {
                    LiveState::Down => Err(CaptureError::InterfaceDown { name: handle.name.clone() }),
                    LiveState::Up | LiveState::Gone => Ok(()),
                }),
                LiveState::Gone => handle.open_again(&self.options),
            };
            first = first.or(result.err());
        }
        first.map_or(Ok(()), Err)
    }

    fn stats(&mut self) -> KernelStats {
        self.handles.iter_mut().map(Handle::stats).fold(KernelStats::default(), KernelStats::plus)
    }

    fn describe(&self) -> String {
        names(&self.interfaces)
    }
}

fn names(interfaces: &[InterfaceInfo]) -> String {
    let names: Vec<&str> = interfaces.iter().map(|i| i.name.as_str()).collect();
    names.join(", ")
}
