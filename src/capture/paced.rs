//! `--speed 1x`: files handed over as they were recorded.
//!
//! Promises: a frame is never early; nobody is kept waiting for longer than [`SLICE`] at a time, so that a stop is heard; at `max` nothing is in
//! the way. Refuses: to slow a replay down that fell behind.

use std::time::Duration;

use super::file::Next;
use super::merge::FileSource;
use super::pace::{Pace, Speed};
use super::{Ahead, CaptureError, InterfaceInfo, KernelStats, Progress, Source, Wake};
use crate::packet::{Frame, InterfaceId, Timestamp};
use crate::telemetry::clock::{self, Moment};

/// The longest wait in one call.
const SLICE: Duration = Duration::from_millis(50);

/// The time a replay is kept in step with.
trait Watch: Send {
    /// Time since the replay was opened.
    fn now(&self) -> Duration;
    /// Waits.
    fn pause(&mut self, d: Duration);
}

impl Watch for Moment {
    fn now(&self) -> Duration {
        self.elapsed()
    }

    fn pause(&mut self, d: Duration) {
        clock::pause(d);
    }
}

/// Files at a speed.
pub struct Paced {
    files: FileSource,
    pace: Pace,
    /// When the next frame is due, once it has been asked for.
    due: Option<Duration>,
    watch: Box<dyn Watch>,
}

impl Paced {
    /// Hands `files` over at `speed`.
    pub fn new(files: FileSource, speed: Speed) -> Self {
        Self::by(files, speed, Box::new(Moment::now()))
    }

    fn by(files: FileSource, speed: Speed, watch: Box<dyn Watch>) -> Self {
        Self { files, pace: Pace::new(speed), due: None, watch }
    }

    /// The files.
    pub fn files(&self) -> &FileSource {
        &self.files
    }

    /// Whose turn it is; waits a moment for a frame that is not due. An interface that came to light is told first.
    fn turn(&mut self) -> Result<Turn, CaptureError> {
        let known = self.files.interfaces().len();
        let next = self.files.peek()?;
        if self.files.interfaces().len() > known {
            return Ok(Turn::NotYet);
        }
        let ts = match next {
            Next::Frame(ts) => ts,
            Next::NotYet => return Ok(Turn::NotYet),
            Next::End => return Ok(Turn::End),
        };
        let now = self.watch.now();
        let shortened = self.pace.shortened();
        let due = *self.due.get_or_insert_with(|| self.pace.due(ts, now));
        if self.pace.shortened() > shortened {
            tracing::info!("a pause of more than a minute in the recording is made shorter");
        }
        let wait = due.saturating_sub(now);
        if wait.is_zero() {
            self.due = None;
            return Ok(Turn::Now(ts));
        }
        self.watch.pause(wait.min(SLICE));
        Ok(Turn::NotYet)
    }
}

enum Turn {
    NotYet,
    Now(Timestamp),
    End,
}

impl Source for Paced {
    fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        if self.pace.is_max() {
            return self.files.poll(f);
        }
        self.burst(usize::MAX, &mut |frames| frames.iter().for_each(|frame| f(*frame)))
    }

    fn burst(&mut self, max: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        if self.pace.is_max() {
            return self.files.burst(max, f);
        }
        match self.turn()? {
            Turn::NotYet => Ok(Progress::Frames(0)),
            Turn::Now(ts) => self.files.burst_until(max, ts, f),
            Turn::End => Ok(Progress::End),
        }
    }

    fn read_ahead(&mut self) -> Option<Ahead> {
        self.files.read_ahead()
    }

    fn wait(&mut self, timeout: Duration) -> Result<Wake, CaptureError> {
        self.files.wait(timeout)
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        self.files.interfaces()
    }

    fn file_of(&self, interface: InterfaceId) -> Option<(usize, &str)> {
        self.files.file_of(interface)
    }

    fn stats(&mut self) -> KernelStats {
        self.files.stats()
    }

    fn describe(&self) -> String {
        self.files.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use parking_lot::Mutex;

    /// A watch that only moves when somebody waits; it writes down for how long.
    #[derive(Clone, Default)]
    struct Hand(Arc<Mutex<Vec<Duration>>>);

    impl Watch for Hand {
        fn now(&self) -> Duration {
            self.0.lock().iter().sum()
        }

        fn pause(&mut self, d: Duration) {
            self.0.lock().push(d);
        }
    }

    /// A capture with one frame at each of these milliseconds.
    fn capture(at_ms: &[u32]) -> FileSource {
        let mut bytes = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for ms in at_ms {
            for word in [ms / 1000, ms % 1000 * 1000, 1, 1] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.push(0);
        }
        FileSource::from_reader("made here", std::io::Cursor::new(bytes)).unwrap()
    }

    /// Frames with the time they were handed over, in milliseconds, and all waits.
    fn replay(at_ms: &[u32], speed: Speed) -> (Vec<(i64, u128)>, Vec<Duration>) {
        let hand = Hand::default();
        let mut source = Paced::by(capture(at_ms), speed, Box::new(hand.clone()));
        let mut got = Vec::new();
        while source
            .burst(8, &mut |frames| {
                let now = hand.now().as_millis();
                got.extend(frames.iter().map(|f| (f.ts.as_nanos() / 1_000_000, now)));
            })
            .unwrap()
            != Progress::End
        {}
        let waits = hand.0.lock().clone();
        (got, waits)
    }

    #[test]
    fn frames_come_when_they_are_due_and_no_wait_is_longer_than_a_slice() {
        let (got, waits) = replay(&[1000, 1000, 1020, 1500, 1400], Speed::Times(1000));

        assert_eq!(got, [(1000, 0), (1000, 0), (1020, 20), (1500, 500), (1400, 500)]);
        assert!(waits.iter().all(|w| *w <= SLICE), "{waits:?}");
    }

    #[test]
    fn at_max_nothing_waits() {
        let (got, waits) = replay(&[1000, 99_000], Speed::Max);

        assert_eq!(got.len(), 2);
        assert!(waits.is_empty());
    }

    #[test]
    fn one_at_a_time_is_paced_as_well() {
        let hand = Hand::default();
        let mut source = Paced::by(capture(&[0, 100]), Speed::Times(1000), Box::new(hand.clone()));
        let mut got = Vec::new();
        while source.poll(&mut |f| got.push((f.ts.as_nanos() / 1_000_000, hand.now().as_millis()))).unwrap() != Progress::End {}

        assert_eq!(got, [(0, 0), (100, 100)]);
    }
}
