//! Numbered packets, generated without end: into the pipe of a hunter, whichever is there, or onto its wire.

use std::io::Write;
use std::ops::Range;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use pcap::{Capture, Device};

use super::world;
use crate::numbered_file;

/// Between two handfuls.
const PACE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct State {
    pipe: Option<ChildStdin>,
    next: u64,
    /// What each hunter that is no more had been given.
    ended: Vec<Range<u64>>,
    began: u64,
    /// Somebody listens on the wire.
    heard: bool,
}

/// The generator's thread.
pub(super) struct Feed {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What was generated.
pub(super) struct Generated {
    pub(super) packets: u64,
    pub(super) ended: Vec<Range<u64>>,
}

impl Feed {
    /// For pipes.
    pub(super) fn pipes(handful: u64) -> Self {
        Self::start(move |state, stop| {
            while !stop.load(Ordering::Acquire) {
                std::thread::sleep(PACE);
                // held while it waits for the hunter: one that is killed ends the wait
                let mut s = state.lock();
                let numbers = s.next..s.next + handful;
                let Some(pipe) = s.pipe.as_mut() else { continue };
                let bytes: Vec<u8> = numbers.clone().flat_map(numbered_file::record).collect();
                let sent = pipe.write_all(&bytes);
                s.next = numbers.end;
                if sent.is_err() {
                    s.end();
                }
            }
            state.lock().pipe = None;
        })
    }

    /// For the wire of a namespace.
    pub(super) fn wire(handful: u64, namespace: String) -> Self {
        Self::start(move |state, stop| {
            world::go(&namespace);
            let mut wire = Capture::from_device(Device::from(world::GENERATOR)).unwrap().open().unwrap();
            while !stop.load(Ordering::Acquire) {
                std::thread::sleep(PACE);
                let State { next: from, heard, .. } = *state.lock();
                if !heard {
                    continue;
                }
                (from..from + handful).for_each(|n| wire.sendpacket(numbered_file::sized(n)).unwrap());
                state.lock().next = from + handful;
            }
        })
    }

    fn start(run: impl FnOnce(&Mutex<State>, &AtomicBool) + Send + 'static) -> Self {
        let (state, stop) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let (of, told) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || run(&of, &told));
        Self { state, stop, thread: Some(thread) }
    }

    /// From here on to this hunter.
    pub(super) fn to(&self, mut pipe: ChildStdin) {
        pipe.write_all(&numbered_file::header()).unwrap();
        let mut s = self.state.lock();
        s.end();
        s.began = s.next;
        s.pipe = Some(pipe);
    }

    /// What is on the wire is captured: it may begin.
    pub(super) fn begin(&self) {
        self.state.lock().heard = true;
    }

    /// No more.
    pub(super) fn end(&mut self) -> Generated {
        self.stop.store(true, Ordering::Release);
        self.thread.take().into_iter().for_each(|t| t.join().unwrap());
        let s = self.state.lock();
        Generated { packets: s.next, ended: s.ended.clone() }
    }
}

impl State {
    fn end(&mut self) {
        if self.pipe.take().is_some() {
            self.ended.push(self.began..self.next);
        }
    }
}
