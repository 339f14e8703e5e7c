#![expect(unsafe_code, reason = "system calls that no crate of ours wraps; the one file of this room with unsafe")]
//! System calls: waiting on descriptors, joining a fan-out group, asking about interfaces, libpcap's version.
//!
//! Each function is one call, safe to use with any arguments; errors are the system's.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use smallvec::SmallVec;

use super::bpf::Insn;

// linux/if_packet.h
const PACKET_FANOUT: c_int = 18;
const PACKET_FANOUT_DATA: c_int = 22;
const FANOUT_CBPF: u32 = 6;
const FANOUT_UNIQUE_ID: u32 = 0x2000;

/// Waits until one of `fds` is readable or in error; `false` when `timeout` passed or a signal came first.
pub(super) fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<bool> {
    let mut polled: SmallVec<[libc::pollfd; 8]> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    // Rounded up: a wait of 100 µs must not become a busy loop.
    let millis = c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX);
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
    // SAFETY: `polled` is an array of `count` initialised pollfd structures, exclusively borrowed for the call.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), count, millis) };
    match ready {
        0 => Ok(false),
        n if n > 0 => Ok(true),
        _ => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(false),
            e => Err(e),
        },
    }
}

/// A counter that wakes a waiting thread (eventfd(2)).
#[derive(Debug)]
pub(super) struct Event(File);

impl Event {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel and nobody else has it.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(File::from(owned)))
    }

    /// Makes the descriptor readable. A counter at its ceiling is readable already.
    pub(super) fn notify(&self) {
        let _full = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Whether it was notified since it was last taken.
    pub(super) fn take(&self) -> bool {
        (&self.0).read(&mut [0; 8]).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The index of an interface; `None` when there is none of this name.
pub(super) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` is a terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// Whether the interface is administratively up, asked through any packet socket (SIOCGIFFLAGS, netdevice(7)).
pub(super) fn interface_is_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let mut request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    // SAFETY: `request` is a valid ifreq with a terminated name; this request writes only its flags.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above succeeded, so the flags are the initialised member.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(c_int::from(flags) & libc::IFF_UP != 0)
}

/// Makes a packet socket a member of a fan-out group: a new one, or `group`. Returns the group. Until
/// [`set_fanout_program`], every frame goes to the first member (packet(7); an empty program answers 0).
pub(super) fn join_fanout(socket: BorrowedFd<'_>, group: Option<u16>) -> io::Result<u16> {
    let mode = match group {
        None => FANOUT_CBPF | FANOUT_UNIQUE_ID,
        Some(_) => FANOUT_CBPF,
    };
    let argument: u32 = mode << 16 | u32::from(group.unwrap_or(0));
    // SAFETY: the option takes a u32 (packet(7)).
    unsafe { set_option(socket, PACKET_FANOUT, &argument) }?;
    let mut answer = 0u32;
    let mut len = socklen::<u32>();
    // SAFETY: `answer` and `len` are valid for writes, and `len` is the size of `answer`.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, PACKET_FANOUT, (&raw mut answer).cast::<c_void>(), &raw mut len)
    };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let [lo, hi, ..] = answer.to_le_bytes();
    Ok(u16::from_le_bytes([lo, hi]))
}

/// Sets the program that chooses the member for each frame (its answer modulo the number of members), for the whole
/// group, in one step.
pub(super) fn set_fanout_program(socket: BorrowedFd<'_>, program: &[Insn]) -> io::Result<()> {
    let mut filters: Vec<libc::sock_filter> =
        program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let len = u16::try_from(filters.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: filters.as_mut_ptr() };
    // SAFETY: the option takes a sock_fprog; its `len` instructions live in `filters`, and the kernel copies them.
    unsafe { set_option(socket, PACKET_FANOUT_DATA, &program) }
}

/// # Safety
/// `option` of `SOL_PACKET` must take a `T`, and what `value` points to must be valid.
unsafe fn set_option<T>(socket: BorrowedFd<'_>, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of its own size; the caller vouches for the option and for pointers inside.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, std::ptr::from_ref(value).cast::<c_void>(), socklen::<T>())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// libpcap's own words about its version, for `--version`.
pub fn libpcap_version() -> &'static str {
    unsafe extern "C" {
        /// `pcap_lib_version(3)`: a static string.
        safe fn pcap_lib_version() -> *const c_char;
    }
    let text = pcap_lib_version();
    if text.is_null() {
        return "libpcap";
    }
    // SAFETY: not null, and by pcap_lib_version(3) a terminated string that lives as long as the process.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().unwrap_or("libpcap")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_wakes_a_wait_once_however_often_it_was_notified() {
        let event = Event::new().unwrap();
        let wait = || wait_readable(&[event.as_fd()], Duration::ZERO).unwrap();

        assert!(!wait());
        event.notify();
        event.notify();
        assert!(wait());
        assert!(event.take());
        assert!(!event.take());
        assert!(!wait());
    }

    #[test]
    fn the_loopback_interface_has_an_index_and_nonsense_has_none() {
        assert!(interface_index("lo").is_some());
        assert_eq!(interface_index("no such interface"), None);
        assert_eq!(interface_index("a\0b"), None);
    }

    #[test]
    fn libpcap_says_its_version() {
        assert!(libpcap_version().contains("libpcap"), "{}", libpcap_version());
    }
}
