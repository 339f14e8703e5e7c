//! BPF in user space: expressions compiled by libpcap from a dead handle, programs run by an interpreter of our own.
//!
//! Own interpreter, because libpcap's program is not `Sync` while one compiled filter set serves every engine, and because
//! a program from anywhere must not be able to read outside its frame. A property test holds it against
//! `pcap_offline_filter`.
//!
//! Promises: no panic and no loop on any program or frame (classic BPF jumps forward only). Refuses expressions beyond
//! [`MAX_EXPRESSION`] and programs beyond [`MAX_INSTRUCTIONS`].
//!
//! An expression that names a host ("host example.org") makes libpcap ask the resolver while compiling. That is for who captures to decide
//! (`-f`); filters, which come from elsewhere, are looked at before ([`Libpcap`]).

mod bounds;

use super::CaptureError;
use crate::filter::{BpfCompiler, MAX_BPF_BYTES, PacketTest};

use crate::packet::{Frame, LinkType};
pub use bounds::MAX_TERMS;

/// Bytes of one expression.
pub const MAX_EXPRESSION: usize = MAX_BPF_BYTES;

/// Instructions of one program: the kernel's own limit (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// One classic BPF instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// A compiled expression for frames of one link type.
#[derive(Clone, Debug)]
pub struct BpfTest {
    program: Box<[Insn]>,
}

/// A compiled expression for frames of several link types.
#[derive(Clone, Debug)]
pub struct BpfFilter {
    tests: Vec<(LinkType, BpfTest)>,
}

impl BpfFilter {
    /// Compiles `expression` for each of `links`. A link type for which it has no meaning ("ether host" on raw IP) never
    /// passes, as long as it has one for another.
    ///
    /// # Errors
    /// [`CaptureError::Bpf`] when it compiles for none.
    pub fn compile(expression: &str, links: &[LinkType]) -> Result<Self, CaptureError> {
        let mut tests = Vec::with_capacity(links.len());
        let mut refused = None;
        for &link in links {
            match BpfTest::compile(expression, link) {
                Ok(test) => tests.push((link, test)),
                Err(e) => refused = refused.or(Some(e)),
            }
        }
        match refused {
            Some(e) if tests.is_empty() => Err(e),
            _ => Ok(Self { tests }),
        }
    }

    /// Whether a frame passes; `false` for link types it was not compiled for.
    pub fn test(&self, frame: &Frame<'_>) -> bool {
        self.tests.iter().find(|(l, _)| *l == frame.link).is_some_and(|(_, t)| t.test_cut(frame.data, frame.wire_len))
    }
}

impl BpfTest {
    /// Compiles `expression` for frames that begin as `link` says.
    ///
    /// # Errors
    /// [`CaptureError::Bpf`] with libpcap's reason.
    pub fn compile(expression: &str, link: LinkType) -> Result<Self, CaptureError> {
        let refused = |reason: String| CaptureError::Bpf { expression: expression.to_owned(), reason };
        if expression.len() > MAX_EXPRESSION {
            let start: String = expression.chars().take(40).collect();
            let reason = format!("{} bytes; the limit is {MAX_EXPRESSION}", expression.len());
            return Err(CaptureError::Bpf { expression: format!("{start}…"), reason });
        }
        let handle = pcap::Capture::dead(dlt(link)).map_err(|e| refused(reason(&e)))?;
        let program = handle.compile(expression, true).map_err(|e| refused(reason(&e)))?;
        let program = instructions(&program).map_err(refused)?;
        Ok(Self { program: program.into_boxed_slice() })
    }

    /// Of a program compiled elsewhere.
    pub(super) fn of(program: Vec<Insn>) -> Self {
        Self { program: program.into_boxed_slice() }
    }

    /// The program alone.
    pub(super) fn into_program(self) -> Vec<Insn> {
        self.program.into_vec()
    }

    /// Whether a whole frame passes.
    pub fn test(&self, frame: &[u8]) -> bool {
        self.test_cut(frame, u32::try_from(frame.len()).unwrap_or(u32::MAX))
    }

    /// Whether a frame of `wire_len` bytes passes, of which `data` was captured.
    pub fn test_cut(&self, data: &[u8], wire_len: u32) -> bool {
        run(&self.program, data, wire_len).unwrap_or(0) != 0
    }
}

/// Runs a program; `None` where the machine stops it: a load beyond the data, a division by zero, an unknown instruction.
fn run(program: &[Insn], data: &[u8], wire_len: u32) -> Option<u32> {
    let (mut a, mut x) = (0u32, 0u32);
    let mut memory = [0u32; 16];
    let mut at = 0usize;
    loop {
        let i = program.get(at)?;
        at = at.checked_add(1)?;
        match i.code {
            0x00 => a = i.k,
            0x20 => a = word(data, i.k)?,
            0x28 => a = half(data, i.k)?,
            0x30 => a = byte(data, i.k)?,
            0x40 => a = word(data, x.checked_add(i.k)?)?,
            0x48 => a = half(data, x.checked_add(i.k)?)?,
            0x50 => a = byte(data, x.checked_add(i.k)?)?,
            0x60 => a = *memory.get(i.k as usize)?,
            0x80 => a = wire_len,
            0x01 => x = i.k,
            0x61 => x = *memory.get(i.k as usize)?,
            0x81 => x = wire_len,
            0xb1 => x = (byte(data, i.k)? & 0xf) << 2,
            0x02 => *memory.get_mut(i.k as usize)? = a,
            0x03 => *memory.get_mut(i.k as usize)? = x,
            code if code & 0x07 == 0x04 => a = alu(code & 0xf0, a, if code & 0x08 == 0 { i.k } else { x })?,
            0x05 => at = at.checked_add(i.k as usize)?,
            code if code & 0x07 == 0x05 => {
                let with = if code & 0x08 == 0 { i.k } else { x };
                let taken = match code & 0xf0 {
                    0x10 => a == with,
                    0x20 => a > with,
                    0x30 => a >= with,
                    0x40 => a & with != 0,
                    _ => return None,
                };
                at = at.checked_add(usize::from(if taken { i.jt } else { i.jf }))?;
            }
            0x06 => return Some(i.k),
            0x16 => return Some(a),
            0x07 => x = a,
            0x87 => a = x,
            _ => return None,
        }
    }
}

fn alu(operation: u16, a: u32, with: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(with),
        0x10 => a.wrapping_sub(with),
        0x20 => a.wrapping_mul(with),
        0x30 => a.checked_div(with)?,
        0x40 => a | with,
        0x50 => a & with,
        0x60 => a.checked_shl(with).unwrap_or(0),
        0x70 => a.checked_shr(with).unwrap_or(0),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(with)?,
        0xa0 => a ^ with,
        _ => return None,
    })
}

fn word(data: &[u8], at: u32) -> Option<u32> {
    data.get(at as usize..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

fn half(data: &[u8], at: u32) -> Option<u32> {
    data.get(at as usize..)?.first_chunk().map(|b| u32::from(u16::from_be_bytes(*b)))
}

fn byte(data: &[u8], at: u32) -> Option<u32> {
    data.get(at as usize).map(|b| u32::from(*b))
}

/// Takes a program out of libpcap's hands. The crate keeps its instructions private but prints them: `code jt jf k`.
pub(super) fn instructions(program: &pcap::BpfProgram) -> Result<Vec<Insn>, String> {
    let raw = program.get_instructions();
    if raw.len() > MAX_INSTRUCTIONS {
        return Err(format!("it needs {} instructions; the limit is {MAX_INSTRUCTIONS}", raw.len()));
    }
    let parse = |text: String| {
        let mut fields = text.split(' ').map(str::parse::<u32>);
        let mut next = || fields.next().and_then(Result::ok);
        let (code, jt, jf, k) = (next()?, next()?, next()?, next()?);
        Some(Insn { code: u16::try_from(code).ok()?, jt: u8::try_from(jt).ok()?, jf: u8::try_from(jf).ok()?, k })
    };
    let all: Option<Vec<Insn>> = raw.iter().map(|i| parse(i.to_string())).collect();
    all.ok_or_else(|| "libpcap's program cannot be read".to_owned())
}

/// libpcap's words without the crate's prefix.
pub(super) fn reason(e: &pcap::Error) -> String {
    let text = e.to_string();
    text.strip_prefix("libpcap error: ").unwrap_or(&text).to_owned()
}

/// The number that this system's libpcap uses inside for a link type of capture files: raw IP differs.
pub(super) fn dlt(link: LinkType) -> pcap::Linktype {
    match link {
        LinkType::RAW => pcap::Linktype(12),
        LinkType(n) => pcap::Linktype(i32::from(n)),
    }
}

/// Compiles `bpf` filters with libpcap, in bounded time and without asking a resolver: at most [`MAX_TERMS`] terms, and no names of hosts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Libpcap;

impl Libpcap {
    /// Compiles an expression for packets of any of these link types, as [`BpfFilter::compile`] does, within the same bounds.
    ///
    /// # Errors
    /// What is wrong with it, in words for whoever wrote it.
    pub fn filter(self, expr: &str, links: &[LinkType]) -> Result<BpfFilter, String> {
        bounds::check(expr)?;
        BpfFilter::compile(expr, links).map_err(|e| e.to_string())
    }
}

impl BpfCompiler for Libpcap {
    fn compile(&self, link: LinkType, expr: &str) -> Result<Box<dyn PacketTest>, String> {
        bounds::check(expr)?;
        match BpfTest::compile(expr, link) {
            Ok(test) => Ok(Box::new(test)),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl PacketTest for BpfTest {
    fn test(&self, frame: &[u8]) -> bool {
        Self::test(self, frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ethernet, IPv4, UDP 192.0.2.1:5060 → 192.0.2.2:5062.
    fn sip_frame() -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        f.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        f.extend([0x13, 0xc4, 0x13, 0xc6, 0, 12, 0, 0, b'O', b'P', b'T', b'I']);
        f
    }

    #[test]
    fn passes_what_the_expression_says() {
        let frame = sip_frame();
        for (expression, expected) in [
            ("", true),
            ("udp port 5060", true),
            ("tcp port 5060", false),
            ("host 192.0.2.2 and dst port 5062", true),
            ("net 198.51.100.0/24", false),
            ("greater 46", true),
            ("greater 47", false),
            ("udp[8:4] = 0x4f505449", true),
        ] {
            let test = BpfTest::compile(expression, LinkType::ETHERNET).unwrap();

            assert_eq!(test.test(&frame), expected, "{expression}");
        }
    }

    #[test]
    fn a_cut_frame_is_tested_with_its_true_length() {
        let test = BpfTest::compile("greater 1000", LinkType::ETHERNET).unwrap();

        assert!(test.test_cut(&sip_frame(), 1000));
        assert!(!test.test(&sip_frame()));
    }

    #[test]
    fn raw_ip_and_cooked_frames_have_programs_of_their_own() {
        let frame = sip_frame();
        let links = [LinkType::ETHERNET, LinkType::RAW, LinkType::LINUX_SLL, LinkType::IPV4];
        let filter = BpfFilter::compile("udp port 5060", &links).unwrap();
        let with = |link, data| {
            let ts = crate::packet::Timestamp::default();
            filter.test(&Frame { ts, wire_len: 46, link, interface: crate::packet::InterfaceId(0), data })
        };

        assert!(with(LinkType::ETHERNET, &frame[..]));
        assert!(with(LinkType::RAW, &frame[14..]));
        assert!(with(LinkType::IPV4, &frame[14..]));
        assert!(!with(LinkType::RAW, &frame[..]));
        assert!(!with(LinkType::NULL, &frame[..]));
    }

    #[test]
    fn an_expression_without_meaning_for_one_link_type_still_serves_another() {
        let links = [LinkType::RAW, LinkType::ETHERNET];

        assert!(BpfFilter::compile("ether host 02:00:00:00:00:01", &links).is_ok());
        assert!(BpfFilter::compile("ether host 02:00:00:00:00:01", &links[..1]).is_err());
    }

    #[test]
    fn a_wrong_expression_is_named_with_the_reason() {
        let error = BpfTest::compile("udp prot 5060", LinkType::ETHERNET).unwrap_err().to_string();

        assert!(error.starts_with("cannot use the BPF filter 'udp prot 5060': "), "{error}");
        assert!(error.contains("syntax error"), "{error}");
    }

    #[test]
    fn an_expression_beyond_the_limit_is_refused() {
        let long = vec!["port 1"; 600].join(" or ");

        let error = BpfTest::compile(&long, LinkType::ETHERNET).unwrap_err().to_string();

        assert!(error.contains("the limit is 4096"), "{error}");
    }

    #[test]
    fn a_filter_that_would_take_long_or_ask_a_resolver_is_refused_before_libpcap_sees_it() {
        // 1 KiB that takes libpcap 0.4 s
        let ports = format!("port 1 or {}", (2..260).map(|n| n.to_string()).collect::<Vec<_>>().join(" or "));
        for (expression, says) in
            [(ports.as_str(), "259 terms; the limit is 64"), ("host example.org", "names are not looked up")]
        {
            let refused = BpfCompiler::compile(&Libpcap, LinkType::ETHERNET, expression).err().unwrap();

            assert!(refused.contains(says), "{refused}");
        }
    }

    const EXPRESSIONS: [&str; 10] = [
        "udp portrange 5000-6000",
        "tcp[tcpflags] & tcp-syn != 0",
        "ip[6:2] & 0x1fff != 0 or ip6[6] = 44",
        "vlan and udp",
        "vlan 5 or mpls",
        "ip6 host 2001:db8::1",
        "len > 40 and len <= 70",
        "ip[2:2] * 3 / (ip[8] - 17) % 7 << ip[9] >> 2 != 5",
        "not (ether multicast or arp)",
        "(ip[0] ^ ip[1]) - 3 = 66",
    ];

    proptest! {
        #[test]
        fn agrees_with_libpcap_on_any_bytes(
            which in 0..EXPRESSIONS.len(),
            mut bytes in proptest::collection::vec(any::<u8>(), 0..90),
            ethertype in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8100), any::<u16>()],
            ip_byte in prop_oneof![Just(0x45u8), Just(0x46), Just(0x60), any::<u8>()],
        ) {
            if bytes.len() > 14 {
                bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
                bytes[14] = ip_byte;
            }
            let theirs = pcap::Capture::dead(pcap::Linktype::ETHERNET).unwrap().compile(EXPRESSIONS[which], true).unwrap();
            let ours = BpfTest::compile(EXPRESSIONS[which], LinkType::ETHERNET).unwrap();

            prop_assert_eq!(ours.test(&bytes), theirs.filter(&bytes), "{}", EXPRESSIONS[which]);
        }

        #[test]
        fn any_program_ends_on_any_bytes(
            program in proptest::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), 0u32..100), 0..40),
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let program: Vec<_> = program.into_iter().map(|(code, jt, jf, k)| Insn { code: code & 0xff, jt, jf, k }).collect();

            let _ = run(&program, &bytes, 60);
        }
    }
}
