//! What every running command does first: configuration, logs, and a word about both.

use std::path::PathBuf;

use clap::ArgMatches;

use crate::config::{Choice, Environment, FlagValue, Log, LogFormat, Merged, Sources, find_option};
use crate::telemetry::{self, Format, Level, Logging, OPERATOR};

use super::command;
use super::exit::Stop;

/// A command that is ready to run.
pub(super) struct Started {
    /// The environment it was started in.
    pub(super) environment: Environment,
    /// Its configuration.
    pub(super) merged: Merged,
    /// Its log.
    pub(super) logging: Logging,
}

/// Reads the configuration and starts the log. `matches` are those of the command itself, not of its parents.
pub(super) fn start(matches: &ArgMatches) -> Result<Started, Stop> {
    start_with(matches, &flags(matches))
}

/// The same, with flags that mean what the caller made of them.
pub(super) fn start_with(matches: &ArgMatches, flags: &[FlagValue]) -> Result<Started, Stop> {
    let environment = Environment::of_process();
    let merged = Merged::load(&Sources { file: choice(matches), environment: &environment, flags })?;
    let logging = start_log(&merged.settings()?.log)?;
    for note in &merged.notes {
        tracing::warn!(name: OPERATOR, "{note}");
    }
    if let Some(path) = &merged.file {
        tracing::info!(name: OPERATOR, file = %path.display(), "configuration read");
    } else {
        tracing::debug!("no configuration file");
    }
    Ok(Started { environment, merged, logging })
}

/// Merges all layers.
pub(super) fn load(matches: &ArgMatches, file: Choice, environment: &Environment) -> Result<Merged, Stop> {
    let flags = flags(matches);
    Ok(Merged::load(&Sources { file, environment, flags: &flags })?)
}

/// The file named by `-c`, else the usual places.
pub(super) fn choice(matches: &ArgMatches) -> Choice {
    matches.get_one::<PathBuf>("config").cloned().map_or(Choice::Search, Choice::Named)
}

/// The table's flags, and `-v`/`-q` as what they mean for the log level.
pub(super) fn flags(matches: &ArgMatches) -> Vec<FlagValue> {
    let mut flags = command::flags(matches);
    let named = flags.iter().any(|flag| flag.option.key == "log.level");
    let level = match (matches.get_count("verbose"), matches.get_count("quiet")) {
        (0, 0) => return flags,
        (1, _) => Level::Debug,
        (2.., _) => Level::Trace,
        (0, 1) => Level::Warn,
        (0, 2..) => Level::Error,
    };
    if let (false, Some(option)) = (named, find_option("log.level")) {
        flags.push(FlagValue { option, values: vec![level.name().to_owned()] });
    }
    flags
}

fn start_log(log: &Log) -> Result<Logging, Stop> {
    let format = match log.format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let level = Level::from_name(&log.level).unwrap_or(Level::Info);
    Ok(telemetry::init(level, format).map_err(anyhow::Error::from)?)
}

/// What SIGHUP does to the log: reads the configuration again and applies its level. The old level stays when that fails.
pub(super) fn reload_level(matches: &ArgMatches, started: &Started) {
    match load(matches, choice(matches), &started.environment).and_then(|merged| Ok(merged.settings()?)) {
        Ok(settings) => {
            if let Some(level) = Level::from_name(&settings.log.level) {
                started.logging.set_level(level);
                telemetry::RELOADS.succeeded();
                tracing::info!(name: OPERATOR, level = level.name(), "log level applied");
            }
        }
        Err(stop) => {
            telemetry::RELOADS.failed();
            tracing::warn!(name: OPERATOR, error = %stop, "configuration not reloaded");
        }
    }
}
