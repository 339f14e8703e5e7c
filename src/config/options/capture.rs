//! Options of `lc hunt` and `lc sniff` about where packets come from (section `capture`) and which targets are tried without
//! a processor's filter file (section `filters`).

use super::super::kind::{Item, Kind};
use super::{Commands, Group, Opt};

const BOTH: Commands = Commands::HUNT.and(Commands::SNIFF);

const fn capture(key: &'static str, kind: Kind) -> Opt {
    Opt::new(key, kind, Group::Capture, BOTH)
}

pub(super) const ROWS: &[Opt] = &[
    capture("capture.read", Kind::List(Item::Path))
        .flag("read")
        .short('r')
        .help("Read pcap or pcapng files instead of an interface (- is stdin)"),
    capture("capture.speed", Kind::Choice(&["1x", "max"]))
        .flag("speed")
        .default("max")
        .help("Pace of -r: as recorded, or as fast as possible"),
    capture("capture.count", Kind::Integer { min: 0, max: u64::MAX >> 1 })
        .flag("count")
        .default("0")
        .help("Stop after this many packets (0: never)"),
    capture("capture.promiscuous", Kind::Switch)
        .flag("promisc")
        .short('p')
        .also(&["promiscuous"])
        .default("false")
        .help("Take frames addressed to other machines"),
    // 262144 is libpcap's MAXIMUM_SNAPLEN: offloaded frames are larger than the MTU (decision 16).
    capture("capture.snaplen", Kind::Integer { min: 64, max: 262_144 })
        .flag("snaplen")
        .default("262144")
        .help("Bytes kept of each frame"),
    capture("capture.pcap_buffer_size", Kind::Size { min: 1 << 16, max: 1 << 34 })
        .flag("pcap-buffer-size")
        .also(&["pcap_buffer_size"])
        .default("16M")
        .help("Kernel buffer of each interface"),
    capture("capture.threads", Kind::Integer { min: 1, max: 64 })
        .flag("capture-threads")
        .default("1")
        .help("Capture threads of each interface"),
    capture("capture.keep_duplicates", Kind::Switch)
        .flag("keep-duplicates")
        .default("false")
        .help("Keep a packet seen twice within 100 ms"),
    capture("capture.esp_null", Kind::Switch)
        .flag("esp-null")
        .also(&["esp_null"])
        .default("false")
        .help("Look into ESP: the cipher is NULL"),
    capture("capture.esp_heuristic", Kind::Switch)
        .flag("esp-heuristic")
        .also(&["esp_heuristic"])
        .default("false")
        .help("Look into ESP whose content looks unencrypted"),
    capture("capture.esp_icv_size", Kind::Choice(&["auto", "0", "8", "12", "16", "-1"]))
        .flag("esp-icv-size")
        .also(&["esp_icv_size"])
        .default("auto")
        .help("Bytes of ESP's integrity check value"),
    select("filters.file", Kind::Path).flag("filter-file").help("Try the filters of this file"),
    select("filters.sip_user", Kind::List(Item::Text))
        .flag("sip-user")
        .private()
        .help("Target SIP users (alice, alice*, *ice; \\* is a star)"),
    select("filters.phone", Kind::List(Item::Text)).flag("phone").private().help("Target telephone numbers"),
    select("filters.call_id", Kind::List(Item::Text)).flag("call-id").private().help("Target Call-IDs"),
];

const fn select(key: &'static str, kind: Kind) -> Opt {
    Opt::new(key, kind, Group::Selection, BOTH)
}
