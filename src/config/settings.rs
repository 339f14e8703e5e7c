//! The merged options as types, section by section. Fields carry the names of the keys; a test holds them to the table.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::units::{PortRange, Reserve, nanos};

/// Every section.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where packets come from.
    pub capture: Capture,
    /// Targets named on this machine.
    pub filters: Filters,
    /// `lc hunt`.
    pub hunter: Hunter,
    /// SIP and RTP.
    pub voip: Voip,
    /// `lc sniff`.
    pub sniff: Sniff,
    /// `lc process`.
    pub processor: Processor,
    /// The process itself.
    pub system: System,
    /// Commands that ask a processor.
    pub remote: Remote,
    /// `lc certs`.
    pub certs: Certs,
    /// Logs.
    pub log: Log,
}

/// Section `capture`: shared by `lc hunt` and `lc sniff`.
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the operator, not states")]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Files to read instead of an interface, in order; `-` is stdin. Empty: live.
    pub read: Vec<PathBuf>,
    /// Pace of a file.
    pub speed: Speed,
    /// Stop after this many packets; 0 is never.
    pub count: u64,
    /// Promiscuous mode.
    pub promiscuous: bool,
    /// Bytes kept of a frame, 64–262144.
    pub snaplen: u32,
    /// Kernel buffer of each interface, in bytes.
    pub pcap_buffer_size: u64,
    /// Capture threads of each interface, 1–64.
    pub threads: u16,
    /// Keep doubles (decision 9).
    pub keep_duplicates: bool,
    /// All ESP is NULL-encrypted.
    pub esp_null: bool,
    /// ESP may be NULL-encrypted; look.
    pub esp_heuristic: bool,
    /// Length of ESP's integrity check value; none is "find out".
    #[serde(deserialize_with = "icv_size")]
    pub esp_icv_size: Option<u8>,
}

impl Capture {
    /// From interfaces, not from files.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.read.is_empty()
    }
}

/// Pace of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Speed {
    /// As recorded.
    #[serde(rename = "1x")]
    Recorded,
    /// As fast as possible.
    #[serde(rename = "max")]
    Max,
}

/// Section `filters`: targets tried without a processor's filter file (decision 39).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// A filter file.
    pub file: Option<PathBuf>,
    /// Patterns for SIP users.
    pub sip_user: Vec<String>,
    /// Telephone numbers.
    pub phone: Vec<String>,
    /// Call-IDs.
    pub call_id: Vec<String>,
}

impl Filters {
    /// Whether nothing is targeted here.
    pub const fn is_empty(&self) -> bool {
        self.file.is_none() && self.sip_user.is_empty() && self.phone.is_empty() && self.call_id.is_empty()
    }
}

/// Section `hunter`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hunter {
    /// Interfaces; `any` is all of them.
    pub interfaces: Vec<String>,
    /// Capture filter.
    pub bpf_filter: Option<String>,
    /// What to forward while there is no filter.
    pub no_filter_policy: NoFilterPolicy,
    /// Processors, most preferred first, each `host:port`.
    pub processor_addr: Vec<String>,
    /// Name; none is the host name.
    pub id: Option<String>,
    /// Packets that seal a batch.
    pub batch_size: u32,
    /// Bytes that seal a batch.
    pub batch_bytes: u64,
    /// Age that seals a batch.
    #[serde(rename = "batch_timeout_ms", deserialize_with = "nanos")]
    pub batch_timeout: Duration,
    /// Bytes of batches not yet acknowledged.
    pub max_memory: u64,
    /// Where batches live until they are acknowledged.
    pub durability: Durability,
    /// The disk queue.
    pub disk_buffer: DiskBuffer,
    /// With files: give up connecting after this long.
    #[serde(deserialize_with = "nanos")]
    pub connect_timeout: Duration,
    /// Where figures and health are served; none is nowhere.
    pub metrics_listen: Option<String>,
    /// TLS material.
    pub tls: ClientTls,
    /// Plain text.
    pub insecure: bool,
}

/// Where batches live until they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// What suits the mode.
    Auto,
    /// In memory.
    Memory,
    /// On disk what does not fit into memory.
    Spill,
    /// All of it on disk.
    Wal,
}

/// Section `hunter.disk_buffer`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskBuffer {
    /// The predecessor's switch: [`Durability::Spill`].
    pub enabled: bool,
    /// Directory; each hunter has its own below it.
    pub dir: Option<PathBuf>,
    /// MiB on disk at most.
    pub max_mb: u64,
    /// Disk space left alone.
    pub min_free: Reserve,
    /// What happens when there is no room.
    pub when_full: WhenFull,
}

/// What a full disk queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// What suits the source.
    Auto,
    /// Gives up its oldest batches.
    DropOldest,
    /// Takes no new ones.
    DropNewest,
    /// Lets the reader of a file wait.
    Block,
}

/// What is forwarded while there is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoFilterPolicy {
    /// Nothing.
    Deny,
    /// Everything.
    Allow,
}

/// TLS material of somebody who connects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// Own certificate chain (PEM).
    pub cert_file: Option<PathBuf>,
    /// Own private key (PEM).
    pub key_file: Option<PathBuf>,
    /// CA of the other side (PEM).
    pub ca_file: Option<PathBuf>,
    /// Name the other side's certificate must carry; none is the host connected to.
    pub server_name: Option<String>,
    /// Verify nothing.
    pub skip_verify: bool,
    /// Certificates of the other side that no longer count (PEM).
    pub crl_file: Option<PathBuf>,
    /// File with the API key that calls carry.
    pub api_key_file: Option<PathBuf>,
}

/// Section `voip`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voip {
    /// Capture only these SIP ports; empty is any.
    pub sip_ports: Vec<u16>,
    /// Capture RTP only here; empty is anywhere.
    pub rtp_port_ranges: Vec<PortRange>,
    /// Capture only UDP.
    pub udp_only: bool,
    /// How long undecided calls are kept for a later filter; zero is not at all.
    #[serde(deserialize_with = "nanos")]
    pub lookback: Duration,
    /// MiB that look-back may use.
    pub lookback_mb: u64,
    /// Country code, digits.
    pub phone_country: Option<String>,
    /// Prefix of a national number.
    pub phone_national_prefix: Option<String>,
    /// Prefix of an international number.
    pub phone_international_prefix: Option<String>,
}

/// Section `sniff`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sniff {
    /// Interfaces; `any` is all of them.
    pub interfaces: Vec<String>,
    /// Capture filter.
    pub bpf_filter: Option<String>,
    /// Where matched packets go.
    pub write_file: Option<PathBuf>,
    /// Form of the events.
    pub output_format: OutputFormat,
}

/// Form of results on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// For people.
    Text,
    /// JSON, one object per line.
    Json,
}

/// Section `processor`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processor {
    /// `host:port`; without a host, every address.
    pub listen_addr: String,
    /// Name; none is the host name.
    pub id: Option<String>,
    /// Processors above this one, most preferred first; none: it is the last.
    pub processor_addr: Vec<String>,
    /// How they are reached.
    pub upstream: Upstream,
    /// What waits for them.
    pub disk_buffer: UpstreamBuffer,
    /// Hunters connected at once.
    pub max_hunters: u32,
    /// Bytes of batches read from one hunter in a second; zero: as many as there are.
    pub hunter_max_rate: u64,
    /// Batches read from one hunter in a second; likewise.
    pub hunter_max_batches: u64,
    /// Other processors that hunters may go to.
    pub peers: Vec<String>,
    /// Monitors subscribed at once.
    pub max_subscribers: u32,
    /// Connections older than this are rolled; zero is never.
    #[serde(deserialize_with = "nanos")]
    pub max_connection_age: Duration,
    /// Filter file.
    pub filter_file: Option<PathBuf>,
    /// Statistics line every 5 s.
    pub display_stats: bool,
    /// Where figures and health are served; none is nowhere.
    pub metrics_listen: Option<String>,
    /// What survives a restart.
    pub state_dir: Option<PathBuf>,
    /// When a batch is acknowledged.
    pub durability: ServerDurability,
    /// Unified capture file.
    pub write_file: Option<PathBuf>,
    /// Files of each call.
    pub per_call_pcap: PerCallPcap,
    /// Wait for late packets after a call.
    #[serde(deserialize_with = "nanos")]
    pub pcap_grace_period: Duration,
    /// Rotating files.
    pub auto_rotate_pcap: AutoRotatePcap,
    /// Disk space left alone.
    pub min_free: Reserve,
    /// Delete call files older than this; zero is never.
    #[serde(deserialize_with = "nanos")]
    pub retain_age: Duration,
    /// TLS material.
    pub tls: ServerTls,
    /// Plain text.
    pub insecure: bool,
}

/// Section `processor.upstream`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// TLS material; certificate, key and CA are the processor's own where they are not given.
    pub tls: ClientTls,
    /// Plain text.
    pub insecure: bool,
}

/// Section `processor.disk_buffer`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamBuffer {
    /// Directory; none is one in the state directory.
    pub dir: Option<PathBuf>,
    /// MiB on disk at most.
    pub max_mb: u64,
}

/// When a batch is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerDurability {
    /// Once the disk has confirmed it.
    Disk,
    /// Once the kernel has it.
    Process,
}

/// Section `processor.per_call_pcap`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerCallPcap {
    /// Whether calls get files.
    pub enabled: bool,
    /// Directory.
    pub output_dir: PathBuf,
    /// Name with `{timestamp}` and `{callid}`.
    pub file_pattern: String,
    /// One or two files.
    pub layout: CallLayout,
}

/// Files of a call (decision 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallLayout {
    /// SIP and RTP apart.
    Split,
    /// One file in time order.
    Merged,
}

/// Section `processor.auto_rotate_pcap`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoRotatePcap {
    /// Whether rotating files are written.
    pub enabled: bool,
    /// Directory.
    pub output_dir: PathBuf,
    /// Name with `{timestamp}`.
    pub file_pattern: String,
    /// Close after this much silence.
    #[serde(deserialize_with = "nanos")]
    pub idle_timeout: Duration,
    /// Close at this size, in bytes.
    pub max_size: u64,
    /// Close at this age; zero is never.
    #[serde(deserialize_with = "nanos")]
    pub max_duration: Duration,
}

/// TLS material of somebody who listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Own certificate chain (PEM).
    pub cert_file: Option<PathBuf>,
    /// Own private key (PEM).
    pub key_file: Option<PathBuf>,
    /// CA of the clients (PEM).
    pub ca_file: Option<PathBuf>,
    /// Demand a client certificate.
    pub client_auth: bool,
    /// Certificates of clients that no longer count (PEM).
    pub crl_file: Option<PathBuf>,
    /// File with the hashes of API keys.
    pub api_keys_file: Option<PathBuf>,
    /// What each subscriber may see.
    pub subscriber_grants_file: Option<PathBuf>,
}

/// Section `system`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Whom a process started as root becomes.
    pub user: Option<String>,
    /// Whether it is denied what it has no use for.
    pub sandbox: Sandbox,
    /// Who may read what it writes out, besides whom it runs as.
    pub pcap_group: Option<String>,
    /// Bytes it may take; 0 is half of what there is.
    pub memory_limit: u64,
    /// Flows an engine remembers.
    pub max_flows: u32,
    /// Calls an engine, or a processor, remembers.
    pub max_calls: u32,
    /// A call whose media stopped for so long is over; zero: never.
    #[serde(deserialize_with = "nanos")]
    pub rtp_idle: Duration,
    /// The same of any other call at this age.
    #[serde(deserialize_with = "nanos")]
    pub call_max_age: Duration,
    /// Bytes of TCP that an engine has under reassembly.
    pub tcp_memory: u64,
}

/// Whether a process is denied the files and system calls it has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Section `remote`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// Processor to ask, `host:port`.
    pub processor: String,
    /// Give up connecting after this long.
    #[serde(deserialize_with = "nanos")]
    pub connect_timeout: Duration,
    /// Form of the answer.
    pub output_format: OutputFormat,
    /// TLS material.
    pub tls: ClientTls,
    /// Plain text.
    pub insecure: bool,
}

/// Section `certs`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certs {
    /// Directory of the CA and the certificates.
    pub dir: PathBuf,
}

/// Section `log`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Least level: error, warn, info, debug or trace.
    pub level: String,
    /// auto, text or json.
    pub format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object per line.
    Json,
}

impl Processor {
    /// The listen address split: none for "every address", and the port.
    pub fn listen(&self) -> (Option<ListenHost>, u16) {
        split_listen(&self.listen_addr)
    }
}

/// An address to listen on: none for "every address", and the port.
pub fn split_listen(address: &str) -> (Option<ListenHost>, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let port = port.parse().unwrap_or(super::units::DEFAULT_PORT);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = (!host.is_empty()).then(|| host.parse().map_or_else(|_| ListenHost::Name(host.to_owned()), ListenHost::Address));
    (host, port)
}

/// A host to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenHost {
    /// An address.
    Address(IpAddr),
    /// A name to resolve.
    Name(String),
}

fn icv_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "auto" | "-1" => Ok(None),
        size => size.parse().map(Some).map_err(de::Error::custom),
    }
}
