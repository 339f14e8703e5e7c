//! A call's packets back out of its own files, in the order of their times, each with the hunter it came from.

use std::path::PathBuf;
use std::sync::Arc;

use crate::capture::{CaptureError, FileSource, Next, Progress, Source};
use crate::packet::{Frame, Timestamp};
use crate::record::calls::{History, Run};

/// Hands every packet to `each`: hunter, signalling or not, frame. Where times are equal, the part that is named first comes first.
/// What cannot be read is told to `trouble` and left out.
pub(super) fn replay(
    parts: Vec<History>,
    each: &mut dyn FnMut(&Arc<str>, bool, &Frame<'_>),
    trouble: &mut dyn FnMut(&CaptureError),
) {
    let mut parts: Vec<Reading> = parts.into_iter().map(Reading::new).collect();
    while let Some(at) = earliest(&mut parts, trouble) {
        if let Some(part) = parts.get_mut(at)
            && let Err(e) = part.step(each)
        {
            trouble(&e);
            part.close();
        }
    }
}

fn earliest(parts: &mut [Reading], trouble: &mut dyn FnMut(&CaptureError)) -> Option<usize> {
    let next = parts.iter_mut().enumerate().filter_map(|(i, p)| Some((p.peek(trouble)?, i)));
    next.min().map(|(_, i)| i)
}

/// One part's files, one after the other.
struct Reading {
    files: std::vec::IntoIter<(PathBuf, u64)>,
    open: Option<FileSource>,
    /// Packets of the open file that are still to come.
    left: u64,
    runs: std::vec::IntoIter<Run>,
    run: Option<Run>,
}

impl Reading {
    fn new(history: History) -> Self {
        Self { files: history.files.into_iter(), open: None, left: 0, runs: history.runs.into_iter(), run: None }
    }

    /// The time of the next packet; opens the next file where one has ended.
    fn peek(&mut self, trouble: &mut dyn FnMut(&CaptureError)) -> Option<Timestamp> {
        loop {
            if let Some(file) = self.open.as_mut().filter(|_| self.left > 0) {
                match file.peek() {
                    Ok(Next::Frame(ts)) => return Some(ts),
                    // only a pipe keeps one waiting, and these are regular files
                    Ok(Next::End | Next::NotYet) => {}
                    Err(e) => trouble(&e),
                }
            }
            self.close();
            let (path, packets) = self.files.next()?;
            self.left = packets;
            if packets == 0 {
                continue;
            }
            match FileSource::open(&[path]) {
                Ok(file) => self.open = Some(file),
                Err(e) => trouble(&e),
            }
        }
    }

    /// Hands over one packet.
    fn step(&mut self, each: &mut dyn FnMut(&Arc<str>, bool, &Frame<'_>)) -> Result<(), CaptureError> {
        while self.run.as_ref().is_none_or(|r| r.packets == 0) {
            self.run = self.runs.next();
            if self.run.is_none() {
                self.close();
                return Ok(());
            }
        }
        let (Some(file), Some(run)) = (&mut self.open, &mut self.run) else { return Ok(()) };
        let step = file.burst(1, &mut |frames| {
            for frame in frames {
                run.packets = run.packets.saturating_sub(1);
                self.left = self.left.saturating_sub(1);
                each(&run.hunter, run.sip, frame);
            }
        })?;
        if step == Progress::End {
            self.close();
        }
        Ok(())
    }

    /// Gives up the open file; the origins of its packets that did not come are skipped.
    fn close(&mut self) {
        self.open = None;
        let mut skip = std::mem::take(&mut self.left);
        while skip > 0 {
            let Some(run) = self.run.as_mut().filter(|r| r.packets > 0) else {
                self.run = self.runs.next();
                if self.run.is_none() {
                    return;
                }
                continue;
            };
            let n = run.packets.min(skip);
            run.packets = run.packets.saturating_sub(n);
            skip = skip.saturating_sub(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hunter: &str, sip: bool, packets: u64) -> Run {
        Run { hunter: hunter.into(), sip, packets }
    }

    fn capture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("captures/voip").join(name)
    }

    #[test]
    fn files_of_a_part_follow_each_other_and_each_packet_has_its_hunter() {
        let one = capture("refused.pcap");
        let mut frames = 0;
        let mut source = FileSource::open(&[&one]).unwrap();
        while source.poll(&mut |_| frames += 1).unwrap() != Progress::End {}
        let gone = (PathBuf::from("/nonexistent.pcap"), 5);
        let part = History {
            files: vec![(one.clone(), frames), gone, (one, 2)],
            runs: vec![run("a", true, frames - 1), run("b", false, 1), run("c", false, 5), run("a", true, 9)],
        };
        let (mut seen, mut troubles) = (Vec::new(), 0);

        replay(vec![part], &mut |h, sip, f| seen.push((h.to_string(), sip, f.ts)), &mut |_| troubles += 1);

        let frames = usize::try_from(frames).unwrap();
        assert_eq!((seen.len(), troubles), (frames + 2, 1));
        assert!(seen[..frames - 1].iter().all(|s| s.0 == "a" && s.1));
        assert_eq!((&*seen[frames - 1].0, seen[frames - 1].1, &*seen[frames].0), ("b", false, "a"));
        assert_eq!(seen[frames].2, seen[0].2, "the third file begins as the first");
    }

    #[test]
    fn parts_are_merged_by_time() {
        let part = |hunter| History { files: vec![(capture("refused.pcap"), 3)], runs: vec![run(hunter, true, 3)] };
        let mut seen = String::new();

        replay(vec![part("x"), part("y")], &mut |h, _, _| seen.push_str(h), &mut |_| panic!("all is there"));

        assert_eq!(seen, "xyxyxy");
    }
}
