//! Exit codes and what leads to them (decision 37).

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Something failed.
    Failure = 1,
    /// Wrong flags or configuration.
    Usage = 2,
    /// The processor cannot be reached or refuses us.
    CannotConnect = 3,
    /// What was asked for does not exist: an interface, a file, a hunter.
    NotFound = 4,
    /// Finished, but packets were lost (and counted).
    Lost = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything arrived.
    Done,
    /// Everything was done, but this many packets were lost.
    Lost {
        /// Packets given up, all reasons together.
        packets: u64,
    },
}

impl Outcome {
    /// [`Outcome::Lost`] unless nothing was.
    pub const fn of_lost(packets: u64) -> Self {
        if packets == 0 { Self::Done } else { Self::Lost { packets } }
    }

    pub(super) const fn exit(self) -> Exit {
        match self {
            Self::Done => Exit::Done,
            Self::Lost { .. } => Exit::Lost,
        }
    }
}

/// Why a command stopped: an exit code, the error with its causes, and what to try.
#[derive(Debug)]
pub struct Stop {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Stop {
    /// With this exit code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// Wrong flags or configuration.
    pub fn usage(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::new(Exit::Usage, anyhow::Error::msg(message))
    }

    /// Adds what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        if self.is_broken_pipe() { Exit::Done } else { self.exit }
    }

    /// Whether the reader of our output went away (`lc … | head`), which is not an error.
    pub fn is_broken_pipe(&self) -> bool {
        let io = self.error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failure, error, hint: None }
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failure, error)
    }
}

impl fmt::Display for Stop {
    /// The error with its causes, then the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            // most of our errors name their cause themselves
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&text)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::config::Problem;

    #[test]
    fn codes_are_the_documented_ones() {
        let codes = [Exit::Done, Exit::Failure, Exit::Usage, Exit::CannotConnect, Exit::NotFound, Exit::Lost];

        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5]);
        assert_eq!(Outcome::of_lost(0).exit(), Exit::Done);
        assert_eq!(Outcome::of_lost(1).exit(), Exit::Lost);
    }

    #[test]
    fn an_error_says_what_was_done_why_it_failed_and_what_to_try() {
        let error = Err::<(), _>(std::io::Error::other("no such interface")).context("cannot open eth9").unwrap_err();

        let stop = Stop::new(Exit::NotFound, error).hint("see 'lc list interfaces'");

        assert_eq!(stop.to_string(), "cannot open eth9: no such interface; see 'lc list interfaces'");
        assert_eq!(stop.exit(), Exit::NotFound);
    }

    #[test]
    fn a_cause_is_said_once() {
        let twice = Err::<(), _>(std::io::Error::other("no room")).context("cannot write x: no room").unwrap_err();

        assert_eq!(Stop::from(twice).to_string(), "cannot write x: no room");
    }

    #[test]
    fn wrong_configuration_is_usage_and_anything_else_failure() {
        assert_eq!(Stop::from(ConfigError::from(Problem::whole("x"))).exit(), Exit::Usage);
        assert_eq!(Stop::from(anyhow::anyhow!("x")).exit(), Exit::Failure);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let stop = Stop::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));

        assert!(stop.is_broken_pipe());
        assert_eq!(stop.exit(), Exit::Done);
    }
}
