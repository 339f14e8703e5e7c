//! One interface through libpcap: opened so that its counters are exact, read, lost, opened again.
//!
//! What makes them exact: a handle's first frames come before its filter is attached. They are refused and drained, and
//! counting begins behind them.

use std::os::fd::AsFd;
use std::time::Duration;

use pcap::{Active, Capture, Linktype, Precision};
use socket2::{SockFilter, SockRef};

use super::bpf::{self, Insn};
use super::kernel::KernelFilter;
use super::live::{Gap, LiveOptions, LiveState};
use super::{CaptureError, KernelStats, fanout, list, sys};
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};
use crate::telemetry::clock::Moment;

/// Most frames taken from one handle before the next has its turn.
const QUOTA: usize = 1024;

/// The device that stands for all interfaces.
const ANY: &str = "any";
/// The device libpcap gives special treatment: each of its frames passes twice.
const LOOPBACK: &str = "lo";

/// Where an interface of a fan-out group belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// It has the interface for itself.
    Alone,
    /// It makes the group.
    First,
    /// It joins a group, whose first member sees everything until it is complete.
    Further(u16),
    /// It comes back to a group that is at work.
    Again(u16),
}

/// One interface, open or gone.
pub(super) struct Handle {
    pub(super) name: String,
    pub(super) interface: InterfaceId,
    pub(super) link: LinkType,
    pub(super) snaplen: u32,
    /// `None` while the interface is gone.
    pub(super) capture: Option<Capture<Active>>,
    /// The interface's index when it was opened; another one under the same name is another interface. `None` for `any`.
    index: Option<u32>,
    pub(super) state: LiveState,
    group: Option<u16>,
    /// Interface drops are told by the first handle on it alone.
    counts_interface_drops: bool,
    received: Unwrapped,
    kernel_dropped: Unwrapped,
    interface_dropped: Unwrapped,
    /// Frames that died in the ring of a failed handle.
    died: u64,
    delivered: u64,
    rest: Rest,
    pub(super) last: Option<Timestamp>,
}

/// Whether the ring is known to be empty, though nobody can look into it: the kernel has counted nothing for [`RETIRED`], and there was nothing
/// to hand over at the end of that time. What it counted and was not handed over by then is in no ring.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// What the kernel had counted.
    received: u64,
    /// When that was first seen, or when something was handed over since.
    since: Moment,
    empty: bool,
}

impl Rest {
    fn begin(received: u64) -> Self {
        Self { received, since: Moment::now(), empty: false }
    }

    /// Nothing was there to hand over, so long after the last was counted or handed over.
    fn note_nothing(&mut self, after: Duration) {
        self.empty |= after >= RETIRED;
    }
}

/// A 32-bit counter of libpcap's, made 64 bits wide. Must be read at least once per 2^32 counts; [`REFRESH`] sees to it.
#[derive(Clone, Copy, Debug, Default)]
struct Unwrapped {
    total: u64,
    last: u32,
}

impl Unwrapped {
    fn update(&mut self, now: u32) {
        self.total = self.total.saturating_add(u64::from(now.wrapping_sub(self.last)));
        self.last = now;
    }
}

/// Longer than the kernel keeps a block of its ring that is not full.
const RETIRED: Duration = Duration::from_secs(2);
/// Delivered frames between readings of the counters, beside those the caller asks for.
const REFRESH: u64 = 1 << 24;

impl Handle {
    /// Opens an interface.
    ///
    /// # Errors
    /// No such interface, no permission, down, a filter that does not compile, libpcap's other reasons.
    pub(super) fn open(name: &str, options: &LiveOptions, member: Member) -> Result<Self, CaptureError> {
        let mut handle = Self {
            name: name.to_owned(),
            interface: InterfaceId(0),
            link: LinkType::ETHERNET,
            snaplen: options.snaplen,
            capture: None,
            index: None,
            state: LiveState::Gone,
            group: None,
            counts_interface_drops: !matches!(member, Member::Further(_)),
            received: Unwrapped::default(),
            kernel_dropped: Unwrapped::default(),
            interface_dropped: Unwrapped::default(),
            died: 0,
            delivered: 0,
            rest: Rest::begin(0),
            last: None,
        };
        handle.activate(options, member)?;
        Ok(handle)
    }

    pub(super) fn group(&self) -> Option<u16> {
        self.group
    }

    /// Sets the program of this handle's fan-out group, which makes the group complete.
    pub(super) fn complete_group(&self, program: &[Insn]) -> Result<(), CaptureError> {
        let Some(capture) = &self.capture else { return Ok(()) };
        sys::set_fanout_program(capture.as_fd(), program).map_err(|e| self.refused(&e))
    }

    fn activate(&mut self, options: &LiveOptions, member: Member) -> Result<(), CaptureError> {
        let index = sys::interface_index(&self.name);
        if index.is_none() && self.name != ANY {
            // libpcap knows devices that are no interfaces (nflog, usbmon, …).
            let known = pcap::Device::list().unwrap_or_default();
            if !known.iter().any(|d| d.name == self.name) {
                return Err(CaptureError::NoSuchInterface { name: self.name.clone(), have: list::names(&known) });
            }
        }
        let mut capture = self.activated(options)?;
        if self.name == ANY && capture.get_datalink() != Linktype::LINUX_SLL {
            capture.set_datalink(Linktype::LINUX_SLL).map_err(|e| self.failed(&e))?;
        }
        self.link = link_of(capture.get_datalink());
        let filter = KernelFilter {
            expression: &options.filter,
            link: self.link,
            loopback: matches!(self.name.as_str(), ANY | LOOPBACK).then(|| sys::interface_index(LOOPBACK)).flatten(),
            snaplen: options.snaplen,
        };
        // Compiled before anything else is done, so that a wrong expression costs nothing.
        let program = filter.compile(&capture)?;
        let mut capture = capture.setnonblock().map_err(|e| self.failed(&e))?;
        // while a socket moves from its own place into its group's, a frame can pass by both
        let begins_later = !filter.is_all() || matches!(member, Member::First | Member::Further(_));
        if begins_later {
            self.attach(&capture, &[REFUSE])?;
        }
        if member == Member::First {
            self.group = Some(sys::join_fanout(capture.as_fd(), None).map_err(|e| self.refused(&e))?);
        }
        if let Member::Further(group) | Member::Again(group) = member {
            sys::join_fanout(capture.as_fd(), Some(group)).map_err(|e| self.refused(&e))?;
            self.group = Some(group);
        }
        if matches!(member, Member::Again(_)) {
            // Where every member was gone, the group is a new one.
            sys::set_fanout_program(capture.as_fd(), &fanout::by_address_pair()).map_err(|e| self.refused(&e))?;
        }
        if begins_later {
            self.drain(&mut capture, options.retire)?;
            self.attach(&capture, &program)?;
        }
        self.index = index;
        self.state = LiveState::Up;
        self.capture = Some(capture);
        Ok(())
    }

    fn activated(&self, options: &LiveOptions) -> Result<Capture<Active>, CaptureError> {
        let inactive = Capture::from_device(self.name.as_str()).map_err(|e| self.failed(&e))?;
        let size = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        inactive
            // `any` answers a warning to promiscuous mode, which the crate takes for an error.
            .promisc(options.promiscuous && self.name != ANY)
            .snaplen(size(options.snaplen))
            .buffer_size(size(options.buffer_bytes))
            .timeout(i32::try_from(options.retire.as_millis()).unwrap_or(i32::MAX))
            .immediate_mode(false)
            .precision(Precision::Nano)
            .open()
            .map_err(|e| self.failed(&e))
    }

    /// Frames came between activation and this point, unfiltered. With the socket refusing more, takes them out of the
    /// ring and forgets them: until all that the kernel counted have come, or, where libpcap swallows some (the loopback's
    /// outgoing copies), until two waits in a row brought none, which is longer than the kernel keeps a block open.
    fn drain(&mut self, capture: &mut Capture<Active>, retire: Duration) -> Result<(), CaptureError> {
        let patience = retire.saturating_add(Duration::from_millis(10));
        let (mut taken, mut quiet) = (0u64, 0u8);
        loop {
            let now = capture.stats().map_err(|e| self.failed(&e))?;
            let inside = u64::from(now.received.wrapping_sub(now.dropped));
            if taken >= inside || quiet >= 2 {
                self.received.last = now.received;
                self.kernel_dropped.last = now.dropped;
                self.interface_dropped.last = now.if_dropped;
                return Ok(());
            }
            let ready = sys::wait_readable(&[capture.as_fd()], patience).map_err(|e| self.refused(&e))?;
            let count = capture.dispatch(Some(QUOTA), |_| {}).map_err(|e| self.failed(&e))?;
            taken = taken.saturating_add(count as u64);
            quiet = if ready || count > 0 { 0 } else { quiet.saturating_add(1) };
        }
    }

    fn attach(&self, capture: &Capture<Active>, program: &[Insn]) -> Result<(), CaptureError> {
        let filters: Vec<SockFilter> = program.iter().map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k)).collect();
        SockRef::from(capture).attach_filter(&filters).map_err(|e| self.refused(&e))
    }

    pub(super) fn dispatch(&mut self, gaps: &mut [Gap], f: &mut dyn FnMut(Frame<'_>)) -> Result<usize, CaptureError> {
        let Some(capture) = &mut self.capture else { return Ok(0) };
        let (link, interface) = (self.link, self.interface);
        let mut last = None;
        let mut count = 0u64;
        // before the look: this thread may be stopped behind it
        let quiet = self.rest.since.elapsed();
        let result = capture.dispatch(Some(QUOTA), |packet| {
            // With nanosecond precision `tv_usec` holds nanoseconds (pcap_set_tstamp_precision(3)).
            let ts = Timestamp::from_secs_nanos(packet.header.ts.tv_sec, packet.header.ts.tv_usec);
            count = count.saturating_add(1);
            last = Some(ts);
            f(Frame { ts, wire_len: packet.header.len, link, interface, data: packet.data });
        });
        self.last = last.or(self.last);
        let delivered_before = self.delivered;
        self.delivered = self.delivered.saturating_add(count);
        match (count, &result) {
            (0, Ok(_)) => self.rest.note_nothing(quiet),
            _ => self.rest = Rest::begin(self.received.total),
        }
        if self.delivered / REFRESH != delivered_before / REFRESH {
            self.stats();
        }
        if let (Some(ts), Some(gap)) = (last, gaps.iter_mut().rfind(|g| g.interface == interface && g.before.is_none())) {
            gap.before = Some(ts);
        }
        match result {
            Ok(n) => Ok(n),
            Err(e) => Err(self.lose(bpf::reason(&e))),
        }
    }

    /// Closes a handle that can give no more.
    fn lose(&mut self, reason: String) -> CaptureError {
        let left = self.stats().in_ring;
        self.died = self.died.saturating_add(left);
        self.capture = None;
        self.state = LiveState::Gone;
        self.received.last = 0;
        self.kernel_dropped.last = 0;
        self.interface_dropped.last = 0;
        CaptureError::InterfaceGone { name: self.name.clone(), reason }
    }

    /// Compares the interface with what was opened; an error on each change for the worse, once.
    pub(super) fn look(&mut self) -> Result<(), CaptureError> {
        let (Some(capture), Some(index)) = (&self.capture, self.index) else { return Ok(()) };
        if sys::interface_index(&self.name) != Some(index) {
            return Err(self.lose("the interface disappeared".to_owned()));
        }
        let up = sys::interface_is_up(capture.as_fd(), &self.name).unwrap_or(true);
        match (self.state, up) {
            (LiveState::Up, false) => {
                self.state = LiveState::Down;
                Err(CaptureError::InterfaceDown { name: self.name.clone() })
            }
            (LiveState::Down, true) => {
                self.state = LiveState::Up;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn open_again(&mut self, options: &LiveOptions) -> Result<(), CaptureError> {
        let before = self.link;
        self.activate(options, self.group.map_or(Member::Alone, Member::Again))?;
        if self.link != before {
            // What receivers know of this interface would be wrong.
            let link = self.link;
            self.link = before;
            self.capture = None;
            self.state = LiveState::Gone;
            let reason = format!("its link type was {} and is {} since it came back", before.0, link.0);
            return Err(CaptureError::Live { name: self.name.clone(), reason });
        }
        Ok(())
    }

    pub(super) fn stats(&mut self) -> KernelStats {
        if let Some(now) = self.capture.as_mut().and_then(|c| c.stats().ok()) {
            self.received.update(now.received);
            self.kernel_dropped.update(now.dropped);
            if self.counts_interface_drops {
                self.interface_dropped.update(now.if_dropped);
            }
        }
        let received = self.received.total;
        if received != self.rest.received {
            self.rest = Rest::begin(received);
        }
        let kernel_dropped = self.kernel_dropped.total.saturating_add(self.died);
        let within = received.saturating_sub(kernel_dropped).saturating_sub(self.delivered);
        let in_ring = if self.rest.empty { 0 } else { within };
        KernelStats { received, kernel_dropped, interface_dropped: self.interface_dropped.total, in_ring }
    }

    /// Puts libpcap's words about opening into ours; the crate keeps the text and drops the code.
    fn failed(&self, e: &pcap::Error) -> CaptureError {
        let (name, reason) = (self.name.clone(), bpf::reason(e));
        let says = |words: &[&str]| words.iter().any(|w| reason.contains(w));
        if says(&["permission", "not permitted", "CAP_NET_RAW", "Permission"]) {
            return CaptureError::Permission { name };
        }
        if says(&["No such device"]) {
            let known = pcap::Device::list().unwrap_or_default();
            return CaptureError::NoSuchInterface { name, have: list::names(&known) };
        }
        if says(&["not up", "is down", "Network is down"]) {
            return CaptureError::InterfaceDown { name };
        }
        CaptureError::Live { name, reason }
    }

    fn refused(&self, e: &std::io::Error) -> CaptureError {
        CaptureError::Live { name: self.name.clone(), reason: e.to_string() }
    }
}

/// `ret #0`: nothing passes.
const REFUSE: Insn = Insn { code: 0x06, jt: 0, jf: 0, k: 0 };

/// The link type capture files use for what libpcap calls it on this system.
pub(super) fn link_of(dlt: Linktype) -> LinkType {
    super::classic::normal_link(u16::try_from(dlt.0).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_past_32_bits() {
        let mut counter = Unwrapped::default();
        for now in [10, u32::MAX, 5, 5, 4] {
            counter.update(now);
        }

        assert_eq!(counter.total, u64::from(u32::MAX) + 6 + u64::from(u32::MAX));
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named_with_those_that_do() {
        let error = Handle::open("no-such-if0", &LiveOptions::default(), Member::Alone).err().unwrap().to_string();

        assert!(error.starts_with("cannot open no-such-if0: no such interface (have: "), "{error}");
        assert!(error.ends_with("; see 'lc list interfaces'"), "{error}");
    }

    #[test]
    fn a_ring_is_known_to_be_empty_when_nothing_was_counted_for_two_seconds_and_nothing_is_left() {
        let mut rest = Rest::begin(7);
        let seen = [0, 1999, 2000, 0].map(|millis| {
            rest.note_nothing(Duration::from_millis(millis));
            rest.empty
        });

        assert_eq!(seen, [false, false, true, true]);
    }
}
