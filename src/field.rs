//! Word: what a protocol said, by the name filters, events and the documentation use for it.
//!
//! Both `filter/` and `protocols/` speak of fields, so the word stands above both.

/// A place an identity, name or address can be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// `From` (RFC 3261 §20.20).
    SipFrom,
    /// `To` (RFC 3261 §20.39).
    SipTo,
    /// The Request-URI (RFC 3261 §8.1.1.1).
    SipRequestUri,
    /// `P-Asserted-Identity` (RFC 3325 §9.1).
    SipPAssertedIdentity,
    /// `P-Preferred-Identity` (RFC 3325 §9.2).
    SipPPreferredIdentity,
    /// `P-Called-Party-ID` (RFC 7315 §4.2).
    SipPCalledPartyId,
    /// `Remote-Party-ID` (draft-ietf-sip-privacy-04).
    SipRemotePartyId,
    /// `Diversion` (RFC 5806).
    SipDiversion,
    /// `History-Info` (RFC 7044).
    SipHistoryInfo,
    /// `Contact` (RFC 3261 §20.10).
    SipContact,
    /// The `username` of `Authorization` or `Proxy-Authorization` (RFC 3261 §20.7, §20.28).
    SipAuthUser,
}

impl Field {
    /// Every field, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::SipFrom,
        Self::SipTo,
        Self::SipRequestUri,
        Self::SipPAssertedIdentity,
        Self::SipPPreferredIdentity,
        Self::SipPCalledPartyId,
        Self::SipRemotePartyId,
        Self::SipDiversion,
        Self::SipHistoryInfo,
        Self::SipContact,
        Self::SipAuthUser,
    ];

    /// The dotted name, as Wireshark spells it where it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SipFrom => "sip.from",
            Self::SipTo => "sip.to",
            Self::SipRequestUri => "sip.r-uri",
            Self::SipPAssertedIdentity => "sip.pai",
            Self::SipPPreferredIdentity => "sip.ppi",
            Self::SipPCalledPartyId => "sip.pcpid",
            Self::SipRemotePartyId => "sip.rpid",
            Self::SipDiversion => "sip.diversion",
            Self::SipHistoryInfo => "sip.history-info",
            Self::SipContact => "sip.contact",
            Self::SipAuthUser => "sip.auth.username",
        }
    }
}
