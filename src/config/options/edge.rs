//! Options of the commands that ask a processor (section `remote`), of `lc certs` (section `certs`) and of every command
//! (section `log`).

use super::super::kind::Kind;
use super::{Commands, Group, Opt};

const fn remote(key: &'static str, kind: Kind, group: Group) -> Opt {
    Opt::new(key, kind, group, Commands::REMOTE)
}

pub(super) const ROWS: &[Opt] = &[
    remote("remote.processor", Kind::Address, Group::Forwarding)
        .flag("processor")
        .short('P')
        .default("localhost:55555")
        .help("Processor to ask"),
    remote("remote.connect_timeout", Kind::Duration { max_secs: 3600 }, Group::Forwarding)
        .flag("connect-timeout")
        .default("5s")
        .help("Give up connecting after this long"),
    remote("remote.output_format", Kind::Choice(&["text", "json"]), Group::Output)
        .flag("output-format")
        .also_on(Commands::LOCAL.and(Commands::SPOOL))
        .default("text")
        .help("A table, or JSON"),
    remote("remote.tls.cert_file", Kind::Path, Group::Security)
        .flag("tls-cert")
        .also(&["remote.tls.cert"])
        .help("Certificate to show (PEM)"),
    remote("remote.tls.key_file", Kind::Path, Group::Security)
        .flag("tls-key")
        .also(&["remote.tls.key"])
        .help("Its private key (PEM)"),
    remote("remote.tls.ca_file", Kind::Path, Group::Security)
        .flag("tls-ca")
        .also(&["remote.tls.ca"])
        .help("CA that signed the processor's certificate (PEM)"),
    remote("remote.tls.server_name", Kind::Text, Group::Security)
        .flag("tls-server-name")
        .help("Name the processor's certificate must carry"),
    remote("remote.tls.skip_verify", Kind::Switch, Group::Security)
        .flag("tls-skip-verify")
        .default("false")
        .help("Do not verify the processor (dangerous)"),
    remote("remote.tls.crl_file", Kind::Path, Group::Security)
        .flag("tls-crl")
        .help("Revocation list of the processor's CA (PEM)"),
    remote("remote.tls.api_key_file", Kind::Path, Group::Security)
        .flag("api-key-file")
        .help("File with the API key to show, one line, mode 0600"),
    remote("remote.insecure", Kind::Switch, Group::Security)
        .flag("insecure")
        .default("false")
        .help("Ask in plain text (dangerous)"),
    Opt::new("certs.dir", Kind::Path, Group::Output, Commands::CERTS)
        .flag("dir")
        .default("./certs")
        .help("Directory of the CA and the certificates"),
    Opt::new("log.level", Kind::Choice(&["error", "warn", "info", "debug", "trace"]), Group::General, Commands::EVERY)
        .flag("log-level")
        .default("info")
        .help("Least level that is logged"),
    Opt::new("log.format", Kind::Choice(&["auto", "text", "json"]), Group::General, Commands::EVERY)
        .flag("log-format")
        .default("auto")
        .help("Log lines on stderr; auto is text on a terminal"),
];
