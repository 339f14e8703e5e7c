//! Options of `lc process` (section `processor`).

use super::super::kind::{Item, Kind};
use super::super::units::{DEFAULT_PORT, METRICS_PORT};
use super::{Commands, Group, Opt};

const fn process(key: &'static str, kind: Kind, group: Group) -> Opt {
    Opt::new(key, kind, group, Commands::PROCESS)
}

pub(super) const ROWS: &[Opt] = &[
    process("processor.listen_addr", Kind::Listen { port: DEFAULT_PORT }, Group::Receiving)
        .flag("listen")
        .short('l')
        .default(":55555")
        .help("Address to listen on"),
    process("processor.id", Kind::Text, Group::Receiving)
        .flag("id")
        .short('I')
        .also(&["processor.processor_id"])
        .also_flags(&["processor-id"])
        .help("Name of this processor [default: the host name]"),
    process("processor.processor_addr", Kind::List(Item::Address), Group::Forwarding)
        .flag("processor")
        .short('P')
        .also(&["processor.upstream_addr", "processor.upstreams"])
        .also_flags(&["upstream"])
        .help("Pass everything on to these processors, in order of preference (port 55555 if none given)"),
    process("processor.disk_buffer.dir", Kind::Path, Group::Forwarding)
        .flag("disk-buffer-dir")
        .hidden()
        .help("Directory of the queue for them [default: upstream in the state directory]"),
    process("processor.disk_buffer.max_mb", Kind::Integer { min: 16, max: 1 << 24 }, Group::Forwarding)
        .flag("disk-buffer-max-mb")
        .default("1024")
        .help("MiB it may take; when it is full, hunters wait"),
    process("processor.upstream.tls.cert_file", Kind::Path, Group::Forwarding)
        .flag("upstream-tls-cert")
        .hidden()
        .help("Certificate to show there (PEM) [default: --tls-cert]"),
    process("processor.upstream.tls.key_file", Kind::Path, Group::Forwarding)
        .flag("upstream-tls-key")
        .hidden()
        .help("Its private key (PEM) [default: --tls-key]"),
    process("processor.upstream.tls.ca_file", Kind::Path, Group::Forwarding)
        .flag("upstream-tls-ca")
        .help("CA that signed their certificates (PEM) [default: --tls-ca]"),
    process("processor.upstream.tls.server_name", Kind::Text, Group::Forwarding)
        .flag("upstream-tls-server-name")
        .hidden()
        .help("Name their certificate must carry"),
    process("processor.upstream.tls.skip_verify", Kind::Switch, Group::Forwarding)
        .flag("upstream-tls-skip-verify")
        .hidden()
        .default("false")
        .help("Do not verify them (dangerous)"),
    process("processor.upstream.tls.crl_file", Kind::Path, Group::Forwarding)
        .flag("upstream-tls-crl")
        .hidden()
        .help("Revocation list of their CA (PEM)"),
    process("processor.upstream.tls.api_key_file", Kind::Path, Group::Forwarding)
        .flag("upstream-api-key-file")
        .hidden()
        .help("File with the API key to show there, one line, mode 0600"),
    process("processor.upstream.insecure", Kind::Switch, Group::Forwarding)
        .flag("upstream-insecure")
        .default("false")
        .help("Pass on in plain text (dangerous)"),
    process("processor.max_hunters", Kind::Integer { min: 1, max: 10_000 }, Group::Receiving)
        .flag("max-hunters")
        .short('m')
        .default("1000")
        .help("Hunters connected at once"),
    // less than a batch in a second would be no limit but an end
    process("processor.hunter_max_rate", Kind::SizeOrNone { min: 64 << 10, max: 1 << 40 }, Group::Receiving)
        .flag("hunter-max-rate")
        .default("0")
        .help("Bytes of batches read from one hunter in a second (0: no limit)"),
    // a hunter with hardly any traffic seals ten in a second of each capture thread
    process("processor.hunter_max_batches", Kind::IntegerOrNone { min: 64, max: 1_000_000 }, Group::Receiving)
        .flag("hunter-max-batches")
        .default("0")
        .help("Batches read from one hunter in a second (0: no limit)"),
    process("processor.max_subscribers", Kind::Integer { min: 1, max: 1000 }, Group::Receiving)
        .flag("max-subscribers")
        .default("100")
        .help("Monitors subscribed at once"),
    process("processor.peers", Kind::List(Item::Peer), Group::Receiving)
        .flag("peers")
        .help("Other processors that hunters may go to; told to them, and to those refused for want of room"),
    process("processor.max_connection_age", Kind::Duration { max_secs: 31_536_000 }, Group::Receiving)
        .flag("max-connection-age")
        .default("1h")
        .help("Let a connection end after this long; hunters connect again (0s: never)"),
    process("processor.filter_file", Kind::Path, Group::Receiving)
        .flag("filter-file")
        .short('f')
        .default("~/.config/lippycat/filters.yaml")
        .help("Filters for the hunters; read again when it changes"),
    process("processor.display_stats", Kind::Switch, Group::Receiving)
        .flag("stats")
        .short('s')
        .default("true")
        .help("Log a statistics line every 5 s"),
    process("processor.metrics_listen", Kind::Listen { port: METRICS_PORT }, Group::General)
        .flag("metrics-listen")
        .help("Serve /metrics, /statusz, /livez and /readyz here, in plain text (port 9464) [default: off]"),
    process("processor.state_dir", Kind::Path, Group::Receiving)
        .also_on(Commands::SPOOL)
        .flag("state-dir")
        .help("What survives a restart [default: $STATE_DIRECTORY, else ~/.local/state/lippycat]"),
    process("processor.durability", Kind::Choice(&["disk", "process"]), Group::Receiving)
        .flag("durability")
        .default("disk")
        .help("Acknowledge what the disk confirmed, or what the kernel has (survives kill -9, not power loss)"),
    process("processor.write_file", Kind::Path, Group::Output)
        .flag("write-file")
        .short('w')
        .help("Append every packet to this file (pcap, or pcapng by suffix)"),
    process("processor.per_call_pcap.enabled", Kind::Switch, Group::Output)
        .flag("per-call-pcap")
        .default("false")
        .help("Write the files of each call, and its JSON record"),
    process("processor.per_call_pcap.output_dir", Kind::Path, Group::Output)
        .flag("per-call-pcap-dir")
        .default("./pcaps")
        .help("Directory of the call files"),
    process("processor.per_call_pcap.file_pattern", Kind::Text, Group::Output)
        .flag("per-call-pcap-pattern")
        .default("{timestamp}_{callid}.pcap")
        .help("Name of the call files"),
    process("processor.per_call_pcap.layout", Kind::Choice(&["split", "merged"]), Group::Output)
        .flag("per-call-layout")
        .default("split")
        .help("One file each for SIP and RTP, or one for both"),
    process("processor.pcap_grace_period", Kind::Duration { max_secs: 3600 }, Group::Output)
        .flag("pcap-grace-period")
        .default("5s")
        .help("Wait for late packets after a call has ended"),
    process("processor.auto_rotate_pcap.enabled", Kind::Switch, Group::Output)
        .flag("auto-rotate-pcap")
        .default("false")
        .help("Write packets of no call to rotating files"),
    process("processor.auto_rotate_pcap.output_dir", Kind::Path, Group::Output)
        .flag("auto-rotate-pcap-dir")
        .default("./auto-rotate-pcaps")
        .help("Directory of the rotating files"),
    process("processor.auto_rotate_pcap.file_pattern", Kind::Text, Group::Output)
        .flag("auto-rotate-pcap-pattern")
        .default("{timestamp}.pcap")
        .help("Name of the rotating files"),
    process("processor.auto_rotate_pcap.idle_timeout", Kind::Duration { max_secs: 604_800 }, Group::Output)
        .flag("auto-rotate-idle-timeout")
        .default("30s")
        .help("Close a rotating file after this much silence"),
    process("processor.auto_rotate_pcap.max_size", Kind::Size { min: 4096, max: 1 << 44 }, Group::Output)
        .flag("auto-rotate-max-size")
        .default("100M")
        .help("Close a rotating file at this size"),
    process("processor.auto_rotate_pcap.max_duration", Kind::Duration { max_secs: 604_800 }, Group::Output)
        .flag("auto-rotate-max-duration")
        .default("1h")
        .help("Close a rotating file at this age (0s: never)"),
    process("processor.min_free", Kind::Reserve, Group::Output)
        .flag("min-free")
        .default("auto")
        .help("Disk space left alone: 5%, 1G; auto is the smaller of the two"),
    process("processor.retain_age", Kind::Duration { max_secs: 315_360_000 }, Group::Output)
        .flag("retain-age")
        .default("0s")
        .help("Delete call files older than this (0s: never)"),
    process("processor.tls.cert_file", Kind::Path, Group::Security).flag("tls-cert").help("Certificate of this processor (PEM)"),
    process("processor.tls.key_file", Kind::Path, Group::Security).flag("tls-key").help("Its private key (PEM)"),
    process("processor.tls.ca_file", Kind::Path, Group::Security)
        .flag("tls-ca")
        .help("CA that signed the clients' certificates (PEM)"),
    process("processor.tls.client_auth", Kind::Switch, Group::Security)
        .flag("tls-client-auth")
        .default("false")
        .help("Demand a certificate of every client"),
    process("processor.tls.crl_file", Kind::Path, Group::Security)
        .flag("tls-crl")
        .help("Revocation list of the clients' CA (PEM); what it names is cut off"),
    process("processor.tls.api_keys_file", Kind::Path, Group::Security)
        .flag("api-keys")
        .help("File of API keys that are accepted: ROLE ID sha256:HASH"),
    process("processor.tls.subscriber_grants_file", Kind::Path, Group::Security)
        .flag("subscriber-grants")
        .help("File of what each subscriber may see: ID hunters=ID,… filters=ID,… [default: everything]"),
    process("processor.insecure", Kind::Switch, Group::Security)
        .flag("insecure")
        .default("false")
        .help("Serve in plain text (dangerous)"),
];
