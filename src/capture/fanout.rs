//! Opening interfaces for one or more capture threads.
//!
//! With several threads each interface has one handle per thread, in one fan-out group of the kernel. A classic BPF
//! program chooses the member by the unordered pair of IP addresses, so that both directions of a flow and all fragments
//! of its datagrams meet on one thread. The kernel's defragment flag is never used: it replaces the fragments.
//!
//! Exactly once, from the first frame on: each member joins refusing everything, has what it saw before thrown away, and only then
//! accepts, the first member before the others join; without a program the group gives every frame to its first member,
//! so they receive nothing until the program is set for all in one step.
//!
//! A member that comes back after its interface vanished joins a group that is at work; frames that reach it before it
//! stands belong to the gap that is recorded.

use std::sync::Arc;
use std::time::Duration;

use super::bpf::Insn;
use super::handle::{Handle, Member};
use super::live::{LiveOptions, LiveSource};
use super::{CaptureError, MAX_CAPLEN};

/// Capture threads per interface; the kernel allows 256 members, and more than cores are of no use.
pub const MAX_CAPTURE_THREADS: usize = 64;

/// Opens `interfaces` for `threads` threads: one source each, with one handle per interface. `threads` 1 is the default
/// and uses no fan-out.
///
/// # Errors
/// [`CaptureError`] of the first interface that cannot be opened, a filter that does not compile, options out of range.
pub fn open_live(interfaces: &[String], threads: usize, options: &LiveOptions) -> Result<Vec<LiveSource>, CaptureError> {
    check(interfaces, threads, options)?;
    let options = Arc::new(options.clone());
    let mut sources: Vec<Vec<Handle>> = (0..threads).map(|_| Vec::with_capacity(interfaces.len())).collect();
    for name in interfaces {
        let mut group = None;
        for (n, handles) in sources.iter_mut().enumerate() {
            let member = match (threads, n, group) {
                (1, ..) => Member::Alone,
                (.., Some(group)) => Member::Further(group),
                _ => Member::First,
            };
            let handle = Handle::open(name, &options, member)?;
            group = handle.group();
            if threads > 1 && n == threads.saturating_sub(1) {
                handle.complete_group(&by_address_pair())?;
            }
            handles.push(handle);
        }
    }
    sources.into_iter().map(|handles| LiveSource::new(handles, Arc::clone(&options))).collect()
}

fn check(interfaces: &[String], threads: usize, options: &LiveOptions) -> Result<(), CaptureError> {
    let refuse = |option, value, must| Err(CaptureError::Option { option, value, must });
    if interfaces.is_empty() || interfaces.len() > 1024 {
        return refuse("--interface", interfaces.len() as u64, "given 1 to 1024 times");
    }
    if let Some(twice) = interfaces.iter().enumerate().find_map(|(n, i)| interfaces.iter().take(n).find(|j| *j == i)) {
        return Err(CaptureError::Live { name: twice.clone(), reason: "it is named twice".to_owned() });
    }
    if threads == 0 || threads > MAX_CAPTURE_THREADS {
        return refuse("--capture-threads", threads as u64, "1 to 64");
    }
    if !(64..=MAX_CAPLEN).contains(&options.snaplen) {
        return refuse("--snaplen", u64::from(options.snaplen), "64 to 262144");
    }
    if !(1 << 20..=1 << 30).contains(&options.buffer_bytes) {
        return refuse("--pcap-buffer-size", u64::from(options.buffer_bytes), "1048576 to 1073741824");
    }
    if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&options.retire) {
        return refuse("ring retire time (ms)", u64::try_from(options.retire.as_millis()).unwrap_or(u64::MAX), "1 to 1000");
    }
    Ok(())
}

/// Loads at the network header, wherever the frame's data begin (`SKF_NET_OFF`, `linux/filter.h`): it differs between
/// received and sent frames.
const NETWORK: u32 = libc::SKF_NET_OFF.cast_unsigned();
const PROTOCOL: u32 = libc::SKF_AD_OFF.cast_unsigned().wrapping_add(libc::SKF_AD_PROTOCOL.cast_unsigned());

const fn insn(code: u16, k: u32) -> Insn {
    Insn { code, jt: 0, jf: 0, k }
}

/// The program: IPv4 and IPv6, also behind one VLAN tag the interface left in place. Everything else is the first
/// member's.
pub(super) fn by_address_pair() -> Vec<Insn> {
    let (plain4, plain6) = (pair(&[12], 4), pair(&[8, 12, 16, 20], 16));
    let (tagged4, tagged6) = (pair(&[12 + 4], 4), pair(&[8 + 4, 12 + 4, 16 + 4, 20 + 4], 16));
    let to = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    let choose = |ethertype: u32, jt: usize| Insn { code: 0x15, jt: to(jt), jf: 0, k: ethertype };
    // Distances count from the instruction after the jump.
    let behind = plain4.len().saturating_add(plain6.len());
    let mut program = vec![
        insn(0x28, PROTOCOL),
        choose(0x0800, 4),
        choose(0x86dd, plain4.len().saturating_add(3)),
        choose(0x8100, behind.saturating_add(2)),
        choose(0x88a8, behind.saturating_add(1)),
        insn(0x06, 0),
    ];
    program.extend(plain4);
    program.extend(plain6);
    program.push(insn(0x28, NETWORK.wrapping_add(2)));
    program.push(choose(0x0800, 2));
    program.push(choose(0x86dd, tagged4.len().saturating_add(1)));
    program.push(insn(0x06, 0));
    program.extend(tagged4);
    program.extend(tagged6);
    program
}

/// Folds the words of both addresses together, so that direction does not matter, and spreads the result.
/// `words` are those of the source address; the destination follows `width` bytes behind.
fn pair(words: &[u32], width: u32) -> Vec<Insn> {
    let mut code = vec![insn(0x00, 0)];
    for at in words.iter().flat_map(|&at| [at, at.saturating_add(width)]) {
        // x = a; a = word; a ^= x
        code.extend([insn(0x07, 0), insn(0x20, NETWORK.wrapping_add(at)), insn(0xac, 0)]);
    }
    // Fibonacci hashing: the upper half of the product depends on every bit.
    code.extend([insn(0x24, 0x9e37_79b1), insn(0x74, 16), insn(0x16, 0)]);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_of_the_program_lands_on_the_start_of_its_part() {
        let program = by_address_pair();
        let target = |at: usize| at + 1 + usize::from(program[at].jt);
        let first_load = |at: usize| program[at + 2].k.wrapping_sub(NETWORK);

        assert_eq!(first_load(target(1)), 12);
        assert_eq!(first_load(target(2)), 8);
        assert_eq!(target(3), target(4));
        let tagged = target(3);
        assert_eq!(program[tagged], insn(0x28, NETWORK.wrapping_add(2)));
        assert_eq!(first_load(target(tagged + 1)), 16);
        assert_eq!(first_load(target(tagged + 2)), 12);
        assert_eq!(program.last(), Some(&insn(0x16, 0)));
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let interfaces = vec!["lo".to_owned()];
        let error = |threads, options: &LiveOptions| open_live(&interfaces, threads, options).err().unwrap().to_string();
        let default = LiveOptions::default();

        assert_eq!(error(0, &default), "cannot capture with --capture-threads 0: it must be 1 to 64");
        let options = LiveOptions { snaplen: 10, ..default.clone() };
        assert_eq!(error(1, &options), "cannot capture with --snaplen 10: it must be 64 to 262144");
        let options = LiveOptions { buffer_bytes: 10, ..default };
        assert!(error(1, &options).contains("--pcap-buffer-size 10"));
    }

    #[test]
    fn an_interface_named_twice_is_refused() {
        let interfaces = vec!["lo".to_owned(), "lo".to_owned()];

        let error = open_live(&interfaces, 1, &LiveOptions::default()).err().unwrap().to_string();

        assert_eq!(error, "cannot capture on lo: it is named twice");
    }
}
