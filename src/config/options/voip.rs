//! Options of `lc hunt voip` and `lc sniff voip` (section `voip`).

use super::super::kind::{Item, Kind};
use super::{Commands, Group, Opt};

const fn voip(key: &'static str, kind: Kind) -> Opt {
    Opt::new(key, kind, Group::Voip, Commands::HUNT_VOIP.and(Commands::SNIFF_VOIP))
}

pub(super) const ROWS: &[Opt] = &[
    voip("voip.sip_ports", Kind::List(Item::Port))
        .flag("sip-port")
        .short('S')
        .also(&["voip.sip_port"])
        .help("Capture only these SIP ports [default: SIP on any port]"),
    voip("voip.rtp_port_ranges", Kind::List(Item::PortRange))
        .flag("rtp-port-range")
        .short('R')
        .also(&["voip.rtp_port_range"])
        .help("Capture RTP only in these ranges (10000-32768)"),
    voip("voip.udp_only", Kind::Switch).flag("udp-only").short('U').default("false").help("Capture only UDP").hidden(),
    voip("voip.lookback", Kind::Duration { max_secs: 3600 })
        .flag("lookback")
        .default("0s")
        .help("Keep this much of undecided calls, for a filter that comes later"),
    voip("voip.lookback_mb", Kind::Integer { min: 1, max: 1 << 20 })
        .flag("lookback-mb")
        .default("256")
        .help("MiB that --lookback may use"),
    voip("voip.phone_country", Kind::Digits).flag("phone-country").help("Country code, to compare numbers in E.164 form (49)"),
    voip("voip.phone_national_prefix", Kind::Digits)
        .flag("phone-national-prefix")
        .default("0")
        .help("Prefix of a national number"),
    voip("voip.phone_international_prefix", Kind::Digits)
        .flag("phone-international-prefix")
        .default("00")
        .help("Prefix of an international number"),
];
