//! Address filters: single addresses and networks of both families.
//!
//! Promises: one hash probe per distinct prefix length in use of the address's own family, whatever the number of
//! filters; every filter on the same network keeps its id.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ahash::RandomState;
use smallvec::SmallVec;

use crate::packet::Ip;
use crate::pattern::PatternId;

use super::{BadPattern, Dialect, Hits};

/// Bits of an IPv4-mapped address in front of the IPv4 part (RFC 4291 §2.5.5.2).
const V4_OFFSET: u8 = 96;

/// A network; host bits are zero. IPv4 is mapped, its prefix length counted from the IPv6 start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    bits: u128,
    len: u8,
    v4: bool,
}

/// An address, `address/length`, or IPv4 with trailing stars (`192.0.*`).
pub(super) fn parse(pattern: &str) -> Result<Network, BadPattern> {
    let text = pattern.trim();
    if let Some(network) = octets_and_stars(text) {
        return Ok(network);
    }
    let (address, len) = match text.split_once('/') {
        Some((address, len)) if !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()) => {
            (address, Some(len.parse::<u8>().map_err(|_| BadPattern::Ip)?))
        }
        Some(_) => return Err(BadPattern::Ip),
        None => (text, None),
    };
    if let Ok(v4) = address.parse::<Ipv4Addr>() {
        network_v4(v4, len.unwrap_or(32))
    } else if let Ok(v6) = address.parse::<Ipv6Addr>() {
        let len = len.unwrap_or(128);
        match v6.to_ipv4_mapped() {
            Some(v4) if len >= V4_OFFSET => network_v4(v4, len.saturating_sub(V4_OFFSET)),
            _ if len <= 128 => Ok(Network { bits: mask(u128::from(v6), len), len, v4: false }),
            _ => Err(BadPattern::Ip),
        }
    } else {
        Err(BadPattern::Ip)
    }
}

pub(super) fn validate(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    parse(pattern).map(drop)
}

/// What the network is, in words.
pub(super) fn rule(network: Network) -> &'static str {
    if network.len == 128 { "address" } else { "network" }
}

/// `192.0.*` and `192.0.*.*` are 192.0.0.0/16.
fn octets_and_stars(text: &str) -> Option<Network> {
    let mut octets = text.strip_suffix(".*")?;
    while let Some(shorter) = octets.strip_suffix(".*") {
        octets = shorter;
    }
    let mut address = [0_u8; 4];
    let mut len = 0_u8;
    let mut given = octets.split('.');
    for (slot, octet) in address.iter_mut().take(3).zip(&mut given) {
        *slot = octet.bytes().all(|b| b.is_ascii_digit()).then(|| octet.parse().ok())??;
        len = len.saturating_add(8);
    }
    let whole = given.next().is_none() && text.split('.').count() <= 4;
    whole.then(|| network_v4(address.into(), len).ok())?
}

fn network_v4(address: Ipv4Addr, len: u8) -> Result<Network, BadPattern> {
    if len > 32 {
        return Err(BadPattern::Ip);
    }
    let len = len.saturating_add(V4_OFFSET);
    Ok(Network { bits: mask(u128::from(address.to_ipv6_mapped()), len), len, v4: true })
}

fn mask(bits: u128, len: u8) -> u128 {
    let host_bits = 128_u32.saturating_sub(u32::from(len));
    bits & u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

/// The networks of one prefix length.
#[derive(Debug)]
struct Level {
    len: u8,
    networks: HashMap<u128, SmallVec<[PatternId; 2]>, RandomState>,
}

/// Many networks; one table per prefix length and family, so at most 33 and 129.
#[derive(Debug, Default)]
pub(super) struct IpSet {
    v4: Vec<Level>,
    v6: Vec<Level>,
}

impl IpSet {
    /// Adds a network; ids must come in ascending order.
    pub(super) fn add(&mut self, network: Network, id: PatternId) {
        let family = if network.v4 { &mut self.v4 } else { &mut self.v6 };
        let at = match family.binary_search_by_key(&network.len, |level| level.len) {
            Ok(at) => at,
            Err(at) => {
                family.insert(at, Level { len: network.len, networks: HashMap::default() });
                at
            }
        };
        if let Some(level) = family.get_mut(at) {
            level.networks.entry(network.bits).or_default().push(id);
        }
    }

    /// Whether no network is held.
    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Adds every filter whose network holds `ip`.
    pub(super) fn find(&self, ip: Ip, hits: &mut Hits) {
        let bits = u128::from_be_bytes(ip.octets());
        let family = if ip.is_v4() { &self.v4 } else { &self.v6 };
        for level in family {
            for id in level.networks.get(&mask(bits, level.len)).into_iter().flatten() {
                if hits.take(*id).is_break() {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::FilterIndex;
    use super::*;

    fn found(patterns: &[&str], ip: &str) -> Vec<u32> {
        let mut set = IpSet::default();
        for (id, pattern) in (0..).zip(patterns) {
            set.add(parse(pattern).unwrap(), PatternId(id));
        }
        let mut hits = Hits::new();
        set.find(ip.parse::<IpAddr>().unwrap().into(), &mut hits);
        hits.as_slice().iter().map(|FilterIndex(i)| *i).collect()
    }

    #[test]
    fn addresses_and_networks_of_both_families_match() {
        let patterns = ["192.0.2.7", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1", "::/0", "10.9.8.7/8"];

        assert_eq!(found(&patterns, "192.0.2.7"), [0, 1, 2]);
        assert_eq!(found(&patterns, "10.1.1.1"), [2, 6]);
        assert_eq!(found(&patterns, "2001:db8::1"), [3, 4, 5]);
        assert_eq!(found(&patterns, "::ffff:192.0.2.7"), [0, 1, 2]);
        assert_eq!(found(&["::ffff:192.0.2.7"], "192.0.2.7"), [0]);
    }

    #[test]
    fn a_bug_of_the_predecessor_one_id_per_address_is_not_ours() {
        assert_eq!(
            found(&["192.0.2.7", "192.0.2.7", "192.0.2.7/32", "192.0.2.0/24", "192.0.2.9/24"], "192.0.2.7"),
            [0, 1, 2, 3, 4]
        );
    }

    #[test]
    fn a_bug_of_the_predecessor_octet_stars_never_match_is_not_ours() {
        assert_eq!(found(&["192.168.*", "192.168.*.*", "192.*", "192.168.1.*", "10.*"], "192.168.1.1"), [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "*",
            "192.0.2",
            "192.0.2.1/33",
            "::1/129",
            "192.0.2.1/",
            "192.0.2.1/+8",
            "192.0.2.1:5060",
            "1.2.3.4.*",
            "x.*",
            "*.1",
            "a",
        ] {
            assert_eq!(parse(bad), Err(BadPattern::Ip), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_plain_prefix_comparison(networks in proptest::collection::vec((any::<u32>(), 0_u8..=32), 1..20), ip in any::<u32>()) {
            let patterns: Vec<String> = networks.iter().map(|(a, l)| format!("{}/{l}", Ipv4Addr::from(*a))).collect();
            let near = networks[0].0 ^ (ip & 0xff);
            for ip in [ip, near] {
                let plain: Vec<u32> = (0..)
                    .zip(&networks)
                    .filter(|(_, (a, l))| (u64::from(a ^ ip) >> (32 - l)) == 0)
                    .map(|(i, _)| i)
                    .collect();
                let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
                prop_assert_eq!(found(&patterns, &Ipv4Addr::from(ip).to_string()), plain);
            }
        }
    }
}
