//! The command line: flags in, exit code out; one file per command.
//!
//! ```text
//! command (clap tree from config's table) ─▶ start (configuration, logs) ─▶ hunt │ process │ sniff │ spool │ list │ show │ config │ certs
//!                                                                             └─▶ Outcome or Stop ─▶ exit code, here and only here
//! ```
//!
//! Promises: results on stdout, logs and errors on stderr; one clear error with what to try; exit codes 0–5 ([`Exit`]).

mod certs;
mod command;
mod completions;
mod config;
mod exit;
mod hunt;
mod inspection;
mod list;
mod man;
mod memory;
mod output;
mod pages;
mod privileges;
mod process;
mod runtime;
mod sandbox;
mod security;
mod show;
mod shown;
mod signals;
mod sniff;
mod spool;
mod start;
mod upstream;
mod version;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::error::ErrorKind;

pub use command::command;
pub use exit::{Exit, Outcome, Stop};
pub use signals::{Signal, Signals};

/// The whole program.
pub fn main() -> ExitCode {
    // where, and not what: the message of a panic may quote what was on the wire
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked; this is a bug, please report it");
    }));
    run(std::env::args_os()).into()
}

/// Parses, runs, reports; the only place where an exit code is chosen.
fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nobody is left to be told when this fails.
            let _printed = error.print();
            return if asked { Exit::Done } else { Exit::Usage };
        }
    };
    match dispatch(&matches) {
        Ok(outcome) => outcome.exit(),
        Err(stop) => {
            if !stop.is_broken_pipe() {
                output::error(&stop.to_string());
            }
            stop.exit()
        }
    }
}

fn dispatch(matches: &ArgMatches) -> Result<Outcome, Stop> {
    match matches.subcommand() {
        Some(("hunt", matches)) => hunt::run(matches),
        Some(("process", matches)) => process::run(matches),
        Some(("sniff", matches)) => sniff::run(matches),
        Some(("spool", matches)) => spool::run(matches),
        Some(("list", matches)) => list::run(matches),
        Some(("show", matches)) => show::run(matches),
        Some(("config", matches)) => config::run(matches),
        Some(("certs", matches)) => certs::run(matches),
        Some(("completions", matches)) => completions::run(matches),
        Some(("man", matches)) => man::run(matches),
        // clap demands one of the commands above.
        _ => Err(Stop::usage("no command; see 'lc --help'")),
    }
}
