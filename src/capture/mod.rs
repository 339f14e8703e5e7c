//! Where frames come from: live interfaces through libpcap, and capture files, both as a [`Source`].
//!
//! ```text
//! interface ─ kernel filter (fixed) ─ ring ─ libpcap dispatch ─▶ LiveSource ─┐
//!                                                                           ├─▶ Source::{poll, burst} ─▶ engine
//! FILE… ─ 1 MiB read buffer ─ pcap | pcapng records ─ merge by time ▶ FileSource ─┘
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `file`, `classic`, `pcapng`, `buffer` | own readers: no mmap, no allocation per packet |
//! | [`Ahead`] | a file read ahead by a thread of its own |
//! | [`FileSource`] (`merge`) | one file as it lies, several merged by the time of their next packet |
//! | [`Replay`] | files behind `-f` |
//! | [`Paced`] (`pace`) | files handed over as they were recorded: `--speed 1x` |
//! | [`LiveSource`] (`live`, `handle`) | non-blocking libpcap handles, one per interface |
//! | `kernel` | the filter a handle keeps for life |
//! | [`open_live`] (`fanout`) | several threads on one interface |
//! | [`Outages`] | an interface that went down or away is tried again |
//! | [`BpfTest`], [`BpfFilter`] | pushed filters, evaluated in user space |
//! | [`list_interfaces`] | for `lc list interfaces` |
//! | `sys` | the system calls; the one file with `unsafe` |
//!
//! Promises: frames are borrowed and never copied here; timestamps and original lengths are those of the kernel or the
//! file; nothing that could be read is lost, and what could not be is named. Reads no clock: time is packet time.
//! Refuses: compressed files, records beyond [`MAX_CAPLEN`], immediate mode, changing the filter of a live handle.

mod ahead;
mod bpf;
mod buffer;
mod classic;
mod error;
mod fanout;
mod file;
mod handle;
mod kernel;
mod list;
mod live;
mod merge;
mod outage;
mod pace;
mod paced;
mod pcapng;
mod replay;
mod sys;

use std::time::Duration;

use crate::packet::{Frame, InterfaceId, LinkType};

pub use ahead::Ahead;
pub use bpf::{BpfFilter, BpfTest, Libpcap, MAX_EXPRESSION, MAX_INSTRUCTIONS, MAX_TERMS};
pub use error::CaptureError;
pub use fanout::{MAX_CAPTURE_THREADS, open_live};
pub use file::{BURST, MAX_CAPLEN, Next, Truncated};
pub use kernel::voip_ports;
pub use list::{InterfaceListing, list_interfaces};
pub use live::{Gap, InterfaceState, LiveOptions, LiveSource, LiveState, MAX_GAPS, Waker};
pub use merge::{FileSource, MAX_FILES};
pub use outage::Outages;
pub use pace::{MAX_PAUSE, Pace, Speed, UnknownSpeed};
pub use paced::Paced;
pub use replay::Replay;
pub use sys::libpcap_version;

/// Frames, from wherever.
pub trait Source: Send {
    /// Hands the frames at hand to `f`, one at a time; returns without blocking when a live source has none.
    /// (Reading a file may block in `read(2)`; a pipe is waited for a moment, so that a stop is heard and batches age.)
    ///
    /// # Errors
    /// Each failure is returned once, after every frame that came before it; polling on afterwards is allowed: a file
    /// answers [`Progress::End`], other files and interfaces go on.
    fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError>;

    /// As [`Self::poll`], but hands over up to `max` frames at once (never more than [`BURST`]), so that the receiver
    /// can overlap its cache misses. A live source may do so several times in one call. Files fill bursts; live sources hand over slices of one, since libpcap's frames
    /// live for one callback only.
    ///
    /// # Errors
    /// As [`Self::poll`].
    fn burst(&mut self, max: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError>;

    /// Waits until frames are at hand, the source is woken, or `timeout` has passed. Files are always ready.
    ///
    /// # Errors
    /// An interface found gone or down.
    fn wait(&mut self, timeout: Duration) -> Result<Wake, CaptureError>;

    /// What [`crate::packet::InterfaceId`] counts. May grow while a pcapng file is read, always before the first frame
    /// of the new interface is handed over, in a call of its own that answers `Frames(0)` or ends a burst.
    fn interfaces(&self) -> &[InterfaceInfo];

    /// The file that an interface belongs to, by number and name; `None` for a live source. The frames of one burst are of one file.
    fn file_of(&self, _interface: InterfaceId) -> Option<(usize, &str)> {
        None
    }

    /// Work that another thread may do for it from now on: reading its file ahead. It ends by itself, at the latest with the source.
    fn read_ahead(&mut self) -> Option<Ahead> {
        None
    }

    /// Whether everything it captures from delivers.
    fn is_whole(&self) -> bool {
        true
    }

    /// Opens again what is gone, and looks again at what is down; for a caller that makes pauses between attempts.
    ///
    /// # Errors
    /// The first that still does not deliver.
    fn recover(&mut self) -> Result<(), CaptureError> {
        Ok(())
    }

    /// The counters since the source was opened.
    fn stats(&mut self) -> KernelStats;

    /// For log lines and errors: `eth0, eth1` or `calls.pcap`.
    fn describe(&self) -> String;
}

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This many frames were handed over; there may be more at once. Zero: nothing yet, poll again without waiting.
    Frames(usize),
    /// A live source has nothing now; [`Source::wait`].
    Idle,
    /// The end of the last file.
    End,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Poll.
    Ready,
    /// Somebody called [`Waker::wake`].
    Woken,
    /// Nothing happened.
    Timeout,
}

/// One interface of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceInfo {
    /// The interface's name; for a file that names none, the file's.
    pub name: String,
    /// How its frames begin.
    pub link: LinkType,
    /// Bytes kept of each frame; 0 when the file says "no limit".
    pub snaplen: u32,
}

/// What the kernel says it saw. All counters are 64 bits wide and never go back.
///
/// Conservation K1: [`Self::seen`] = captured + `kernel_dropped` + `interface_dropped` + `in_ring`, where *captured* is
/// the receiver's own count. `in_ring` cannot be read anywhere (libpcap hides its ring, and the kernel counts frames in,
/// not out), so it is what the kernel accepted and this source has not handed over. K1 is therefore a test only at rest:
/// when the kernel has counted nothing for two seconds and nothing was left to hand over, `in_ring` is 0, whatever is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelStats {
    /// Frames that passed the kernel filter, those dropped for want of room included (`pcap_stats(3)` `ps_recv` on
    /// Linux); for files, frames read.
    pub received: u64,
    /// Of those, frames for which the ring had no room, or that died with the handle of a vanished interface.
    pub kernel_dropped: u64,
    /// Frames lost by the interface or its driver before the kernel filter (`ps_ifdrop`); counted once per interface.
    pub interface_dropped: u64,
    /// Accepted by the kernel and not yet handed over.
    pub in_ring: u64,
}

impl KernelStats {
    /// The left side of K1: every frame the kernel knows of.
    pub fn seen(&self) -> u64 {
        self.received.saturating_add(self.interface_dropped)
    }

    /// The sum of two sources.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            received: self.received.saturating_add(other.received),
            kernel_dropped: self.kernel_dropped.saturating_add(other.kernel_dropped),
            interface_dropped: self.interface_dropped.saturating_add(other.interface_dropped),
            in_ring: self.in_ring.saturating_add(other.in_ring),
        }
    }
}
