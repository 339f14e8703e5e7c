//! How far the reading of files has come: a line on a terminal that is written over again and again.

use std::path::PathBuf;
use std::time::Duration;

use crate::capture::{Ahead, CaptureError, InterfaceInfo, KernelStats, Progress, Replay, Source, Wake};
use crate::packet::{Frame, InterfaceId};
use crate::telemetry;
use crate::telemetry::clock::Moment;

use super::output;

/// Between two lines.
const EVERY: Duration = Duration::from_millis(500);

/// Files that say how far they were read.
struct Shown {
    files: Replay,
    /// Bytes of all files; 0 when one is a pipe.
    total: u64,
    since: Moment,
    every: Duration,
    next: Duration,
    say: Box<dyn FnMut(&str) + Send>,
}

/// Says on stderr how far `files` were read, if `wanted` and stderr is a terminal.
pub(super) fn shown(files: Replay, paths: &[PathBuf], wanted: bool) -> Box<dyn Source> {
    if !wanted || !output::errors_are_on_a_terminal() {
        return Box::new(files);
    }
    let length = |path: &PathBuf| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
    let total = paths.iter().map(length).sum::<Option<u64>>().unwrap_or(0);
    Box::new(Shown { files, total, since: Moment::now(), every: EVERY, next: EVERY, say: Box::new(output::status) })
}

impl Shown {
    fn show(&mut self) {
        let elapsed = self.since.elapsed();
        if elapsed < self.next {
            return;
        }
        self.next = elapsed.saturating_add(self.every);
        let (packets, bytes_done) = (self.files.stats().received, self.files.bytes_read());
        (self.say)(&telemetry::Progress { packets, bytes_done, bytes_total: self.total, elapsed }.to_string());
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        (self.say)("");
    }
}

impl Source for Shown {
    fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        self.show();
        self.files.poll(f)
    }

    fn burst(&mut self, max: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        self.show();
        self.files.burst(max, f)
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
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::capture::{FileSource, Paced, Speed};

    #[test]
    fn the_line_counts_to_the_end_and_is_cleared() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/captures/voip/calls.pcap");
        let files = Replay::new(Paced::new(FileSource::open(&[path]).unwrap(), Speed::Max), "").unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&lines);
        let say = Box::new(move |line: &str| to.lock().push(line.to_owned()));
        let total = std::fs::metadata(path).unwrap().len();
        let mut shown = Shown { files, total, since: Moment::now(), every: Duration::ZERO, next: Duration::ZERO, say };
        let mut frames = 0;

        while shown.burst(32, &mut |burst| frames += burst.len()).unwrap() != Progress::End {}
        drop(shown);

        let lines = lines.lock();
        let [first, .., last, cleared] = &lines[..] else { panic!("{lines:?}") };
        assert!(first.starts_with("0 packets, 0/s"), "{first}");
        assert!(last.starts_with(&format!("{frames} packets, ")) && last.ends_with(", 100 %, 0s left"), "{last}");
        assert_eq!(cleared, "");
    }
}
