//! The filter that runs in the kernel: composed and compiled once per handle, attached once, never changed.
//!
//! It passes what the user's expression says, and beyond that every later fragment (decision 14: an IPv4 fragment with an
//! offset, any IPv6 fragment, also behind one VLAN tag), because a fragment without ports can pass no port filter. On the
//! loopback interface, alone or inside `any`, it drops the outgoing copy of each frame; libpcap would do so after
//! counting it.
//!
//! Attached directly to the socket instead of by `pcap_setfilter`, which also runs the program in user space over an
//! unknown number of frames; instructions about the packet's direction always fail there, and those frames would be lost.

use super::CaptureError;
use super::bpf::{Insn, instructions, reason};
use crate::packet::LinkType;

/// `ip6[6]` is the next header: a fragment header only when it comes first, which is where hosts put it (RFC 8200 §4.1
/// allows hop-by-hop, routing and destination options before it; such datagrams need a wider `-f`).
const FRAGMENTS: &str = "(ip[6:2] & 0x1fff != 0 or ip6[6] = 44)";

/// Words after which an expression's offsets are those of an inner header.
const SHIFTING: [&str; 4] = ["vlan", "mpls", "pppoes", "geneve"];

/// Bytes of the header libpcap puts before frames of `any` (`LINKTYPE_LINUX_SLL`).
const SLL_HEADER: u32 = 16;

/// Offsets from here on are not data but facts about the packet (`SKF_AD_OFF`, `linux/filter.h`).
const FACTS: u32 = libc::SKF_AD_OFF.cast_unsigned();

/// Compiles expressions for one live handle; libpcap knows the handle's link type and VLAN handling.
pub(super) trait Compiler {
    /// # Errors
    /// libpcap's reason.
    fn compile(&self, expression: &str) -> Result<Vec<Insn>, String>;
}

impl Compiler for pcap::Capture<pcap::Active> {
    fn compile(&self, expression: &str) -> Result<Vec<Insn>, String> {
        let program = Self::compile(self, expression, true).map_err(|e| reason(&e))?;
        instructions(&program)
    }
}

/// What a handle's filter depends on.
pub(super) struct KernelFilter<'a> {
    /// The user's `-f`; empty means everything.
    pub(super) expression: &'a str,
    pub(super) link: LinkType,
    /// The index of `lo`, when it can be among the frames.
    pub(super) loopback: Option<u32>,
    pub(super) snaplen: u32,
}

impl KernelFilter<'_> {
    /// Whether everything is wanted whole, so that no filter is needed.
    pub(super) fn is_all(&self) -> bool {
        self.expression.trim().is_empty() && self.loopback.is_none() && self.snaplen >= super::MAX_CAPLEN
    }

    /// The program to attach.
    ///
    /// # Errors
    /// [`CaptureError::Bpf`] about the expression as the user wrote it.
    pub(super) fn compile(&self, compiler: &dyn Compiler) -> Result<Vec<Insn>, CaptureError> {
        let program = self.program(compiler)?;
        if self.link == LinkType::LINUX_SLL { cooked(program).map_err(|reason| self.refused(reason)) } else { Ok(program) }
    }

    fn refused(&self, reason: String) -> CaptureError {
        CaptureError::Bpf { expression: self.expression.to_owned(), reason }
    }

    /// The program for frames as libpcap hands them over.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub(super) fn program(&self, compiler: &dyn Compiler) -> Result<Vec<Insn>, CaptureError> {
        // Alone first, so that libpcap's complaint is about what the user wrote.
        compiler.compile(self.expression).map_err(|reason| self.refused(reason))?;
        let mut last = String::new();
        for candidate in self.candidates() {
            match compiler.compile(&candidate) {
                Ok(program) => return Ok(program),
                Err(reason) => last = reason,
            }
        }
        Err(self.refused(last))
    }

    /// Full expressions, the best first: not every link type knows VLANs.
    fn candidates(&self) -> Vec<String> {
        let user = self.expression.trim();
        let not_twice = match self.loopback {
            None => String::new(),
            Some(index) if self.link == LinkType::LINUX_SLL => format!("not (outbound and ifindex {index})"),
            Some(_) => "not outbound".to_owned(),
        };
        let and = if not_twice.is_empty() { "" } else { " and " };
        if user.is_empty() {
            return vec![not_twice];
        }
        if SHIFTING.iter().any(|word| user.contains(word)) {
            // Behind such a word the same test looks at the inner header.
            return vec![format!("{not_twice}{and}({FRAGMENTS} or ({user}) or {FRAGMENTS})")];
        }
        vec![
            format!("{not_twice}{and}({FRAGMENTS} or ({user}) or (vlan and {FRAGMENTS}))"),
            format!("{not_twice}{and}({FRAGMENTS} or ({user}))"),
            // Link types without IP.
            format!("{not_twice}{and}({user})"),
        ]
    }
}

/// A program for cooked frames as the kernel sees them: without the header that libpcap puts before them later.
fn cooked(mut program: Vec<Insn>) -> Result<Vec<Insn>, String> {
    for insn in &mut program {
        let (class, mode) = (insn.code & 0x07, insn.code & 0xe0);
        let loads = matches!(class, 0x00 | 0x01) && matches!(mode, 0x20 | 0x40 | 0xa0);
        if !loads || insn.k >= FACTS {
            continue;
        }
        insn.k = match insn.k {
            k if k >= SLL_HEADER => k.saturating_sub(SLL_HEADER),
            0 => FACTS.saturating_add(libc::SKF_AD_PKTTYPE.cast_unsigned()),
            14 => FACTS.saturating_add(libc::SKF_AD_PROTOCOL.cast_unsigned()),
            _ => return Err("it asks for link-layer addresses, which 'any' does not have; name the interfaces".to_owned()),
        };
    }
    Ok(program)
}

/// The base filter of `lc hunt voip --sip-port/--rtp-port-range/--udp-only`: SIP ports or RTP ranges, and `user`.
/// `None` when nothing restricts. Ranges are inclusive. Fragments need not be named: every kernel filter passes them.
pub fn voip_ports(sip: &[u16], rtp: &[(u16, u16)], udp_only: bool, user: &str) -> Option<String> {
    /// The reference's range once any of the three flags is used.
    const RTP: (u16, u16) = (10_000, 32_768);
    let user = user.trim();
    if sip.is_empty() && rtp.is_empty() && !udp_only {
        return (!user.is_empty()).then(|| user.to_owned());
    }
    let rtp = if rtp.is_empty() { &[RTP][..] } else { rtp };
    let transport = if udp_only { "udp " } else { "" };
    let ports = if sip.is_empty() { vec![format!("{transport}port 5060")] } else { Vec::new() };
    let named = sip.iter().map(|port| format!("{transport}port {port}"));
    let ranges = rtp.iter().map(|(from, to)| format!("udp portrange {from}-{to}"));
    let media = ports.into_iter().chain(named).chain(ranges).collect::<Vec<_>>().join(" or ");
    Some(if user.is_empty() { media } else { format!("({media}) and ({user})") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles for the link type without the kernel's extensions, as a dead handle does.
    struct Dead(LinkType);

    impl Compiler for Dead {
        fn compile(&self, expression: &str) -> Result<Vec<Insn>, String> {
            let handle = pcap::Capture::dead(super::super::bpf::dlt(self.0)).unwrap();
            let program = handle.compile(expression, true).map_err(|e| reason(&e))?;
            instructions(&program)
        }
    }

    fn filter(expression: &str, link: LinkType) -> KernelFilter<'_> {
        KernelFilter { expression, link, loopback: None, snaplen: super::super::MAX_CAPLEN }
    }

    #[test]
    fn every_candidate_compiles_and_fragments_pass_beside_the_users_expression() {
        let test = |expression: &str, frame: &[u8]| {
            let wanted = filter(expression, LinkType::ETHERNET).candidates();
            super::super::BpfTest::compile(&wanted[0], LinkType::ETHERNET).unwrap().test(frame)
        };
        let v4 = |offset: u8, tag: bool| {
            let mut f = vec![0u8; 12];
            if tag {
                f.extend([0x81, 0, 0, 7]);
            }
            f.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0, offset, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
            f.resize(90, 0);
            f
        };
        let mut v6 = vec![0u8; 12];
        v6.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 44, 64]);
        v6.resize(120, 0);

        for expression in ["udp port 5060", "vlan and udp port 5060", "udp port 5060 or (vlan 9 and tcp)"] {
            assert!(test(expression, &v4(3, false)), "{expression}");
            assert!(test(expression, &v4(3, true)), "{expression}");
            assert!(test(expression, &v6), "{expression}");
            assert!(!test(expression, &v4(0, false)), "{expression}");
            assert!(!test(expression, &v4(0, true)), "{expression}");
        }
    }

    #[test]
    fn an_or_in_the_users_expression_stays_inside_its_brackets() {
        let f = KernelFilter { loopback: Some(1), ..filter("udp or tcp", LinkType::ETHERNET) };

        assert_eq!(f.candidates()[1], "not outbound and ((ip[6:2] & 0x1fff != 0 or ip6[6] = 44) or (udp or tcp))");
    }

    #[test]
    fn cooked_programs_look_where_the_kernel_has_the_packet() {
        let program = filter("udp port 5060", LinkType::LINUX_SLL).compile(&Dead(LinkType::LINUX_SLL)).unwrap();

        let loads: Vec<u32> = program.iter().filter(|i| i.code & 0x07 < 2 && i.code & 0xe0 == 0x20).map(|i| i.k).collect();

        assert!(loads.contains(&FACTS), "the protocol is a fact: {loads:x?}");
        assert!(loads.contains(&9), "the IPv4 protocol field: {loads:x?}");
        assert!(!loads.contains(&14), "{loads:x?}");
    }

    #[test]
    fn a_link_layer_address_on_any_is_refused_in_words() {
        let error = filter("link[6] = 1", LinkType::LINUX_SLL).compile(&Dead(LinkType::LINUX_SLL)).unwrap_err();

        assert!(error.to_string().contains("name the interfaces"), "{error}");
    }

    #[test]
    fn libpcaps_complaint_is_about_the_users_words() {
        let error = filter("udp prot 1", LinkType::ETHERNET).compile(&Dead(LinkType::ETHERNET)).unwrap_err().to_string();

        assert!(error.starts_with("cannot use the BPF filter 'udp prot 1': "), "{error}");
    }

    #[test]
    fn voip_flags_become_an_expression_only_when_one_is_used() {
        assert_eq!(voip_ports(&[], &[], false, ""), None);
        assert_eq!(voip_ports(&[], &[], false, " net 10.0.0.0/8 ").as_deref(), Some("net 10.0.0.0/8"));
        assert_eq!(
            voip_ports(&[5060, 5080], &[], false, "").as_deref(),
            Some("port 5060 or port 5080 or udp portrange 10000-32768")
        );
        assert_eq!(
            voip_ports(&[], &[(4000, 5000)], true, "net 10.0.0.0/8").as_deref(),
            Some("(udp port 5060 or udp portrange 4000-5000) and (net 10.0.0.0/8)")
        );
    }
}
