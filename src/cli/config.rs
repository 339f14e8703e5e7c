//! `lc config check`, `lc config dump`, `lc config defaults`.

use std::path::PathBuf;

use clap::ArgMatches;

use crate::config::{self, Choice, ConfigError, Environment, Merged, Mode, Origin};

use super::exit::{Outcome, Stop};
use super::output;
use super::start;

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    match matches.subcommand() {
        Some(("check", matches)) => check(matches),
        Some(("dump", matches)) => dump(matches),
        Some(("defaults", _)) => {
            output::print(&config::defaults())?;
            Ok(Outcome::Done)
        }
        _ => Err(Stop::usage("config what? see 'lc config --help'")),
    }
}

/// Prints the configuration in effect, with the origin of each value.
pub(super) fn dump(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let environment = Environment::of_process();
    let merged = start::load(matches, start::choice(matches), &environment)?;
    output::print(&config::dump(&merged, matches.get_flag("reveal")))?;
    Ok(Outcome::Done)
}

fn check(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let environment = Environment::of_process();
    let file = matches.get_one::<PathBuf>("file").cloned().map_or_else(|| start::choice(matches), Choice::Named);
    let merged = start::load(matches, file, &environment)?;
    for note in &merged.notes {
        output::error(note);
    }
    if let Some(role) = matches.get_one::<String>("role") {
        check_role(&merged, role, &environment)?;
    }
    let count = |origin| config::options().filter(|opt| merged.origin(opt.key) == origin).count();
    let name = merged.file.as_ref().map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    let (file, variables) = (count(Origin::File), count(Origin::Environment));
    output::print(&format!("{name}: ok, {file} options set in the file, {variables} in the environment\n"))?;
    Ok(Outcome::Done)
}

fn check_role(merged: &Merged, role: &str, environment: &Environment) -> Result<(), ConfigError> {
    match role {
        "hunt" => merged.hunt(Mode::Voip, environment).map(drop),
        "process" => merged.process(environment).map(drop),
        "sniff" => merged.sniff(Mode::Voip).map(drop),
        _ => merged.remote(environment).map(drop),
    }
}
