//! The process environment, read once and passed as a value, so that tests need not touch the real one.
//!
//! Only variables that begin with `LIPPYCAT_` change anything. `HOME` and systemd's `STATE_DIRECTORY` say where directories
//! are; nothing else is looked at.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{Place, Problem};
use super::keys;
use super::options::{self, Opt};

const PREFIX: &str = "LIPPYCAT_";

/// The only production switch (decision 35).
pub const PRODUCTION: &str = "LIPPYCAT_PRODUCTION";

/// Names the configuration file, as `-c` does.
pub const CONFIG_FILE: &str = "LIPPYCAT_CONFIG";

/// The variables this program may look at.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::from_pairs(std::env::vars_os())
    }

    /// An environment of our own making.
    pub fn from_pairs<N: Into<OsString>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
            .filter(|(name, _)| name.starts_with(PREFIX) || name == "HOME" || name == "STATE_DIRECTORY")
            .collect();
        Self { variables }
    }

    /// The home directory.
    pub fn home(&self) -> Option<&str> {
        self.variables.get("HOME").and_then(|home| home.to_str()).filter(|home| home.starts_with('/'))
    }

    /// Where systemd wants state kept (`systemd.exec(5)`, `StateDirectory=`); the first of several.
    pub fn state_directory(&self) -> Option<PathBuf> {
        let first = self.variables.get("STATE_DIRECTORY")?.to_str()?.split(':').next()?;
        first.starts_with('/').then(|| PathBuf::from(first))
    }

    /// The file named by [`CONFIG_FILE`].
    pub fn config_file(&self) -> Option<PathBuf> {
        self.variables.get(CONFIG_FILE).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Whether [`PRODUCTION`] is set.
    ///
    /// # Errors
    /// When it is neither true nor false: a security switch is not guessed at.
    pub fn production(&self) -> Result<bool, Problem> {
        let Some(value) = self.variables.get(PRODUCTION) else { return Ok(false) };
        match value.to_str().map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            Some("true" | "1" | "yes" | "on") => Ok(true),
            Some("false" | "0" | "no" | "off" | "") => Ok(false),
            _ => Err(Problem { place: Place::Variable(PRODUCTION.to_owned()), what: "is neither true nor false".to_owned() }),
        }
    }

    /// Options set here, with the variable that sets them, and what is wrong with the rest.
    ///
    /// A variable with our prefix and `__` names a section and must be right. Without `__` it is none of ours: Kubernetes
    /// makes `LIPPYCAT_PORT` and its like for every service called `lippycat`.
    pub(super) fn options(&self) -> (Vec<(&'static Opt, String, &str)>, Vec<Problem>) {
        let (mut found, mut problems) = (Vec::<(&'static Opt, String, &str)>::new(), Vec::new());
        for (name, value) in &self.variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let key = rest.to_ascii_lowercase().replace("__", ".");
            let place = || Place::Variable(name.clone());
            match options::find(&key) {
                Some(opt) => match value.to_str() {
                    Some(text) => match found.iter().find(|(other, ..)| other.key == opt.key) {
                        Some((_, first, _)) => {
                            problems.push(Problem { place: place(), what: format!("says the same as {first}") });
                        }
                        None => found.push((opt, name.clone(), text)),
                    },
                    None => problems.push(Problem { place: place(), what: "is not UTF-8".to_owned() }),
                },
                None if rest.contains("__") => problems.push(Problem { place: place(), what: keys::unknown(&key, true) }),
                None => {}
            }
        }
        (found, problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprefixed_variables_are_not_even_kept() {
        let environment = Environment::from_pairs([("INSECURE", "true"), ("HUNTER__INSECURE", "true"), ("LOG_LEVEL", "trace")]);

        assert!(environment.variables.is_empty());
    }

    #[test]
    fn kubernetes_service_variables_are_none_of_ours() {
        let environment = Environment::from_pairs([("LIPPYCAT_PORT", "tcp://10.0.0.1:1"), ("LIPPYCAT_SERVICE_HOST", "10.0.0.1")]);

        let (found, problems) = environment.options();

        assert!(found.is_empty() && problems.is_empty());
    }

    #[test]
    fn a_misspelt_variable_is_an_error_with_the_right_name() {
        let environment = Environment::from_pairs([("LIPPYCAT_HUNTER__BATCHSIZE", "1")]);

        let (_, problems) = environment.options();

        assert_eq!(
            problems[0].to_string(),
            "environment variable LIPPYCAT_HUNTER__BATCHSIZE: unknown option; did you mean LIPPYCAT_HUNTER__BATCH_SIZE?"
        );
    }

    #[test]
    fn production_is_not_guessed_at() {
        let of = |value: &str| Environment::from_pairs([(PRODUCTION, value)]).production();

        assert_eq!(of("true"), Ok(true));
        assert_eq!(of("0"), Ok(false));
        assert!(of("ture").is_err());
    }
}
