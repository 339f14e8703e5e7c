//! Options of `lc hunt` (section `hunter`).

use super::super::kind::{Item, Kind};
use super::{Commands, Group, Opt};

const fn hunt(key: &'static str, kind: Kind, group: Group) -> Opt {
    Opt::new(key, kind, group, Commands::HUNT)
}

pub(super) const ROWS: &[Opt] = &[
    hunt("hunter.interfaces", Kind::List(Item::Text), Group::Capture)
        .flag("interface")
        .short('i')
        .default("any")
        .help("Interfaces to capture on"),
    hunt("hunter.bpf_filter", Kind::Text, Group::Capture)
        .flag("filter")
        .short('f')
        .help("Capture filter (pcap-filter(7)), on the outer headers"),
    hunt("hunter.no_filter_policy", Kind::Choice(&["deny", "allow"]), Group::Selection)
        .flag("no-filter-policy")
        .default("deny")
        .help("What to forward while there is no filter"),
    hunt("hunter.processor_addr", Kind::List(Item::Address), Group::Forwarding)
        .flag("processor")
        .short('P')
        .also(&["hunter.processors"])
        .help("Processors, in order of preference (port 55555 if none given)"),
    hunt("hunter.id", Kind::Text, Group::Forwarding)
        .flag("id")
        .short('I')
        .also(&["hunter.hunter_id"])
        .also_flags(&["hunter-id"])
        .help("Name of this hunter [default: the host name]"),
    hunt("hunter.batch_size", Kind::Integer { min: 1, max: 65_536 }, Group::Forwarding)
        .flag("batch-size")
        .default("1024")
        .help("Packets that seal a batch"),
    // 4 MiB is the hard cap of one message (decision 28).
    hunt("hunter.batch_bytes", Kind::Size { min: 1024, max: 4 << 20 }, Group::Forwarding)
        .flag("batch-bytes")
        .default("64K")
        .help("Bytes that seal a batch"),
    hunt("hunter.batch_timeout_ms", Kind::Millis { min: 1, max: 60_000 }, Group::Forwarding)
        .flag("batch-timeout")
        .also(&["hunter.batch_timeout"])
        .default("100ms")
        .help("Age that seals a batch (a plain number is milliseconds)"),
    hunt("hunter.max_memory", Kind::Size { min: 8 << 20, max: 1 << 40 }, Group::Forwarding)
        .flag("max-memory")
        .default("64M")
        .help("Memory for batches not yet acknowledged"),
    hunt("hunter.connect_timeout", Kind::Duration { max_secs: 86_400 }, Group::Forwarding)
        .flag("connect-timeout")
        .default("30s")
        .help("With -r: give up connecting after this long"),
    hunt("hunter.tls.cert_file", Kind::Path, Group::Security).flag("tls-cert").help("Certificate of this hunter (PEM)"),
    hunt("hunter.tls.key_file", Kind::Path, Group::Security).flag("tls-key").help("Its private key (PEM)"),
    hunt("hunter.tls.ca_file", Kind::Path, Group::Security)
        .flag("tls-ca")
        .help("CA that signed the processor's certificate (PEM)"),
    hunt("hunter.tls.server_name", Kind::Text, Group::Security)
        .flag("tls-server-name")
        .help("Name the processor's certificate must carry"),
    hunt("hunter.tls.skip_verify", Kind::Switch, Group::Security)
        .flag("tls-skip-verify")
        .default("false")
        .help("Do not verify the processor (dangerous)"),
    hunt("hunter.insecure", Kind::Switch, Group::Security)
        .flag("insecure")
        .default("false")
        .help("Send in plain text (dangerous)"),
];
