//! What an expression may cost before libpcap sees it.
//!
//! libpcap's compiler takes more than quadratic time in the number of terms (measured with 1.10: 300 ports in 1 KiB take 0.4 s, 1200 in
//! 4 KiB 24 s), cannot be interrupted, and asks the resolver for every word that it does not know. A filter comes from somebody else
//! and goes to every hunter, so both are refused in it: time is bounded by counting, not by a clock that a busy machine would trip.

/// Most terms of one filter, those joined by `and` and `or`; a range of ports counts as three. Measured: 30 ms at most, 1 ms as a rule.
pub const MAX_TERMS: usize = 64;

/// What a range of ports costs more than a port.
const RANGE: usize = 2;

/// Words after which libpcap reads a name of its own tables, or of the system's short ones, and asks no resolver.
const NAMING: [&str; 15] = [
    "port",
    "portrange",
    "proto",
    "protochain",
    "type",
    "subtype",
    "dir",
    "direction",
    "reason",
    "action",
    "on",
    "ifname",
    "rset",
    "ruleset",
    "llc",
];

/// Every other word of pcap-filter(7).
#[rustfmt::skip]
const WORDS: [&str; 112] = [
    "dst", "src", "link", "ether", "ppp", "slip", "fddi", "tr", "wlan", "arp", "rarp", "ip", "sctp", "tcp", "udp", "icmp", "igmp", "igrp",
    "pim", "vrrp", "carp", "radio", "ip6", "icmp6", "ah", "esp", "atalk", "aarp", "decnet", "lat", "sca", "moprc", "mopdl", "iso", "esis",
    "es-is", "isis", "is-is", "l1", "l2", "iih", "lsp", "snp", "csnp", "psnp", "clnp", "stp", "ipx", "netbeui", "host", "net", "mask",
    "gateway", "less", "greater", "byte", "broadcast", "multicast", "and", "or", "not", "len", "length", "inbound", "outbound", "vlan",
    "mpls", "pppoed", "pppoes", "geneve", "lane", "metac", "bcc", "oam", "oamf4", "oamf4ec", "oamf4sc", "sc", "ilmic", "vpi", "vci",
    "connectmsg", "metaconnect", "rnr", "rulenum", "srnr", "subrulenum", "fisu", "lssu", "lsu", "msu", "hfisu", "hlssu", "hmsu", "sio",
    "opc", "dpc", "sls", "hsio", "hopc", "hdpc", "hsls", "ra", "ta", "addr1", "addr2", "addr3", "addr4", "tcpflags", "icmptype",
    "icmpcode", "icmp6type",
];

/// Constants that stand in comparisons.
const CONSTANTS: [&str; 4] = ["tcp-", "icmp-", "icmp6-", "icmp6code"];

/// Whether libpcap can compile this in bounded time and by itself.
///
/// # Errors
/// Too many terms, or a name that would be looked up, with what to write instead.
pub(super) fn check(expression: &str) -> Result<(), String> {
    let (mut terms, mut naming, mut escaped) = (1_usize, false, false);
    for token in Tokens(expression) {
        match token {
            "\\" => {
                escaped = true;
                continue;
            }
            "&" | "|" => terms = terms.saturating_add(1),
            word if !word.starts_with(|c: char| c.is_ascii_alphanumeric()) => {}
            word if is_range(word) => terms = terms.saturating_add(RANGE),
            word if is_number(word) || is_address(word) => {}
            "and" | "or" if !escaped => terms = terms.saturating_add(1),
            "not" if !escaped => {}
            word if NAMING.contains(&word) && !escaped => naming = true,
            word if !escaped && (WORDS.contains(&word) || CONSTANTS.iter().any(|c| word.starts_with(c))) => naming = false,
            _ if naming => {}
            word => {
                let shown: String = word.chars().take(64).collect();
                return Err(format!(
                    "'{shown}' is no word of pcap-filter(7), and names are not looked up in filters; write an address"
                ));
            }
        }
        escaped = false;
    }
    if terms > MAX_TERMS {
        return Err(format!(
            "{terms} terms; the limit is {MAX_TERMS}, so make several filters of it, each of which lets packets through"
        ));
    }
    Ok(())
}

/// Words, numbers and addresses as libpcap's scanner takes them, `&&` and `||` as one sign, every other sign by itself.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0 = self.0.trim_start();
        let first = self.0.chars().next()?;
        let end = |inside: fn(char) -> bool| self.0.find(|c| !inside(c)).unwrap_or(self.0.len());
        let (len, shown) = match first {
            // one sign, however long: `a && b` has two terms, `ip[0] & 1` none more, which counting forgives
            '&' | '|' => (end(|c| matches!(c, '&' | '|')), 1),
            c if c.is_ascii_alphanumeric() => {
                let len = end(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':'));
                (len, len)
            }
            c => (c.len_utf8(), c.len_utf8()),
        };
        let (token, rest) = (self.0.get(..shown)?, self.0.get(len..)?);
        self.0 = rest;
        Some(token)
    }
}

fn is_number(word: &str) -> bool {
    let hex = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    // `[0:2]` is a place and a length
    hex.map_or_else(
        || word.split(':').all(|part| part.bytes().all(|b| b.is_ascii_digit() || b == b'.')),
        |digits| digits.bytes().all(|b| b.is_ascii_hexdigit()),
    )
}

fn is_range(word: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    word.split_once('-').is_some_and(|(from, to)| digits(from) && digits(to))
}

/// An IPv6 address or that of a network card: `a:b:c:d:e:f` with any of `:-.` between, `aaaa.bbbb.cccc`, or twelve digits.
fn is_address(word: &str) -> bool {
    if word.parse::<std::net::Ipv6Addr>().is_ok() {
        return true;
    }
    let card = |between: char, parts: usize, digits: usize| {
        word.split(between).count() == parts
            && word.split(between).all(|p| (1..=digits).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    card(':', 6, 2) || card('-', 6, 2) || card('.', 6, 2) || card('.', 3, 4) || (word.len() == 12 && card(':', 1, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_let_through() {
        for expression in [
            "udp port 5060 or tcp port 5060",
            "host 192.0.2.1 and not net 10.0.0.0/8",
            "net 10.0.0.0 mask 255.0.0.0 && (tcp || udp)",
            "ip6 host 2001:db8::1 or host ::1 or net fe80::/10",
            "ether host 02:00:00:00:00:01 or ether src 02-00-00-00-00-01 or ether dst 0200.0000.0001",
            "port sip or sips",
            "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and icmp[icmptype] != icmp-echo",
            "ip[6:2] & 0x1fff != 0",
            "ip proto \\icmp or ip proto ospf or ip6 protochain tcp",
            "portrange 10000-20000 and udp[8:4] = 0x4f505449",
            "vlan 5 and pppoes and mpls and geneve 7",
            "wlan type mgt subtype beacon",
            "len > 40 and less 1500 and ether broadcast",
        ] {
            assert_eq!(check(expression), Ok(()), "{expression}");
        }
    }

    #[test]
    fn a_name_that_libpcap_would_look_up_is_refused() {
        for (expression, name) in [
            ("host example.org", "example.org"),
            ("src and port 5060 or dst evil", "evil"),
            ("port sip or host sip", "sip"),
            ("port sip and net home", "home"),
            ("host \\port", "port"),
            ("host 3com.example", "3com.example"),
            ("host abcd", "abcd"),
            ("host abcd:1", "abcd:1"),
            ("ether host printer", "printer"),
            ("udp AND port 1", "AND"),
        ] {
            let refused = check(expression).unwrap_err();

            assert!(refused.starts_with(&format!("'{name}' is no word")), "{expression}: {refused}");
        }
    }

    #[test]
    fn terms_are_counted_however_they_are_joined() {
        for joint in [" or ", " and ", "||", " && ", " or not ", ") and ("] {
            let ports = |n: usize| format!("({})", vec!["port 1"; n].join(joint));

            assert_eq!(check(&ports(MAX_TERMS)), Ok(()), "{joint}");
            let refused = check(&ports(MAX_TERMS + 1)).unwrap_err();
            assert!(refused.starts_with("65 terms; the limit is 64"), "{refused}");
        }
        let ranges = |n: usize| format!("portrange {}", vec!["1-2"; n].join(" or "));
        assert!(check(&ranges(MAX_TERMS / 3)).is_ok() && check(&ranges(MAX_TERMS / 3 + 2)).is_err());
    }
}
