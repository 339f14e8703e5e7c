//! Words: a captured frame, its time, where it was seen, and what its headers say.
//!
//! Promises: nothing here allocates per packet, reads a clock or panics on any bytes.

pub mod dedup;
pub mod defrag;
pub mod headers;
pub mod owned;

#[cfg(test)]
pub(crate) mod build;
mod cursor;
mod esp;
mod ip;
mod link;
mod time;
mod tunnel;
mod usual;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Nanoseconds since 1970-01-01 UTC, as the kernel or the capture file gave them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant; before any packet.
    pub const MIN: Self = Self(i64::MIN);

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From a `timeval`/`timespec` pair; saturates.
    pub const fn from_secs_nanos(secs: i64, nanos: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// This instant plus `d`; saturates.
    #[must_use]
    pub fn saturating_add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Time since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A libpcap link type (DLT / LINKTYPE number as capture files carry it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback, address family in host byte order.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// Raw IP, as capture files number it.
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback, address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked capture v1: what the `any` device is opened as.
    pub const LINUX_SLL: Self = Self(113);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Linux cooked capture v2 (files only).
    pub const LINUX_SLL2: Self = Self(276);
}

/// Index of the interface a frame was seen on, into the source's interface list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u16);

/// One captured frame, borrowed from the ring or the file buffer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Capture time.
    pub ts: Timestamp,
    /// Length on the wire; `data` is shorter when the frame was cut by the snap length.
    pub wire_len: u32,
    /// How `data` begins.
    pub link: LinkType,
    /// Where it was seen.
    pub interface: InterfaceId,
    /// The captured bytes from the link layer on.
    pub data: &'a [u8],
}

/// An IP address; IPv4 is kept IPv4-mapped (RFC 4291 §2.5.5.2), so that both families share one fixed-size key.
///
/// Two words in the order of the octets: what a decoder writes as words can be read back as words at once, whereas bytes written one
/// by one would first have to reach the cache.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ip {
    head: u64,
    tail: u64,
}

/// The upper half of the second word of an IPv4-mapped address.
const V4_MAPPED: u64 = 0xffff_0000_0000;

impl Ip {
    /// `0.0.0.0`.
    pub const V4_ANY: Self = Self { head: 0, tail: V4_MAPPED };

    /// From four IPv4 octets.
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self { head: 0, tail: V4_MAPPED | u32::from_be_bytes(octets) as u64 }
    }

    /// From sixteen IPv6 octets.
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let [head, tail] = halves(u128::from_be_bytes(octets));
        Self { head, tail }
    }

    /// The sixteen octets, IPv4 mapped.
    #[inline]
    pub const fn octets(&self) -> [u8; 16] {
        ((self.head as u128) << 64 | self.tail as u128).to_be_bytes()
    }

    /// The address as two numbers, the more significant first.
    #[inline]
    pub const fn words(&self) -> [u64; 2] {
        [self.head, self.tail]
    }

    /// The address of these two numbers.
    #[inline]
    pub const fn from_words([head, tail]: [u64; 2]) -> Self {
        Self { head, tail }
    }

    /// Whether this is an IPv4 (mapped) address.
    pub const fn is_v4(&self) -> bool {
        self.head == 0 && self.tail >> 32 == V4_MAPPED >> 32
    }

    /// `0.0.0.0` or `::`.
    pub const fn is_unspecified(&self) -> bool {
        self.head == 0 && (self.tail == V4_MAPPED || self.tail == 0)
    }
}

/// Upper and lower half.
#[expect(clippy::cast_possible_truncation, reason = "both halves are taken on purpose")]
const fn halves(x: u128) -> [u64; 2] {
    [(x >> 64) as u64, x as u64]
}

impl From<IpAddr> for Ip {
    fn from(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        Ipv6Addr::from(ip.octets()).to_canonical()
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A transport address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub ip: Ip,
    /// Port; 0 for protocols without ports.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match IpAddr::from(self.ip) {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

/// An IP protocol number (IANA).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpProto(pub u8);

impl IpProto {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);
}

/// Source, destination and protocol of one packet: directional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// Transport protocol.
    pub proto: IpProto,
}

impl FiveTuple {
    /// The same conversation seen from the other side.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, proto: self.proto }
    }
}
