//! The tree of commands. Options come from [`crate::config`]'s table; what stands here is structure, positional arguments
//! and examples.

use clap::{Arg, ArgAction, ArgMatches, Command, builder::ValueParser, value_parser};

use crate::config::{self, Commands, FlagValue, Group, Kind, Opt};

use super::version;

/// Widest help, in columns; narrower on a narrower terminal.
const WIDTH: usize = 100;

/// The whole command line.
pub fn command() -> Command {
    let root = Command::new("lc")
        .about("Targeted, distributed packet capture")
        .version(version::line())
        .max_term_width(WIDTH)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .infer_subcommands(false)
        .after_help(ROOT_EXAMPLES)
        .subcommands([hunt(), process(), sniff(), spool(), list(), show(), config(), certs(), completions(), man()]);
    with_general(root)
}

fn hunt() -> Command {
    let voip = with_options(
        Command::new("voip").about("Forward the calls of the targeted subscribers, whole, and nothing else"),
        Commands::HUNT_VOIP,
        false,
    );
    let hunt = Command::new("hunt").about("Capture at the edge and forward what is wanted to a processor");
    with_tls_flag(with_options(hunt, Commands::HUNT, true))
        .subcommand(voip.after_help(HUNT_VOIP_EXAMPLES))
        .args_conflicts_with_subcommands(false)
        .after_help(HUNT_EXAMPLES)
}

fn process() -> Command {
    let process = Command::new("process").about("Receive from hunters, give them filters, write capture files");
    with_tls_flag(with_options(process, Commands::PROCESS, false)).after_help(PROCESS_EXAMPLES)
}

fn sniff() -> Command {
    let voip =
        with_options(Command::new("voip").about("Show calls, SIP messages and media streams"), Commands::SNIFF_VOIP, false);
    with_options(Command::new("sniff").about("Capture and analyse here, without a processor"), Commands::SNIFF, true)
        .subcommand(voip.after_help(SNIFF_EXAMPLES))
        .after_help(SNIFF_EXAMPLES)
}

fn spool() -> Command {
    let output = Arg::new("pcap")
        .long("pcap")
        .value_name("FILE")
        .required(true)
        .value_parser(value_parser!(std::path::PathBuf))
        .help("File to write (.pcap or .pcapng); packets are added to an existing one");
    let command = |name: &'static str, about: &'static str| Command::new(name).about(about);
    let role = Arg::new("role")
        .long("role")
        .value_name("hunter|processor")
        .value_parser(["hunter", "processor"])
        .hide_possible_values(true)
        .default_value("hunter")
        .hide_default_value(true)
        .global(true)
        .help("Whose queue: a hunter's, or a processor's for those above it [hunter]");
    let on = |command: Command| with_options(command, Commands::SPOOL, false);
    let drain = command("drain", "Send what is in a disk queue to a processor");
    Command::new("spool")
        .about("Look into the disk queues of hunters and processors on this machine")
        .arg(role)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            on(command("ls", "List segments, of every queue or of --id")),
            on(command("verify", "List them after reading every byte; exit code 5 when something is damaged")),
            on(command("cat", "Write what is in a disk queue to a capture file")).arg(output),
            on(command("quarantine", "List damaged segments that were put aside after what was whole in them was read")),
            with_tls_flag(with_options(drain, Commands::SPOOL.and(Commands::SPOOL_DRAIN), false)),
        ])
        .after_help(SPOOL_EXAMPLES)
}

fn list() -> Command {
    let interfaces =
        with_options(Command::new("interfaces").about("Interfaces this machine can capture on"), Commands::LOCAL, false);
    let hunters = with_options(Command::new("hunters").about("Hunters a processor knows"), Commands::REMOTE, false);
    Command::new("list")
        .about("List interfaces or hunters")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([interfaces, with_tls_flag(hunters)])
}

fn show() -> Command {
    let status = with_options(Command::new("status").about("State of a processor"), Commands::REMOTE, false);
    let hunter = with_options(Command::new("hunter").about("One hunter, with its statistics"), Commands::REMOTE, false)
        .arg(Arg::new("hunter").value_name("ID").help("Name of the hunter").required_unless_present("hunter-flag"))
        .arg(Arg::new("hunter-flag").long("id").value_name("ID").hide(true).conflicts_with("hunter"));
    Command::new("show")
        .about("Show a processor, a hunter or the configuration")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([with_tls_flag(status), with_tls_flag(hunter), dump("config", "The configuration in effect")])
}

fn config() -> Command {
    let check = Command::new("check")
        .about("Check a configuration file, and with --for that a role can run with it")
        .arg(Arg::new("file").value_name("FILE").value_parser(value_parser!(std::path::PathBuf)).help("File to check"))
        .arg(
            Arg::new("role")
                .long("for")
                .value_name("ROLE")
                .value_parser(["hunt", "process", "sniff", "remote"])
                .help("Also check what this role needs"),
        );
    Command::new("config")
        .about("Check and print configurations")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            check,
            dump("dump", "Print the configuration in effect, with the origin of each value"),
            Command::new("defaults").about("Print every option with its default, flag and variable"),
        ])
}

fn dump(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .arg(Arg::new("reveal").long("reveal").action(ArgAction::SetTrue).help("Print private values too"))
}

fn certs() -> Command {
    let days = |default: &'static str| {
        Arg::new("days").long("days").value_name("N").value_parser(value_parser!(u32).range(1..=36_500)).default_value(default)
    };
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(std::path::PathBuf)).help(help)
    };
    let init = Command::new("init")
        .about("Make a private CA")
        .arg(Arg::new("name").long("name").value_name("TEXT").default_value("lippycat CA").help("Name in the certificate"))
        .arg(days("3650").help("Days it is valid"));
    let issue = Command::new("issue")
        .about("Issue the certificate of a node")
        .arg(
            Arg::new("role")
                .value_name("ROLE")
                .required(true)
                .value_parser(["hunter", "processor", "admin", "subscriber"])
                .help("What the node may do"),
        )
        .arg(Arg::new("id").value_name("ID").required(true).help("Name of the node"))
        .arg(list_arg("dns").value_name("NAME").help("DNS names it is reached by"))
        .arg(
            list_arg("ip").value_name("ADDRESS").value_parser(value_parser!(std::net::IpAddr)).help("Addresses it is reached by"),
        )
        .arg(days("90").help("Days it is valid"));
    let node = |command: Command, required: bool| {
        let roles = ["hunter", "processor", "admin", "subscriber"];
        command
            .arg(Arg::new("role").value_name("ROLE").required(required).value_parser(roles).help("What the node may do"))
            .arg(Arg::new("id").value_name("ID").required(required).help("Name of the node"))
    };
    let renew = node(Command::new("renew"), true)
        .about("Issue a node's certificate again: same names, new key, in the place of the old files")
        .arg(days("90").help("Days it is valid"));
    let revoke = node(Command::new("revoke"), false).about("Put a certificate on the CA's revocation list, ca.crl in --dir").arg(
        Arg::new("serial")
            .long("serial")
            .value_name("HEX")
            .conflicts_with_all(["role", "id"])
            .help("A certificate that is not at hand, by its serial number"),
    );
    let show = Command::new("show").about("Print what certificates say").arg(
        Arg::new("files")
            .value_name("FILE")
            .num_args(1..)
            .value_parser(value_parser!(std::path::PathBuf))
            .help("Certificates (PEM); without one, those of --dir"),
    );
    let check = Command::new("check")
        .about("Check that a certificate, its key and its CA belong together and are valid now")
        .arg(path("tls-cert", "Certificate (PEM)").required(true))
        .arg(path("tls-key", "Its private key (PEM)"))
        .arg(path("tls-ca", "CA (PEM) [default: ca.crt in --dir]"))
        .arg(path("tls-crl", "Revocation list (PEM) [default: ca.crl beside the CA, if there]"))
        .arg(Arg::new("tls-server-name").long("tls-server-name").value_name("NAME").help("Name it must be valid for"));
    with_options(Command::new("certs").about("A private CA and the certificates of nodes"), Commands::CERTS, true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([init, issue, renew, revoke, show, check])
        .after_help(CERTS_EXAMPLES)
}

fn list_arg(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::Append).value_delimiter(',')
}

fn completions() -> Command {
    Command::new("completions").about("Print the completions of a shell").arg(
        Arg::new("shell")
            .value_name("SHELL")
            .required(true)
            .value_parser(value_parser!(clap_complete::Shell))
            .help("Which shell"),
    )
}

fn man() -> Command {
    Command::new("man").about("Write the manual pages into a directory").arg(
        Arg::new("directory")
            .value_name("DIR")
            .required(true)
            .value_parser(value_parser!(std::path::PathBuf))
            .help("Directory, which must exist"),
    )
}

/// Flags of every command: the configuration file, how much is logged, and the table's rows for every command.
fn with_general(command: Command) -> Command {
    let general = Group::General.heading();
    let count = |name: &'static str, short: char, help: &'static str| {
        Arg::new(name).long(name).short(short).action(ArgAction::Count).global(true).help(help).help_heading(general)
    };
    let command = command
        .arg(
            Arg::new("config")
                .long("config")
                .short('c')
                .value_name("FILE")
                .value_parser(value_parser!(std::path::PathBuf))
                .global(true)
                .help("Configuration file (YAML or TOML)")
                .help_heading(general),
        )
        .arg(count("verbose", 'v', "Log more (-vv: everything)").conflicts_with("quiet"))
        .arg(count("quiet", 'q', "Log less (-qq: errors only)"));
    with_options(command, Commands::EVERY, true)
}

/// `--tls` of the predecessor's examples: accepted, and without effect, since TLS is on (decision 40).
fn with_tls_flag(command: Command) -> Command {
    command.arg(Arg::new("tls").long("tls").action(ArgAction::SetTrue).global(true).hide(true))
}

/// Adds the table's options of these commands; `global` also to the commands below.
fn with_options(command: Command, on: Commands, global: bool) -> Command {
    let mut rows: Vec<&'static Opt> = config::options().filter(|opt| opt.on.meets(on) && !opt.long.is_empty()).collect();
    // clap orders headings by their first argument.
    rows.sort_by_key(|opt| opt.group as u8);
    command.args(rows.into_iter().map(|opt| argument(opt).global(global)))
}

fn argument(opt: &'static Opt) -> Arg {
    let mut help = opt.help.to_owned();
    let silent = matches!(opt.kind, Kind::Switch) && opt.default == "false"
        || opt.default.is_empty()
        || help.contains(&format!("({}: ", opt.default));
    if !silent {
        help = format!("{help} [{}]", opt.default);
    }
    let name = if let Kind::Choice(words) = opt.kind
        && words.len() <= 3
    {
        words.join("|")
    } else {
        opt.kind.placeholder().to_owned()
    };
    let argument = Arg::new(opt.key)
        .long(opt.long)
        .aliases(opt.long_aliases.iter().copied())
        .value_parser(ValueParser::string())
        .value_name(name)
        .allow_hyphen_values(matches!(opt.key, "capture.esp_icv_size"))
        .help(help)
        .help_heading(opt.group.heading())
        .hide(opt.hidden);
    let argument = match opt.short {
        Some(short) => argument.short(short),
        None => argument,
    };
    if opt.kind == Kind::Switch {
        return argument.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    // `-r a.pcap b.pcap`, as a shell expands it.
    let argument = if opt.kind == Kind::List(config::Item::Path) { argument.num_args(1..) } else { argument };
    argument.action(ArgAction::Append)
}

/// The table's options that were given on the command line.
pub(super) fn flags(matches: &ArgMatches) -> Vec<FlagValue> {
    let mut out = Vec::new();
    for option in config::options() {
        if let Ok(Some(values)) = matches.try_get_many::<String>(option.key) {
            out.push(FlagValue { option, values: values.cloned().collect() });
        }
    }
    out
}

const ROOT_EXAMPLES: &str = "\
Examples:
  lc sniff voip -r calls.pcap                      what is in this capture?
  lc process --per-call-pcap --filter-file f.yaml  receive, and write one capture per call
  lc hunt voip -P mid:55555 -i eth0                send the targeted calls there
Each command has its own --help.";

const HUNT_EXAMPLES: &str = "\
Examples:
  lc hunt -P mid:55555 --tls-ca ca.crt -i eth0 -f 'port 53' --no-filter-policy allow
  lc hunt -P mid-a,mid-b -c edge.yaml
  lc hunt -P mid:55555 --tls-ca ca.crt -r day.pcapng --no-filter-policy allow";

const HUNT_VOIP_EXAMPLES: &str = "\
Examples:
  lc hunt voip -P mid:55555 --tls-ca ca.crt -i eth0,eth1
  lc hunt voip -c edge.yaml
  lc hunt voip -P mid:55555 --tls-ca ca.crt -r calls.pcap --sip-user alice";

const PROCESS_EXAMPLES: &str = "\
Examples:
  lc process --tls-cert processor-mid.crt --tls-key processor-mid.key --per-call-pcap -f filters.yaml
  lc process -c processor.yaml -w everything.pcapng
  lc process --tls-cert processor-mid.crt --tls-key processor-mid.key --tls-ca ca.crt --tls-client-auth --per-call-pcap";

const SNIFF_EXAMPLES: &str = "\
Examples:
  lc sniff voip -i eth0 --sip-user alice -w alice.pcap
  lc sniff voip -r a.pcap b.pcapng --output-format json
  tcpdump -w - port 5060 | lc sniff voip -r -";

const SPOOL_EXAMPLES: &str = "\
Examples:
  lc spool ls
  lc spool cat --id edge-1 --pcap waiting.pcapng
  lc spool drain --id edge-1 -P mid:55555 --tls-ca ca.crt --tls-cert hunter-edge-1.crt --tls-key hunter-edge-1.key
  lc spool drain --role processor -c processor.yaml";

const CERTS_EXAMPLES: &str = "\
Examples:
  lc certs init
  lc certs issue processor mid --dns mid.example --ip 192.0.2.1
  lc certs issue hunter edge-1";
