//! `lc completions SHELL`: made from the same command tree as `--help`.

use clap::ArgMatches;
use clap_complete::Shell;

use super::command::command;
use super::exit::{Outcome, Stop};
use super::output;

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let shell = matches.get_one::<Shell>("shell").copied().unwrap_or(Shell::Bash);
    output::print(&script(shell))?;
    Ok(Outcome::Done)
}

fn script(shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command(), "lc", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_the_table() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = script(shell);

            assert!(script.contains("batch-size") && script.contains("per-call-pcap"), "{shell}");
        }
    }
}
