//! The filter kinds as data: names, wire numbers, help, validation, and where each applies.

use super::{BadPattern, Dialect, codec, device, identity, ip, payload, phone};

/// What a filter's pattern is held against. The discriminants are the wire numbers (`FilterType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FilterKind {
    /// User part of any identity of a SIP message.
    SipUser = 0,
    /// Telephone number in any identity.
    PhoneNumber = 1,
    /// Address or network.
    IpAddress = 2,
    /// `Call-ID`.
    CallId = 3,
    /// Codec announced in SDP.
    Codec = 4,
    /// pcap-filter expression.
    Bpf = 5,
    /// `user@host` of any identity.
    SipUri = 6,
    /// DNS name.
    DnsDomain = 7,
    /// Mail address.
    EmailAddress = 8,
    /// Mail subject.
    EmailSubject = 9,
    /// TLS server name.
    TlsSni = 10,
    /// TLS client fingerprint.
    TlsJa3 = 11,
    /// TLS server fingerprint.
    TlsJa3s = 12,
    /// TLS client fingerprint, later scheme.
    TlsJa4 = 13,
    /// HTTP host.
    HttpHost = 14,
    /// HTTP path and query.
    HttpUrl = 15,
    /// Mobile subscriber.
    Imsi = 16,
    /// Mobile device.
    Imei = 17,
}

/// What a node understands of the traffic it sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Packets and addresses only.
    Generic,
    /// SIP, SDP, RTP.
    #[default]
    Voip,
    /// DNS.
    Dns,
    /// HTTP.
    Http,
    /// TLS handshakes.
    Tls,
    /// Mail.
    Email,
}

impl Mode {
    /// As commands and messages write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Voip => "voip",
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Email => "email",
        }
    }
}

/// What a match selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole call.
    Call,
    /// The packet alone.
    Packet,
}

/// One row of [`KINDS`].
#[derive(Debug)]
pub struct Kind {
    /// The kind.
    pub kind: FilterKind,
    /// Name in files, flags and capabilities.
    pub name: &'static str,
    /// Other names that files and peers may use.
    pub aliases: &'static [&'static str],
    /// One line for people.
    pub help: &'static str,
    /// Modes in which a node can apply it.
    pub modes: &'static [Mode],
    /// Checks a pattern as far as possible without knowing the node it will run on.
    pub validate: fn(&str, Dialect) -> Result<(), BadPattern>,
}

const EVERYWHERE: &[Mode] = &[Mode::Generic, Mode::Voip, Mode::Dns, Mode::Http, Mode::Tls, Mode::Email];
const VOIP: &[Mode] = &[Mode::Voip];

/// Every kind, by wire number.
pub static KINDS: [Kind; 18] = [
    Kind {
        kind: FilterKind::SipUser,
        name: "sip_user",
        aliases: &["sipuser"],
        help: "user part of From, To, Request-URI or any other identity: alice, +4930*, *-ext, *lic*",
        modes: VOIP,
        validate: identity::validate_user,
    },
    Kind {
        kind: FilterKind::PhoneNumber,
        name: "phone_number",
        aliases: &["phone", "phonenumber"],
        help: "telephone number in any spelling: +493012345678, 030 12345678, +4930*",
        modes: VOIP,
        validate: phone::validate,
    },
    Kind {
        kind: FilterKind::IpAddress,
        name: "ip_address",
        aliases: &["ip", "ipaddress"],
        help: "address or network: 192.0.2.7, 192.0.2.0/24, 2001:db8::/32",
        modes: EVERYWHERE,
        validate: ip::validate,
    },
    Kind {
        kind: FilterKind::CallId,
        name: "call_id",
        aliases: &["callid"],
        help: "Call-ID, compared byte for byte: 3848276298220188511@example.com, *@pbx.example.com",
        modes: VOIP,
        validate: identity::validate_call_id,
    },
    Kind {
        kind: FilterKind::Codec,
        name: "codec",
        aliases: &[],
        help: "codec offered or answered in SDP: PCMA, opus, AMR*",
        modes: VOIP,
        validate: codec::validate,
    },
    Kind {
        kind: FilterKind::Bpf,
        name: "bpf",
        aliases: &[],
        help: "pcap-filter expression; restricts all other filters: net 192.0.2.0/24 and not port 5061",
        modes: EVERYWHERE,
        validate: super::bpf::validate,
    },
    Kind {
        kind: FilterKind::SipUri,
        name: "sip_uri",
        aliases: &["sipuri"],
        help: "user@host of any identity: alice@example.com, *@example.com",
        modes: VOIP,
        validate: identity::validate_uri,
    },
    Kind {
        kind: FilterKind::DnsDomain,
        name: "dns_domain",
        aliases: &["dns", "domain"],
        help: "name asked or answered: example.com, *.example.com",
        modes: &[Mode::Dns],
        validate: payload::validate_name,
    },
    Kind {
        kind: FilterKind::EmailAddress,
        name: "email_address",
        aliases: &["email"],
        help: "sender or recipient: alice@example.com, *@example.com",
        modes: &[Mode::Email],
        validate: payload::validate_name,
    },
    Kind {
        kind: FilterKind::EmailSubject,
        name: "email_subject",
        aliases: &["subject"],
        help: "subject of a mail: *invoice*",
        modes: &[Mode::Email],
        validate: payload::validate_text,
    },
    Kind {
        kind: FilterKind::TlsSni,
        name: "tls_sni",
        aliases: &["sni"],
        help: "server name of a TLS handshake: *.example.com",
        modes: &[Mode::Tls],
        validate: payload::validate_name,
    },
    Kind {
        kind: FilterKind::TlsJa3,
        name: "tls_ja3",
        aliases: &["ja3"],
        help: "JA3 fingerprint of a TLS client: 32 hexadecimal digits",
        modes: &[Mode::Tls],
        validate: payload::validate_ja3,
    },
    Kind {
        kind: FilterKind::TlsJa3s,
        name: "tls_ja3s",
        aliases: &["ja3s"],
        help: "JA3S fingerprint of a TLS server: 32 hexadecimal digits",
        modes: &[Mode::Tls],
        validate: payload::validate_ja3,
    },
    Kind {
        kind: FilterKind::TlsJa4,
        name: "tls_ja4",
        aliases: &["ja4"],
        help: "JA4 fingerprint of a TLS client: t13d1516h2_8daaf6152771_e5627efa2ab1",
        modes: &[Mode::Tls],
        validate: payload::validate_ja4,
    },
    Kind {
        kind: FilterKind::HttpHost,
        name: "http_host",
        aliases: &["host"],
        help: "host of an HTTP request: *.example.com",
        modes: &[Mode::Http],
        validate: payload::validate_name,
    },
    Kind {
        kind: FilterKind::HttpUrl,
        name: "http_url",
        aliases: &["http_path", "url"],
        help: "path and query of an HTTP request: /login*",
        modes: &[Mode::Http],
        validate: payload::validate_name,
    },
    Kind {
        kind: FilterKind::Imsi,
        name: "imsi",
        aliases: &[],
        help: "mobile subscriber, from the private identity: 262011234567890, 26201*",
        modes: VOIP,
        validate: device::validate_imsi,
    },
    Kind {
        kind: FilterKind::Imei,
        name: "imei",
        aliases: &[],
        help: "mobile device, from +sip.instance; check digit and software version do not count: 35-209900-176148-1, 35209900*",
        modes: VOIP,
        validate: device::validate_imei,
    },
];

impl FilterKind {
    /// The kind's row.
    pub fn row(self) -> &'static Kind {
        // The table is by wire number (a test holds that), so the fallback is never taken.
        let [first, ..] = &KINDS;
        KINDS.get(self as usize).unwrap_or(first)
    }

    /// Name in files, flags and capabilities.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The number on the wire (`FilterType`).
    pub const fn wire(self) -> i32 {
        self as i32
    }

    /// The kind of that wire number.
    pub fn from_wire(number: i32) -> Option<Self> {
        KINDS.get(usize::try_from(number).ok()?).map(|row| row.kind)
    }

    /// The kind of that name, alias or wire name (`FILTER_SIP_USER`), in any case.
    pub fn parse(name: &str) -> Option<Self> {
        const WIRE_PREFIX: &str = "FILTER_";
        let name = match name.split_at_checked(WIRE_PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(WIRE_PREFIX) => rest,
            _ => name,
        };
        KINDS
            .iter()
            .find(|row| row.name.eq_ignore_ascii_case(name) || row.aliases.iter().any(|a| a.eq_ignore_ascii_case(name)))
            .map(|row| row.kind)
    }

    /// Whether a node in that mode can apply it.
    pub fn applies(self, mode: Mode) -> bool {
        self.row().modes.contains(&mode)
    }

    /// What a match selects in that mode.
    pub fn scope(self, mode: Mode) -> Scope {
        if mode == Mode::Voip && self != Self::Bpf { Scope::Call } else { Scope::Packet }
    }
}

/// The kind names a node in that mode announces at registration, plus the spelling older processors use.
pub fn capabilities(mode: Mode) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = KINDS.iter().filter(|row| row.kind.applies(mode)).map(|row| row.name).collect();
    if mode == Mode::Http {
        names.push("http_path");
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_by_wire_number() {
        for (number, row) in (0..).zip(&KINDS) {
            assert_eq!(row.kind.wire(), number, "{}", row.name);
            assert_eq!(FilterKind::from_wire(number), Some(row.kind));
            assert_eq!(row.kind.row().name, row.name);
        }
        assert_eq!(FilterKind::from_wire(18), None);
        assert_eq!(FilterKind::from_wire(-1), None);
    }

    #[test]
    fn every_name_means_one_kind() {
        let mut names: Vec<&str> = KINDS.iter().flat_map(|row| row.aliases.iter().copied().chain([row.name])).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();

        assert_eq!(names.len(), all);
    }

    #[test]
    fn seeds_names_and_wire_names_are_accepted() {
        for (name, kind) in [
            ("sipuser", FilterKind::SipUser),
            ("callid", FilterKind::CallId),
            ("ip", FilterKind::IpAddress),
            ("http_path", FilterKind::HttpUrl),
            ("FILTER_SIP_USER", FilterKind::SipUser),
            ("filter_imei", FilterKind::Imei),
            ("SIP_URI", FilterKind::SipUri),
        ] {
            assert_eq!(FilterKind::parse(name), Some(kind), "{name}");
        }
        assert_eq!(FilterKind::parse("filter_"), None);
        assert_eq!(FilterKind::parse("FILTERÄ"), None);
    }

    #[test]
    fn a_voip_node_announces_what_it_can_really_match() {
        assert_eq!(
            capabilities(Mode::Voip),
            ["sip_user", "phone_number", "ip_address", "call_id", "codec", "bpf", "sip_uri", "imsi", "imei"]
        );
        assert_eq!(capabilities(Mode::Generic), ["ip_address", "bpf"]);
        assert!(capabilities(Mode::Http).contains(&"http_path"));
    }

    #[test]
    fn addresses_select_calls_in_voip_mode_and_packets_elsewhere() {
        assert_eq!(FilterKind::IpAddress.scope(Mode::Voip), Scope::Call);
        assert_eq!(FilterKind::IpAddress.scope(Mode::Generic), Scope::Packet);
        assert_eq!(FilterKind::Bpf.scope(Mode::Voip), Scope::Packet);
    }
}
