//! What a certificate says: who it names, what for, how long.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

/// What the holder of a certificate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Captures.
    Hunter,
    /// Collects; also the client of a processor above it.
    Processor,
    /// Changes filters.
    Admin,
    /// Watches.
    Subscriber,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Hunter, Self::Processor, Self::Admin, Self::Subscriber];

    /// As certificates and commands spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hunter => "hunter",
            Self::Processor => "processor",
            Self::Admin => "admin",
            Self::Subscriber => "subscriber",
        }
    }

    /// By its name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who a peer is, by the SAN URI `lc:<role>:<id>` of its certificate; the common name does not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// What it may be.
    pub role: Role,
    /// Its name there.
    pub id: String,
}

impl PeerIdentity {
    fn from_uri(uri: &str) -> Option<Self> {
        let (role, id) = uri.strip_prefix("lc:")?.split_once(':')?;
        let role = Role::by_name(role)?;
        (!id.is_empty()).then(|| Self { role, id: id.to_owned() })
    }

    /// The SAN URI.
    pub fn uri(&self) -> String {
        format!("lc:{}:{}", self.role, self.id)
    }
}

/// A certificate, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFacts {
    /// Common name of the subject, or nothing.
    pub common_name: String,
    /// Common name of the issuer, or nothing.
    pub issuer: String,
    /// The role and id of its SAN URI.
    pub identity: Option<PeerIdentity>,
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// All URIs.
    pub uris: Vec<String>,
    /// Start of validity, seconds since 1970.
    pub not_before: i64,
    /// End of validity, seconds since 1970.
    pub not_after: i64,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// May be shown by a server.
    pub for_servers: bool,
    /// May be shown by a client.
    pub for_clients: bool,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate in hexadecimal.
    pub fingerprint: String,
}

impl CertFacts {
    /// Reads a DER certificate; `None` when it is not one.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let mut facts = Self {
            common_name: common_name(cert.subject()),
            issuer: common_name(cert.issuer()),
            identity: None,
            dns: Vec::new(),
            ips: Vec::new(),
            uris: Vec::new(),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            is_ca: cert.is_ca(),
            // Without a list of usages every usage is meant (RFC 5280 §4.2.1.12).
            for_servers: !cert.is_ca(),
            for_clients: !cert.is_ca(),
            serial: hex(cert.raw_serial()),
            fingerprint: hex(&Sha256::digest(der)),
        };
        for extension in cert.extensions() {
            let parsed = extension.parsed_extension();
            if let ParsedExtension::SubjectAlternativeName(san) = parsed {
                san.general_names.iter().for_each(|n| facts.name(n));
            } else if let ParsedExtension::ExtendedKeyUsage(usage) = parsed {
                facts.for_servers = usage.server_auth || usage.any;
                facts.for_clients = usage.client_auth || usage.any;
            }
        }
        facts.identity = facts.uris.iter().find_map(|uri| PeerIdentity::from_uri(uri));
        Some(facts)
    }

    fn name(&mut self, name: &GeneralName<'_>) {
        if let GeneralName::DNSName(dns) = name {
            self.dns.push((*dns).to_owned());
        } else if let GeneralName::URI(uri) = name {
            self.uris.push((*uri).to_owned());
        } else if let GeneralName::IPAddress(octets) = name {
            let v4 = <[u8; 4]>::try_from(*octets).map(|o| IpAddr::V4(Ipv4Addr::from(o)));
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(|o| IpAddr::V6(Ipv6Addr::from(o))));
            self.ips.extend(ip);
        }
    }
}

/// Seconds since 1970 as people read them, in UTC.
pub fn date(secs: i64) -> String {
    let Ok(time) = ASN1Time::from_timestamp(secs) else { return format!("second {secs}") };
    let t = time.to_datetime();
    let (month, day) = (u8::from(t.month()), t.day());
    format!("{:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", t.year(), t.hour(), t.minute(), t.second())
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    name.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default().to_owned()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut out = String::with_capacity(bytes.len().saturating_mul(2));
    for b in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "{b:02x}");
    }
    out
}
