//! `lc man DIR`: one page per command, made from the same command tree as `--help`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ArgMatches;

use super::command::command;
use super::exit::{Exit, Outcome, Stop};

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let directory = matches.get_one::<PathBuf>("directory").cloned().unwrap_or_default();
    if !directory.is_dir() {
        return Err(Stop::new(Exit::NotFound, anyhow::anyhow!("{} is not a directory", directory.display())));
    }
    write(&directory)?;
    Ok(Outcome::Done)
}

fn write(directory: &Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(command(), directory)
        .with_context(|| format!("cannot write manual pages to {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();

        write(directory.path()).unwrap();

        let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(page("lc.1").contains("hunt"));
        assert!(page("lc-hunt-voip.1").contains("lookback"));
        assert!(page("lc-process.1").contains("per\\-call\\-pcap"));
    }
}
