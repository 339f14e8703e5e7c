//! Files as a hunter or sniffer reads them: the frames that `-f` lets through, and a word about a file that is cut short.
//!
//! `-f` means what it means for an interface ([`super::kernel`]): the outer headers, and every later fragment.

use std::time::Duration;

use smallvec::SmallVec;

use super::bpf::{BpfTest, Insn};
use super::kernel::{Compiler, KernelFilter};
use super::{Ahead, BURST, CaptureError, InterfaceInfo, KernelStats, MAX_CAPLEN, Paced, Progress, Source, Wake};
use crate::packet::{Frame, InterfaceId, LinkType};

/// Capture files behind a filter.
pub struct Replay {
    files: Paced,
    filter: Option<Filter>,
    passed: u64,
    told: bool,
}

impl Replay {
    /// `expression` empty: everything.
    ///
    /// # Errors
    /// [`CaptureError::Bpf`] when the expression has no meaning for any of the link types known by now.
    pub fn new(files: Paced, expression: &str) -> Result<Self, CaptureError> {
        let links: SmallVec<[LinkType; 4]> = files.interfaces().iter().map(|i| i.link).collect();
        let filter = match expression.trim() {
            "" => None,
            expression => Some(Filter::new(expression, if links.is_empty() { &[LinkType::ETHERNET] } else { &links })?),
        };
        Ok(Self { files, filter, passed: 0, told: false })
    }

    /// Bytes read so far, for a progress display.
    pub fn bytes_read(&self) -> u64 {
        self.files.files().bytes_read()
    }

    fn pass(&mut self, max: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        let Self { files, filter, passed, .. } = self;
        let Some(filter) = filter else {
            return files.burst(max, &mut |frames| {
                *passed = passed.saturating_add(frames.len() as u64);
                f(frames);
            });
        };
        files.burst(max, &mut |frames| {
            let wanted: SmallVec<[Frame<'_>; BURST]> = frames.iter().filter(|frame| filter.passes(frame)).copied().collect();
            *passed = passed.saturating_add(wanted.len() as u64);
            if !wanted.is_empty() {
                f(&wanted);
            }
        })
    }

    /// A file that ends inside a record is said once.
    fn ended(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            for cut in self.files.files().truncated() {
                tracing::warn!("{cut}");
            }
        }
    }
}

impl Source for Replay {
    fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        self.burst(BURST, &mut |frames| frames.iter().for_each(|frame| f(*frame)))
    }

    fn burst(&mut self, max: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        let step = self.pass(max, f);
        if matches!(step, Ok(Progress::End) | Err(_)) {
            self.ended();
        }
        step
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
        KernelStats { received: self.passed, ..KernelStats::default() }
    }

    fn describe(&self) -> String {
        self.files.describe()
    }
}

/// The expression, compiled for each link type when its first frame comes.
struct Filter {
    expression: String,
    tests: Vec<(LinkType, Option<BpfTest>)>,
}

impl Filter {
    fn new(expression: &str, links: &[LinkType]) -> Result<Self, CaptureError> {
        let mut filter = Self { expression: expression.to_owned(), tests: Vec::new() };
        let mut refused = None;
        for &link in links {
            match filter.compile(link) {
                Ok(test) => filter.tests.push((link, Some(test))),
                Err(e) => refused = refused.or(Some(e)),
            }
        }
        match refused {
            Some(e) if filter.tests.is_empty() => Err(e),
            _ => Ok(filter),
        }
    }

    fn compile(&self, link: LinkType) -> Result<BpfTest, CaptureError> {
        let filter = KernelFilter { expression: &self.expression, link, loopback: None, snaplen: MAX_CAPLEN };
        Ok(BpfTest::of(filter.program(&Dead(link))?))
    }

    fn passes(&mut self, frame: &Frame<'_>) -> bool {
        let at = self.tests.iter().position(|(link, _)| *link == frame.link).unwrap_or_else(|| {
            // "ether host" on raw IP has no meaning: no such frame passes
            let test = self.compile(frame.link).ok();
            self.tests.push((frame.link, test));
            self.tests.len().saturating_sub(1)
        });
        self.tests.get(at).and_then(|(_, test)| test.as_ref()).is_some_and(|test| test.test_cut(frame.data, frame.wire_len))
    }
}

/// Compiles for a link type that no handle has.
struct Dead(LinkType);

impl Compiler for Dead {
    fn compile(&self, expression: &str) -> Result<Vec<Insn>, String> {
        match BpfTest::compile(expression, self.0) {
            Ok(test) => Ok(test.into_program()),
            Err(CaptureError::Bpf { reason, .. }) => Err(reason),
            Err(e) => Err(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileSource, Speed};
    use super::*;
    use crate::packet::owned::OwnedFrame;

    fn files() -> Paced {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/captures/voip/fragments.pcap");
        Paced::new(FileSource::open(&[path]).unwrap(), Speed::Max)
    }

    fn read(mut source: impl Source) -> Vec<OwnedFrame> {
        let mut all = Vec::new();
        while source.poll(&mut |f| all.push(OwnedFrame::from(&f))).unwrap() != Progress::End {}
        all
    }

    #[test]
    fn a_filter_passes_what_it_says_and_later_fragments() {
        let all = read(files());

        let sip = read(Replay::new(files(), "udp port 5060").unwrap());

        assert!(!sip.is_empty() && sip.len() < all.len(), "{} of {}", sip.len(), all.len());
        let later = |f: &&OwnedFrame| u16::from_be_bytes([f.data[20], f.data[21]]) & 0x1fff != 0;
        assert_eq!(sip.iter().filter(later).count(), all.iter().filter(later).count());
        assert!(all.iter().any(|f| later(&f)));
        assert_eq!(read(Replay::new(files(), "").unwrap()), all);
        assert!(matches!(Replay::new(files(), "prot 53"), Err(CaptureError::Bpf { .. })));
    }
}
