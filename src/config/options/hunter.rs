//! Options of `lc hunt` (section `hunter`).

use super::super::kind::{Item, Kind};
use super::super::units::METRICS_PORT;
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
        .also_on(Commands::SPOOL_DRAIN)
        .flag("processor")
        .short('P')
        .also(&["hunter.processors"])
        .help("Processors, in order of preference (port 55555 if none given)"),
    hunt("hunter.id", Kind::Text, Group::Forwarding)
        .also_on(Commands::SPOOL)
        .flag("id")
        .short('I')
        .also(&["hunter.hunter_id"])
        .also_flags(&["hunter-id"])
        .help("Name of this hunter [default: the host name]"),
    hunt("hunter.batch_size", Kind::Integer { min: 1, max: 16_384 }, Group::Forwarding)
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
    hunt("hunter.durability", Kind::Choice(&["auto", "memory", "spill", "wal"]), Group::Forwarding)
        .flag("durability")
        .default("auto")
        .help("Where unacknowledged batches live (auto: wal for voip, else spill; memory with -r)"),
    hunt("hunter.disk_buffer.enabled", Kind::Switch, Group::Forwarding)
        .flag("disk-buffer")
        .default("false")
        .help("The same as --durability spill"),
    hunt("hunter.disk_buffer.dir", Kind::Path, Group::Forwarding)
        .also_on(Commands::SPOOL)
        .flag("disk-buffer-dir")
        .help("Directory of the disk queue [default: spool in the state directory]"),
    hunt("hunter.disk_buffer.max_mb", Kind::Integer { min: 16, max: 1 << 24 }, Group::Forwarding)
        .flag("disk-buffer-max-mb")
        .default("1024")
        .help("MiB the disk queue may take"),
    hunt("hunter.disk_buffer.min_free", Kind::Reserve, Group::Forwarding)
        .flag("spool-min-free")
        .default("auto")
        .help("Disk space the queue leaves alone (auto: 5 % or 1 GiB, whichever is less)"),
    hunt("hunter.disk_buffer.when_full", Kind::Choice(&["auto", "drop-oldest", "drop-newest", "block"]), Group::Forwarding)
        .flag("spool-full")
        .default("auto")
        .help("What a full disk queue does (auto: drop-oldest; block with -r)"),
    hunt("hunter.connect_timeout", Kind::Duration { max_secs: 86_400 }, Group::Forwarding)
        .flag("connect-timeout")
        .default("30s")
        .help("With -r: give up connecting after this long"),
    hunt("hunter.metrics_listen", Kind::Listen { port: METRICS_PORT }, Group::General)
        .flag("metrics-listen")
        .help("Serve /metrics, /statusz, /livez and /readyz here, in plain text (port 9464) [default: off]"),
    hunt("hunter.tls.cert_file", Kind::Path, Group::Security)
        .also_on(Commands::SPOOL_DRAIN)
        .flag("tls-cert")
        .help("Certificate of this hunter (PEM)"),
    hunt("hunter.tls.key_file", Kind::Path, Group::Security)
        .also_on(Commands::SPOOL_DRAIN)
        .flag("tls-key")
        .help("Its private key (PEM)"),
    hunt("hunter.tls.ca_file", Kind::Path, Group::Security)
        .also_on(Commands::SPOOL_DRAIN)
        .flag("tls-ca")
        .help("CA that signed the processor's certificate (PEM)"),
    hunt("hunter.tls.server_name", Kind::Text, Group::Security)
        .also_on(Commands::SPOOL_DRAIN)
        .flag("tls-server-name")
        .help("Name the processor's certificate must carry"),
    hunt("hunter.tls.skip_verify", Kind::Switch, Group::Security)
        .also_on(Commands::SPOOL_DRAIN)
        .flag("tls-skip-verify")
        .default("false")
        .help("Do not verify the processor (dangerous)"),
    hunt("hunter.tls.crl_file", Kind::Path, Group::Security)
        .also_on(Commands::SPOOL_DRAIN)
        .flag("tls-crl")
        .help("Revocation list of the processor's CA (PEM)"),
    hunt("hunter.tls.api_key_file", Kind::Path, Group::Security)
        .also_on(Commands::SPOOL_DRAIN)
        .flag("api-key-file")
        .help("File with the API key to show, one line, mode 0600"),
    hunt("hunter.insecure", Kind::Switch, Group::Security)
        .also_on(Commands::SPOOL_DRAIN)
        .flag("insecure")
        .default("false")
        .help("Send in plain text (dangerous)"),
];
