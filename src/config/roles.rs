//! What each role runs with: the sections it needs, checked to go together.
//!
//! A missing processor, half a key pair, or plain text in production is found here, before anything is opened.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::{ConfigError, Problem};
use super::layers::{Merged, Origin};
use super::settings::{Capture, ClientTls, Filters, Hunter, Processor, Remote, ServerTls, Sniff, System, Voip, WhenFull};

/// Longest name of a hunter or processor.
const MAX_ID_BYTES: usize = 128;
/// A queue that is to be drained.
const NOWHERE: &str = "no processor to send to; use -P host:port";

/// What a hunter or sniffer understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything the capture filter lets through.
    Generic,
    /// Calls.
    Voip,
}

/// How a connection out is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientSecurity {
    /// Not at all.
    PlainText,
    /// TLS; the other side is not verified when [`ClientTls::skip_verify`].
    Tls(ClientTls),
}

impl ClientSecurity {
    /// Every file it is made of.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let tls = if let Self::Tls(tls) = self { Some(tls) } else { None };
        let files = tls.map(|tls| [&tls.ca_file, &tls.cert_file, &tls.key_file, &tls.crl_file, &tls.api_key_file]);
        files.into_iter().flatten().flatten()
    }
}

/// How connections in are protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSecurity {
    /// Not at all.
    PlainText,
    /// TLS with this key pair.
    Tls {
        /// Certificate chain (PEM).
        cert_file: PathBuf,
        /// Private key (PEM).
        key_file: PathBuf,
        /// CA of the clients (PEM); some when clients may or must show a certificate.
        client_ca_file: Option<PathBuf>,
        /// Whether clients must.
        client_auth: bool,
        /// Certificates of clients that no longer count.
        crl_file: Option<PathBuf>,
        /// Hashes of the API keys that clients may show.
        api_keys_file: Option<PathBuf>,
        /// What each subscriber may see.
        grants_file: Option<PathBuf>,
    },
}

/// What `lc hunt` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HuntConfig {
    /// What is understood.
    pub mode: Mode,
    /// Name; the host name if none was given.
    pub id: String,
    /// The host name, empty if this machine has none.
    pub host: String,
    /// Where packets come from.
    pub capture: Capture,
    /// Targets tried without a processor.
    pub filters: Filters,
    /// Everything else of the hunter; `id`, `tls` and `insecure` are resolved beside it.
    pub hunter: Hunter,
    /// SIP and RTP.
    pub voip: Voip,
    /// Where the disk queues of hunters are; none when no directory is known.
    pub spool_dir: Option<PathBuf>,
    /// How the processor is reached.
    pub security: ClientSecurity,
    /// The process itself.
    pub system: System,
}

/// What `lc spool` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Whose queue; the host name if none was given.
    pub id: String,
    /// Whether that was given.
    pub named: bool,
    /// Whether it is a processor, and the queue that for the processors above it.
    pub of_processor: bool,
    /// The host name, empty if this machine has none.
    pub host: String,
    /// Where the processor listens, as it tells the one above; empty for a hunter.
    pub listen_addr: String,
    /// Where the disk queues are.
    pub spool_dir: PathBuf,
    /// Where a queue is drained to; empty when it is not.
    pub processor_addr: Vec<String>,
    /// How that is reached.
    pub security: ClientSecurity,
}

/// What `lc sniff` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SniffConfig {
    /// What is understood.
    pub mode: Mode,
    /// Where packets come from.
    pub capture: Capture,
    /// What is kept; everything when empty.
    pub filters: Filters,
    /// Interfaces and outputs.
    pub sniff: Sniff,
    /// SIP and RTP.
    pub voip: Voip,
    /// The process itself.
    pub system: System,
}

/// What `lc process` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Name; the host name if none was given.
    pub id: String,
    /// Everything else of the processor; `id`, `state_dir`, `tls` and `insecure` are resolved beside it.
    pub processor: Processor,
    /// The filter file was named, so it must exist; the default one may be absent.
    pub filter_file_named: bool,
    /// What survives a restart.
    pub state_dir: PathBuf,
    /// How hunters reach it.
    pub security: ServerSecurity,
    /// How the processors above are reached, where there are any.
    pub upstream: Option<ClientSecurity>,
    /// Where the queue for them is.
    pub upstream_dir: PathBuf,
    /// The process itself.
    pub system: System,
}

/// What the commands that ask a processor run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Whom to ask and how to answer.
    pub remote: Remote,
    /// How it is reached.
    pub security: ClientSecurity,
}

impl Merged {
    /// The configuration of a hunter.
    ///
    /// # Errors
    /// What is missing or does not go together.
    pub fn hunt(&self, mode: Mode, environment: &Environment) -> Result<HuntConfig, ConfigError> {
        let settings = self.settings()?;
        let mut problems = Vec::new();
        let hunter = settings.hunter;
        if hunter.processor_addr.is_empty() {
            problems.push(Problem::whole(
                "no processor to send to; use -P host:port, hunter.processor_addr in a file, or LIPPYCAT_HUNTER__PROCESSOR_ADDR",
            ));
        }
        self.check_source("hunter.interfaces", &hunter.interfaces, &settings.capture, &mut problems);
        if hunter.disk_buffer.when_full == WhenFull::Block && settings.capture.is_live() {
            problems.push(Problem::whole(
                "hunter.disk_buffer.when_full (--spool-full): 'block' is for files (-r); a network does not wait",
            ));
        }
        let spool_dir = spool_dir(&hunter, environment);
        let id = check_id("hunter.id", hunter.id.as_deref(), &mut problems);
        let security = client_security("hunter", &hunter.tls, hunter.insecure, environment, &mut problems);
        let config = HuntConfig {
            mode,
            id,
            host: host_name(),
            capture: settings.capture,
            filters: settings.filters,
            hunter,
            voip: settings.voip,
            spool_dir,
            security,
            system: settings.system,
        };
        ConfigError::unless_empty(problems, config)
    }

    /// The configuration of `lc spool` on a hunter's queue; `drain` asks for a processor.
    ///
    /// # Errors
    /// What is missing or does not go together.
    pub fn spool(&self, drain: bool, environment: &Environment) -> Result<SpoolConfig, ConfigError> {
        let hunter = self.settings()?.hunter;
        let mut problems = Vec::new();
        if self.origin("processor.state_dir") == Origin::Flag {
            problems.push(Problem::whole("--state-dir is a processor's: say --role processor, or use --disk-buffer-dir"));
        }
        let id = check_id("hunter.id", hunter.id.as_deref(), &mut problems);
        let spool_dir = spool_dir(&hunter, environment).unwrap_or_else(|| {
            problems.push(Problem::whole("neither HOME nor STATE_DIRECTORY is set; use --disk-buffer-dir"));
            PathBuf::new()
        });
        let mut security = ClientSecurity::PlainText;
        if drain {
            if hunter.processor_addr.is_empty() {
                problems.push(Problem::whole(NOWHERE));
            }
            security = client_security("hunter", &hunter.tls, hunter.insecure, environment, &mut problems);
        }
        let config = SpoolConfig {
            id,
            named: self.origin("hunter.id") != Origin::Default,
            of_processor: false,
            host: host_name(),
            listen_addr: String::new(),
            spool_dir,
            processor_addr: hunter.processor_addr,
            security,
        };
        ConfigError::unless_empty(problems, config)
    }

    /// The configuration of `lc spool --role processor`: the queue for the processors above it; `drain` asks for one of them.
    ///
    /// # Errors
    /// What is missing or does not go together.
    pub fn upstream_spool(&self, drain: bool, environment: &Environment) -> Result<SpoolConfig, ConfigError> {
        let processor = self.settings()?.processor;
        let mut problems = Vec::new();
        let id = check_id("processor.id", processor.id.as_deref(), &mut problems);
        let state_dir = processor.state_dir.clone().or_else(|| state_directory(environment));
        let spool_dir = processor.disk_buffer.dir.clone().or_else(|| Some(upstream_dir(&state_dir?))).unwrap_or_else(|| {
            problems.push(Problem::whole("neither HOME nor STATE_DIRECTORY is set; use --state-dir"));
            PathBuf::new()
        });
        let mut security = None;
        if drain {
            security = upstream(&processor, "--", environment, &mut problems);
            if security.is_none() {
                problems.push(Problem::whole(NOWHERE));
            }
        }
        let config = SpoolConfig {
            id,
            named: self.origin("processor.id") != Origin::Default,
            of_processor: true,
            host: host_name(),
            listen_addr: processor.listen_addr,
            spool_dir,
            processor_addr: processor.processor_addr,
            security: security.unwrap_or(ClientSecurity::PlainText),
        };
        ConfigError::unless_empty(problems, config)
    }

    /// The configuration of a sniffer.
    ///
    /// # Errors
    /// What does not go together.
    pub fn sniff(&self, mode: Mode) -> Result<SniffConfig, ConfigError> {
        let settings = self.settings()?;
        let mut problems = Vec::new();
        self.check_source("sniff.interfaces", &settings.sniff.interfaces, &settings.capture, &mut problems);
        let config = SniffConfig {
            mode,
            capture: settings.capture,
            filters: settings.filters,
            sniff: settings.sniff,
            voip: settings.voip,
            system: settings.system,
        };
        ConfigError::unless_empty(problems, config)
    }

    /// The configuration of a processor.
    ///
    /// # Errors
    /// What is missing or does not go together.
    pub fn process(&self, environment: &Environment) -> Result<ProcessConfig, ConfigError> {
        let settings = self.settings()?;
        let processor = settings.processor;
        let mut problems = Vec::new();
        let id = check_id("processor.id", processor.id.as_deref(), &mut problems);
        let security = server_security(&processor.tls, processor.insecure, environment, &mut problems);
        let state_dir = processor.state_dir.clone().or_else(|| state_directory(environment)).unwrap_or_else(|| {
            problems.push(Problem::whole("no directory for state: neither HOME nor STATE_DIRECTORY is set; use --state-dir"));
            PathBuf::new()
        });
        let filter_file_named = self.origin("processor.filter_file") != Origin::Default;
        let upstream = upstream(&processor, "--upstream-", environment, &mut problems);
        let upstream_dir = processor.disk_buffer.dir.clone().unwrap_or_else(|| upstream_dir(&state_dir));
        let config = ProcessConfig {
            id,
            processor,
            filter_file_named,
            state_dir,
            security,
            upstream,
            upstream_dir,
            system: settings.system,
        };
        ConfigError::unless_empty(problems, config)
    }

    /// The configuration of a command that asks a processor.
    ///
    /// # Errors
    /// What is missing or does not go together.
    pub fn remote(&self, environment: &Environment) -> Result<RemoteConfig, ConfigError> {
        let remote = self.settings()?.remote;
        let mut problems = Vec::new();
        let security = client_security("remote", &remote.tls, remote.insecure, environment, &mut problems);
        ConfigError::unless_empty(problems, RemoteConfig { remote, security })
    }

    fn check_source(&self, key: &str, interfaces: &[String], capture: &Capture, problems: &mut Vec<Problem>) {
        if capture.is_live() && interfaces.is_empty() {
            problems.push(Problem::whole("nothing to capture from; use -i INTERFACE or -r FILE"));
        }
        if self.origin(key) == Origin::Flag && self.origin("capture.read") == Origin::Flag {
            problems.push(Problem::whole("-i/--interface and -r/--read exclude each other"));
        }
    }
}

/// Where state is kept when nobody says: systemd's directory, else one below the home directory.
fn state_directory(environment: &Environment) -> Option<PathBuf> {
    let home = || environment.home().map(|home| PathBuf::from(home).join(".local/state/lippycat"));
    environment.state_directory().or_else(home)
}

/// Where a processor's queue for those above it is.
fn upstream_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("upstream")
}

fn spool_dir(hunter: &Hunter, environment: &Environment) -> Option<PathBuf> {
    hunter.disk_buffer.dir.clone().or_else(|| Some(state_directory(environment)?.join("spool")))
}

fn check_id(key: &str, id: Option<&str>, problems: &mut Vec<Problem>) -> String {
    let id = id.map_or_else(host_name, str::to_owned);
    if id.is_empty() {
        problems.push(Problem::whole(format!("{key}: this machine has no host name; use --id")));
    }
    if id.len() > MAX_ID_BYTES || id.contains(char::is_whitespace) {
        problems.push(Problem::whole(format!("{key}: '{id}' has spaces, or is longer than {MAX_ID_BYTES} bytes")));
    }
    id
}

/// The host name the kernel knows, else the configured one (`hostname(5)`): a service with `ProcSubset=pid` has no
/// `/proc/sys`. Empty if there is neither.
fn host_name() -> String {
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let names = files.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    names.map(|name| name.trim().to_owned()).find(|name| !name.is_empty()).unwrap_or_default()
}

fn production(environment: &Environment, problems: &mut Vec<Problem>) -> bool {
    environment.production().unwrap_or_else(|problem| {
        problems.push(problem);
        true
    })
}

/// The way to the processors above: with the certificate, key and CA that this one has anyway, where no others are given. `flags` is what
/// its flags begin with.
fn upstream(
    processor: &Processor,
    flags: &'static str,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> Option<ClientSecurity> {
    if processor.processor_addr.is_empty() {
        return None;
    }
    let mut tls = processor.upstream.tls.clone();
    if tls.cert_file.is_none() && tls.key_file.is_none() {
        tls.cert_file.clone_from(&processor.tls.cert_file);
        tls.key_file.clone_from(&processor.tls.key_file);
    }
    tls.ca_file = tls.ca_file.or_else(|| processor.tls.ca_file.clone());
    let of = Side { section: "processor.upstream", flags };
    Some(client_security_of(&of, &tls, processor.upstream.insecure, environment, problems))
}

/// Which connection out is meant, in messages.
struct Side {
    section: &'static str,
    /// What its flags begin with.
    flags: &'static str,
}

fn client_security(
    section: &'static str,
    tls: &ClientTls,
    insecure: bool,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> ClientSecurity {
    client_security_of(&Side { section, flags: "--" }, tls, insecure, environment, problems)
}

fn client_security_of(
    Side { section, flags }: &Side,
    tls: &ClientTls,
    insecure: bool,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> ClientSecurity {
    let production = production(environment, problems);
    if production && insecure {
        problems
            .push(Problem::whole(format!("{section}.insecure ({flags}insecure) is refused while LIPPYCAT_PRODUCTION is set")));
    }
    if production && tls.skip_verify {
        problems.push(Problem::whole(format!(
            "{section}.tls.skip_verify ({flags}tls-skip-verify) is refused while LIPPYCAT_PRODUCTION is set"
        )));
    }
    if insecure {
        if tls.api_key_file.is_some() {
            problems.push(Problem::whole(format!(
                "{flags}insecure and {flags}api-key-file exclude each other: the key would travel in plain text"
            )));
        }
        return ClientSecurity::PlainText;
    }
    if tls.skip_verify && tls.api_key_file.is_some() {
        problems.push(Problem::whole(format!(
            "{flags}tls-skip-verify and {flags}api-key-file exclude each other: whoever answers would get the key"
        )));
    }
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        problems
            .push(Problem::whole(format!("a certificate and its key go together: give both {flags}tls-cert and {flags}tls-key")));
    }
    if tls.ca_file.is_none() && !tls.skip_verify {
        problems.push(Problem::whole(format!(
            "TLS needs the CA of the processor: use {flags}tls-ca FILE or {section}.tls.ca_file ('lc certs init' makes a CA), or say {flags}insecure"
        )));
    }
    ClientSecurity::Tls(tls.clone())
}

fn server_security(tls: &ServerTls, insecure: bool, environment: &Environment, problems: &mut Vec<Problem>) -> ServerSecurity {
    let production = production(environment, problems);
    if production && insecure {
        problems.push(Problem::whole("processor.insecure (--insecure) is refused while LIPPYCAT_PRODUCTION is set"));
    } else if production && !tls.client_auth {
        problems.push(Problem::whole("LIPPYCAT_PRODUCTION demands client certificates: use --tls-client-auth and --tls-ca"));
    }
    if tls.subscriber_grants_file.is_some() && (insecure || !(tls.client_auth || tls.api_keys_file.is_some())) {
        problems.push(Problem::whole(
            "--subscriber-grants needs subscribers that can be told apart: use --tls-client-auth or --api-keys, without --insecure",
        ));
    }
    if insecure {
        if tls.client_auth {
            problems.push(Problem::whole("--insecure and --tls-client-auth exclude each other"));
        }
        if tls.api_keys_file.is_some() {
            problems.push(Problem::whole("--insecure and --api-keys exclude each other: keys would travel in plain text"));
        }
        return ServerSecurity::PlainText;
    }
    if tls.client_auth && tls.ca_file.is_none() {
        problems.push(Problem::whole("--tls-client-auth needs the CA of the clients: use --tls-ca FILE"));
    }
    if tls.crl_file.is_some() && tls.ca_file.is_none() {
        problems.push(Problem::whole("--tls-crl is about certificates of clients, and needs their CA: use --tls-ca FILE"));
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        return ServerSecurity::Tls {
            cert_file: cert.clone(),
            key_file: key.clone(),
            client_ca_file: tls.ca_file.clone(),
            client_auth: tls.client_auth,
            crl_file: tls.crl_file.clone(),
            api_keys_file: tls.api_keys_file.clone(),
            grants_file: tls.subscriber_grants_file.clone(),
        };
    }
    problems.push(Problem::whole(
        "TLS needs --tls-cert and --tls-key ('lc certs init' and 'lc certs issue processor NAME' make them), or say --insecure",
    ));
    ServerSecurity::PlainText
}
