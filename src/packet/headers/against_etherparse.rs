//! The own decoder and etherparse are held against each other: where both read a packet, they say the same.

use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6ExtensionSlice, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, LaxNetSlice, LaxSlicedPacket,
    LinuxSllPacketType, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice, VlanId,
};
use proptest::prelude::*;

use super::*;
use crate::packet::Ip;

#[derive(Clone, Debug)]
struct Recipe {
    link: LinkType,
    vlans: u8,
    six: bool,
    options: Vec<u8>,
    extensions: u8,
    fragment: Option<(u32, u16, bool)>,
    transport: u8,
    ports: (u16, u16),
    payload: Vec<u8>,
    padding: usize,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let link = prop::sample::select(vec![LinkType::ETHERNET, LinkType::LINUX_SLL, LinkType::RAW]);
    let options = prop::collection::vec(any::<u8>(), 0..10);
    let fragment = prop::option::weighted(0.3, (any::<u32>(), 0_u16..0x1fff, any::<bool>()));
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (link, 0..3_u8, any::<bool>(), options, any::<u8>(), fragment, 0..3_u8, any::<(u16, u16)>(), payload, 0..20_usize).prop_map(
        |(link, vlans, six, options, extensions, fragment, transport, ports, payload, padding)| Recipe {
            link,
            vlans: if link == LinkType::ETHERNET { vlans } else { 0 },
            six,
            options,
            extensions,
            fragment,
            transport,
            ports,
            payload,
            padding: if link == LinkType::ETHERNET { padding } else { 0 },
        },
    )
}

impl Recipe {
    fn bake(&self) -> Vec<u8> {
        let step = match (self.link, self.vlans) {
            (LinkType::LINUX_SLL, _) => {
                let sll = PacketBuilder::linux_sll(LinuxSllPacketType::HOST, 6, [1, 2, 3, 4, 5, 6, 0, 0]);
                return self.transport(sll.ip(self.ip()));
            }
            (LinkType::RAW, _) => return self.transport(PacketBuilder::ip(self.ip())),
            (_, 0) => PacketBuilder::ethernet2([1; 6], [2; 6]).ip(self.ip()),
            (_, 1) => PacketBuilder::ethernet2([1; 6], [2; 6]).single_vlan(VlanId::try_new(77).unwrap()).ip(self.ip()),
            _ => {
                let (outer, inner) = (VlanId::try_new(99).unwrap(), VlanId::try_new(5).unwrap());
                PacketBuilder::ethernet2([1; 6], [2; 6]).double_vlan(outer, inner).ip(self.ip())
            }
        };
        let mut frame = self.transport(step);
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    fn ip(&self) -> IpHeaders {
        let auth = (self.extensions & 8 != 0).then(|| IpAuthHeader::new(IpNumber::UDP, 1, 2, &[1, 2, 3, 4]).unwrap());
        let option = |bit: u8| {
            (self.extensions & bit != 0).then(|| Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[1, 4, 0, 0, 0, 0]).unwrap())
        };
        if self.six {
            let fragment = self.fragment.map(|(id, offset, more)| {
                Ipv6FragmentHeader::new(IpNumber::UDP, IpFragOffset::try_new(offset).unwrap(), more, id)
            });
            let routing = option(4)
                .map(|routing| Ipv6RoutingExtensions { routing, final_destination_options: option(16) })
                .filter(|_| fragment.is_none());
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber::UDP,
                hop_limit: 9,
                source: [0x20; 16],
                destination: [0x30; 16],
            };
            let extensions = Ipv6Extensions {
                hop_by_hop_options: option(1),
                destination_options: option(2),
                routing,
                auth: auth.filter(|_| fragment.is_none()),
                fragment,
            };
            IpHeaders::Ipv6(header, extensions)
        } else {
            let mut header = Ipv4Header::new(0, 9, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
            let words = self.options.len() / 4 * 4;
            header.options = self.options[..words].try_into().unwrap();
            if let Some((id, offset, more)) = self.fragment {
                header.identification = u16::try_from(id & 0xffff).unwrap();
                header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
                header.more_fragments = more;
                header.dont_fragment = false;
            }
            IpHeaders::Ipv4(header, Ipv4Extensions { auth: auth.filter(|_| self.fragment.is_none()) })
        }
    }

    fn transport(&self, ip: PacketBuilderStep<IpHeaders>) -> Vec<u8> {
        let mut frame = Vec::new();
        let (src, dst) = self.ports;
        match self.transport {
            0 => ip.udp(src, dst).write(&mut frame, &self.payload).unwrap(),
            1 => ip.tcp(src, dst, 77, 1000).ack(5).syn().write(&mut frame, &self.payload).unwrap(),
            _ => ip.icmpv4_echo_request(src, dst).write(&mut frame, &self.payload).unwrap(),
        }
        frame
    }
}

/// What the comparison is about.
#[derive(Debug, PartialEq, Eq)]
struct Facts<'a> {
    addresses: ([u8; 16], [u8; 16]),
    proto: u8,
    vlan: Option<u16>,
    fragment: Option<(u32, u16, bool)>,
    tcp: Option<TcpFacts>,
    ports: Option<(u16, u16)>,
    payload: &'a [u8],
}

fn own(link: LinkType, data: &[u8]) -> Option<(Facts<'_>, Headers)> {
    let h = decode(link, data, &DecodeOptions { max_depth: 0, ..DecodeOptions::default() }).ok()?;
    let facts = Facts {
        addresses: (h.tuple.src.ip.octets(), h.tuple.dst.ip.octets()),
        proto: h.tuple.proto.0,
        vlan: h.vlan,
        fragment: h.fragment.map(|f| (f.id, f.offset, f.more)),
        tcp: if let (Transport::Tcp(facts), None) = (h.transport, h.fragment) { Some(facts) } else { None },
        ports: (h.transport != Transport::Other && h.fragment.is_none()).then_some((h.tuple.src.port, h.tuple.dst.port)),
        payload: if h.fragment.is_some() { h.body.of(data) } else { h.payload(data) },
    };
    Some((facts, h))
}

/// What etherparse says of the IP layer, before the transport is looked at.
#[derive(Clone, Copy)]
struct Net<'a> {
    src: Ip,
    dst: Ip,
    fragment: Option<(u32, u16, bool)>,
    proto: u8,
    payload: &'a [u8],
}

fn v6_fragment(extensions: &etherparse::Ipv6ExtensionsSlice<'_>) -> Option<(u32, u16, bool)> {
    extensions.clone().into_iter().find_map(|e| match e {
        Ipv6ExtensionSlice::Fragment(f) if f.is_fragmenting_payload() => {
            Some((f.identification(), f.fragment_offset().value() * 8, f.more_fragments()))
        }
        Ipv6ExtensionSlice::HopByHop(_)
        | Ipv6ExtensionSlice::Routing(_)
        | Ipv6ExtensionSlice::Fragment(_)
        | Ipv6ExtensionSlice::DestinationOptions(_)
        | Ipv6ExtensionSlice::Authentication(_) => None,
    })
}

fn v4_fragment(h: &etherparse::Ipv4HeaderSlice<'_>) -> Option<(u32, u16, bool)> {
    let facts = (u32::from(h.identification()), h.fragments_offset().value() * 8, h.more_fragments());
    h.is_fragmenting_payload().then_some(facts)
}

fn theirs(link: LinkType, data: &[u8]) -> Option<Facts<'_>> {
    if link == LinkType::LINUX_SLL {
        let p = SlicedPacket::from_linux_sll(data).ok()?;
        let net = match p.net? {
            NetSlice::Ipv4(ip) => Net {
                src: Ip::v4(ip.header().source()),
                dst: Ip::v4(ip.header().destination()),
                fragment: v4_fragment(&ip.header()),
                proto: ip.payload().ip_number.0,
                payload: ip.payload().payload,
            },
            NetSlice::Ipv6(ip) => Net {
                src: Ip::v6(ip.header().source()),
                dst: Ip::v6(ip.header().destination()),
                fragment: v6_fragment(ip.extensions()),
                proto: ip.payload().ip_number.0,
                payload: ip.payload().payload,
            },
            NetSlice::Arp(_) => return None,
        };
        return Some(facts(net, p.transport, None));
    }
    let p = match link {
        LinkType::ETHERNET => LaxSlicedPacket::from_ethernet(data).ok()?,
        _ => LaxSlicedPacket::from_ip(data).ok()?,
    };
    if p.stop_err.is_some() {
        return None;
    }
    let vlan = p.link_exts.iter().find_map(|e| match e {
        etherparse::LaxLinkExtSlice::Vlan(v) => Some(v.vlan_identifier().value()),
        etherparse::LaxLinkExtSlice::Macsec(_) => None,
    });
    let net = match p.net? {
        LaxNetSlice::Ipv4(ip) => Net {
            src: Ip::v4(ip.header().source()),
            dst: Ip::v4(ip.header().destination()),
            fragment: v4_fragment(&ip.header()),
            proto: ip.payload().ip_number.0,
            payload: ip.payload().payload,
        },
        LaxNetSlice::Ipv6(ip) => Net {
            src: Ip::v6(ip.header().source()),
            dst: Ip::v6(ip.header().destination()),
            fragment: v6_fragment(ip.extensions()),
            proto: ip.payload().ip_number.0,
            payload: ip.payload().payload,
        },
        LaxNetSlice::Arp(_) => return None,
    };
    Some(facts(net, p.transport, vlan))
}

fn facts<'a>(net: Net<'a>, transport: Option<TransportSlice<'a>>, vlan: Option<u16>) -> Facts<'a> {
    let (mut ports, mut tcp, mut payload) = (None, None, net.payload);
    match transport {
        Some(TransportSlice::Udp(udp)) => {
            ports = Some((udp.source_port(), udp.destination_port()));
            payload = &net.payload[8..udp.slice().len()];
        }
        Some(TransportSlice::Tcp(t)) => {
            ports = Some((t.source_port(), t.destination_port()));
            payload = &net.payload[t.header_slice().len()..];
            let (seq, ack, flags) = (t.sequence_number(), t.acknowledgment_number(), TcpFlags(t.slice()[13]));
            tcp = Some(TcpFacts { seq, ack, flags, window: t.window_size() });
        }
        _ => {}
    }
    Facts { addresses: (net.src.octets(), net.dst.octets()), proto: net.proto, vlan, fragment: net.fragment, tcp, ports, payload }
}

/// Compares, as far as both are of the kind that either reads. Answers whether there was something to compare.
fn compare(link: LinkType, data: &[u8]) -> Result<bool, TestCaseError> {
    let (Some((own, h)), Some(theirs)) = (own(link, data), theirs(link, data)) else { return Ok(false) };
    // Extension headers that only we step over, and transports that only they or only we know.
    // etherparse reads one authentication header (51) in IPv4.
    if matches!(theirs.proto, 51 | 135 | 139 | 140) || own.proto == 132 {
        return Ok(false);
    }
    // In later pieces etherparse takes arbitrary bytes for further extension headers; RFC 8200 §4.5 keeps those for the whole.
    if h.fragment.is_some() && own.proto != theirs.proto {
        prop_assert_eq!((own.addresses, own.fragment, own.vlan), (theirs.addresses, theirs.fragment, theirs.vlan));
        return Ok(false);
    }
    // Of a first piece we keep what it carries whole, extension headers included; etherparse steps over those.
    if h.fragment.is_some_and(|f| f.next != h.tuple.proto) {
        prop_assert!(own.payload.ends_with(theirs.payload));
        prop_assert_eq!(Facts { payload: theirs.payload, ..own }, theirs);
        return Ok(true);
    }
    prop_assert_eq!(own, theirs);
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), ..ProptestConfig::default() })]

    #[test]
    fn says_the_same_as_etherparse_of_built_packets(recipe in recipe()) {
        let frame = recipe.bake();

        prop_assert!(compare(recipe.link, &frame)?, "one of the two did not read it");
    }

    #[test]
    fn says_the_same_as_etherparse_where_both_read_damaged_packets(
        recipe in recipe(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut frame = recipe.bake();
        for (at, byte) in damage {
            let at = at.index(frame.len().min(100));
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }

        compare(recipe.link, &frame)?;
    }

    #[test]
    fn keeps_its_ranges_inside_any_bytes(
        link in prop::sample::select(vec![0_u16, 1, 12, 14, 101, 108, 113, 228, 229, 276, 9]),
        start in prop::sample::select(STARTS.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        options in (0..6_u8, any::<bool>(), any::<bool>(), any::<Option<u8>>()),
    ) {
        let data = [start, &bytes].concat();
        let (max_depth, esp_null, esp_heuristic, esp_icv) = options;

        if let Ok(h) = decode(LinkType(link), &data, &DecodeOptions { max_depth, esp_null, esp_heuristic, esp_icv }) {
            prop_assert!(h.ip.start <= h.body.start && h.body.end <= h.ip.end);
            prop_assert!(h.body.start <= h.payload.start && h.payload.end <= h.body.end);
            prop_assert!(h.payload.start <= h.payload.end && h.ip.end as usize <= data.len());
            prop_assert!(h.depth <= max_depth);
        }
    }

    #[test]
    fn reads_tunnels_of_damaged_tunnels_without_panic(
        layers in prop::collection::vec(0..STARTS.len(), 0..8),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut data = layers.into_iter().flat_map(|l| STARTS[l].iter().copied()).chain(bytes).collect::<Vec<_>>();
        for (at, byte) in damage {
            let at = at.index(data.len().max(1));
            if let Some(b) = data.get_mut(at) {
                *b = byte;
            }
        }
        let options = DecodeOptions { esp_null: true, ..DecodeOptions::default() };

        for link in [LinkType::ETHERNET, LinkType::RAW] {
            if let Ok(h) = decode(link, &data, &options) {
                prop_assert!(h.ip.end as usize <= data.len() && h.depth <= options.max_depth);
            }
        }
    }
}

/// Beginnings that lead random bytes past the first checks.
const STARTS: [&[u8]; 14] = [
    b"",
    &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00],
    &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd],
    &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0x47],
    &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xe5],
    &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0x64, 0x11, 0, 0, 1, 1, 0, 0, 0x21],
    &[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 4, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
    &[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 47, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0x10, 0, 0x22, 0xeb],
    &[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 50, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
    &[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0],
    &[
        0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 0x08, 0x68, 0, 0, 0, 0, 0x34, 255, 0, 100, 0, 0,
        0, 1,
    ],
    &[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 0x17, 0xc1, 0, 0, 0, 0],
    &[0x60, 0, 0, 0, 0, 0, 0, 64, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
    &[44, 0, 1, 1, 0, 0, 0, 5],
];
