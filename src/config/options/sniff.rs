//! Options of `lc sniff` (section `sniff`).

use super::super::kind::{Item, Kind};
use super::{Commands, Group, Opt};

const fn sniff(key: &'static str, kind: Kind, group: Group) -> Opt {
    Opt::new(key, kind, group, Commands::SNIFF)
}

pub(super) const ROWS: &[Opt] = &[
    sniff("sniff.interfaces", Kind::List(Item::Text), Group::Capture)
        .flag("interface")
        .short('i')
        .default("any")
        .help("Interfaces to capture on"),
    sniff("sniff.bpf_filter", Kind::Text, Group::Capture)
        .flag("filter")
        .short('f')
        .help("Capture filter (pcap-filter(7)), on the outer headers"),
    sniff("sniff.write_file", Kind::Path, Group::Output)
        .flag("write-file")
        .short('w')
        .help("Write what matched to this file (pcap, or pcapng by suffix)"),
    sniff("sniff.output_format", Kind::Choice(&["text", "json"]), Group::Output)
        .flag("output-format")
        .also_flags(&["format"])
        .default("text")
        .help("Events as a table, or one JSON object per line"),
];
