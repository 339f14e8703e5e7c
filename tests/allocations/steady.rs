//! An engine that knows its traffic: calls are set up, flows are known, buffers have their size.

use std::sync::Arc;

use lippycat::capture::Libpcap;
use lippycat::engine::{Engine, EngineConfig, Mode};
use lippycat::filter::{CompileOptions, Filter, FilterKind, FilterSet};
use lippycat::packet::headers::DecodeOptions;
use lippycat::packet::{Frame, InterfaceId, LinkType, Timestamp};
use lippycat::voip::event::Event;
use lippycat::voip::output::{Output, Owner};
use lippycat::voip::table::TableConfig;

const CALLER: ([u8; 4], u16) = ([192, 0, 2, 1], 5060);
const CALLEE: ([u8; 4], u16) = ([192, 0, 2, 2], 5060);

/// What flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Media of a call that a filter chose.
    Wanted,
    /// Media of a call that nobody asked for.
    Unwanted,
    /// RTP whose signalling was never seen, past its share of the hold.
    Unclaimed,
    /// UDP that is neither SIP nor RTP.
    Udp,
    /// TCP segments of something that is not SIP.
    Tcp,
}

impl Flow {
    pub(crate) const ALL: [Self; 5] = [Self::Wanted, Self::Unwanted, Self::Unclaimed, Self::Udp, Self::Tcp];
}

/// An engine and the packets it is given.
pub(crate) struct Steady {
    engine: Engine,
    forwarded: Count,
    flow: Flow,
    frame: Vec<u8>,
    packets: u32,
    nanos: i64,
}

/// Counts what is forwarded.
#[derive(Default)]
struct Count(u64);

impl Output for Count {
    fn forward(&mut self, _: &Frame<'_>, _: Option<&Owner<'_>>) {
        self.0 += 1;
    }

    fn event(&mut self, _: Event) {}

    fn wants_events(&self) -> bool {
        false
    }
}

impl Steady {
    /// Sets up a call and lets packets flow until everything that grows has grown.
    pub(crate) fn new(flow: Flow) -> Self {
        let filters = [Filter::new("t", FilterKind::SipUser, "alice")];
        let (filters, errors) = FilterSet::compile(&filters, &CompileOptions::default());
        assert!(errors.is_empty(), "{errors:?}");
        let config = EngineConfig {
            mode: Mode::Voip,
            table: TableConfig::default(),
            decode: DecodeOptions::default(),
            keep_duplicates: false,
            flows: 10_000,
            bounds: lippycat::engine::Bounds::default(),
        };
        let engine = Engine::new(config, Arc::new(filters), Arc::new(Libpcap));
        let nanos = 1_763_000_000_000_000_000;
        let mut this = Self { engine, forwarded: Count::default(), flow, frame: Vec::new(), packets: 0, nanos };
        if flow == Flow::Wanted || flow == Flow::Unwanted {
            this.set_up_call(if flow == Flow::Wanted { "alice" } else { "carol" });
        }
        this.run(2_000);
        this
    }

    /// Gives it so many packets, both ways in turn.
    pub(crate) fn run(&mut self, packets: u32) {
        for _ in 0..packets {
            self.next();
        }
    }

    /// Packets that were forwarded so far.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded.0
    }

    fn next(&mut self) {
        self.packets += 1;
        let n = self.packets;
        let back = n.is_multiple_of(2);
        let [.., high, low] = n.to_be_bytes();
        let mut payload = [0x55_u8; 172];
        if matches!(self.flow, Flow::Wanted | Flow::Unwanted | Flow::Unclaimed) {
            payload[..12].copy_from_slice(&[0x80, 8, high, low, 0, 0, high, low, 1, 2, 3, u8::from(back)]);
        }
        let (from, to) = ((CALLER.0, 4000), (CALLEE.0, 4002));
        let (from, to) = if back { (to, from) } else { (from, to) };
        if self.flow == Flow::Tcp {
            // each side's bytes follow each other
            let seq = (n / 2).wrapping_mul(172);
            self.give(6, from, to, &[&seq.to_be_bytes()[..], &[0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0], &payload]);
        } else {
            self.give(17, from, to, &[&[0, 180, 0, 0], &payload]);
        }
    }

    /// One Ethernet frame with IPv4; `rest` follows the ports.
    fn give(&mut self, proto: u8, from: ([u8; 4], u16), to: ([u8; 4], u16), rest: &[&[u8]]) {
        self.nanos += 200_000;
        let length = 24 + rest.iter().map(|r| r.len()).sum::<usize>();
        let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
        let [.., id_high, id_low] = self.packets.to_be_bytes();
        self.frame.clear();
        self.frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        self.frame.extend([0x45, 0, high, low, id_high, id_low, 0, 0, 64, proto, 0, 0]);
        self.frame.extend(from.0);
        self.frame.extend(to.0);
        self.frame.extend(from.1.to_be_bytes());
        self.frame.extend(to.1.to_be_bytes());
        for piece in rest {
            self.frame.extend_from_slice(piece);
        }
        let ts = Timestamp::from_nanos(self.nanos);
        let wire_len = u32::try_from(self.frame.len()).unwrap();
        let frame = Frame { ts, wire_len, link: LinkType::ETHERNET, interface: InterfaceId(0), data: &self.frame };
        self.engine.handle_burst(&[frame], u64::from(self.packets), &mut self.forwarded);
    }

    fn set_up_call(&mut self, caller: &str) {
        let sdp = |ip: &str, port: u16| {
            format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n")
        };
        let message = |start: &str, tag: &str, cseq: &str, body: &str| {
            let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            format!(
                "{start}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:{caller}@a.example>;tag=a\r\n\
                 To: <sip:bob@b.example>{tag}\r\nCall-ID: steady\r\nCSeq: {cseq}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let invite = message("INVITE sip:bob@b.example SIP/2.0", "", "1 INVITE", &sdp("192.0.2.1", 4000));
        let answer = message("SIP/2.0 200 OK", ";tag=b", "1 INVITE", &sdp("192.0.2.2", 4002));
        let ack = message("ACK sip:bob@b.example SIP/2.0", ";tag=b", "1 ACK", "");
        for (from, to, text) in [(CALLER, CALLEE, invite), (CALLEE, CALLER, answer), (CALLER, CALLEE, ack)] {
            let [high, low] = u16::try_from(text.len() + 8).unwrap().to_be_bytes();
            self.packets += 1;
            self.give(17, from, to, &[&[high, low, 0, 0], text.as_bytes()]);
        }
        assert_eq!(self.engine.calls().len(), 1);
    }
}
