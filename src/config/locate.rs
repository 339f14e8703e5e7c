//! Which configuration file is read.
//!
//! The one that was named; else the first of `./lippycat.yaml`, `~/.config/lippycat/config.yaml`,
//! `/etc/lippycat/config.yaml` (each also as `.toml`). The one in the working directory is read only if nobody else could have
//! put it there: it belongs to the user or to root and neither group nor others may write it (decision 38).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::{Place, Problem};
use super::tree::MAX_FILE_BYTES;

/// Where to look.
#[derive(Clone, Debug, Default)]
pub enum Choice {
    /// The usual places.
    #[default]
    Search,
    /// This file, which must exist.
    Named(PathBuf),
    /// No file at all.
    Nothing,
}

/// A file that was found and read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Finds and reads the file; notes say which candidate was passed over, and why.
pub(super) fn find(choice: &Choice, environment: &Environment, notes: &mut Vec<String>) -> Result<Option<Found>, Problem> {
    let named = match choice {
        Choice::Nothing => return Ok(None),
        Choice::Named(path) => Some(path.clone()),
        Choice::Search => environment.config_file(),
    };
    if let Some(path) = named {
        let problem = |what| Problem { place: Place::File { path: path.clone(), line: 0 }, what };
        let file = File::open(&path).map_err(|error| problem(format!("cannot read the configuration: {error}")))?;
        return read(&path, file).map(Some).map_err(problem);
    }
    for (path, trusted) in candidates(environment) {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                notes.push(format!("{} is not read: {error}", path.display()));
                continue;
            }
        };
        if !trusted && let Err(why) = check_owner(&file, effective_uid()) {
            notes.push(format!("{} is not read: {why}; name it with -c if you trust it", path.display()));
            continue;
        }
        return read(&path, file).map(Some).map_err(|what| Problem { place: Place::File { path, line: 0 }, what });
    }
    Ok(None)
}

/// The usual places, and whether their directory makes them trustworthy.
fn candidates(environment: &Environment) -> Vec<(PathBuf, bool)> {
    let mut out = vec![(PathBuf::from("lippycat.yaml"), false), (PathBuf::from("lippycat.toml"), false)];
    let directories = [environment.home().map(|home| format!("{home}/.config/lippycat")), Some("/etc/lippycat".to_owned())];
    for directory in directories.into_iter().flatten() {
        for name in ["config.yaml", "config.toml"] {
            out.push((Path::new(&directory).join(name), true));
        }
    }
    out
}

/// Looks at the open file, not at the path, so that it cannot be exchanged in between.
fn check_owner(file: &File, me: Option<u32>) -> Result<(), String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    let owner = metadata.uid();
    if owner != 0 && Some(owner) != me {
        return Err(format!("it belongs to another user (uid {owner})"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!("others may write it (mode {:04o})", metadata.mode() & 0o7777));
    }
    Ok(())
}

/// The effective user, from `/proc/self/status` (`proc_pid_status(5)`): unlike the owner of `/proc/self` it stays true when the
/// binary carries capabilities.
fn effective_uid() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn read(path: &Path, file: File) -> Result<Found, String> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read the configuration: {error}"))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(format!("larger than {MAX_FILE_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
    Ok(Found { path: path.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(mode: u32) -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lippycat.yaml");
        std::fs::write(&path, "log:\n  level: debug\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, File::open(&path).unwrap())
    }

    #[test]
    fn a_file_others_may_write_is_not_trusted() {
        let me = effective_uid();
        assert!(me.is_some());
        for (mode, trusted) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false), (0o666, false)] {
            let (_directory, file) = file(mode);

            assert_eq!(check_owner(&file, me).is_ok(), trusted, "{mode:o}");
        }
    }

    #[test]
    fn a_file_of_another_user_is_not_trusted_unless_it_is_roots() {
        let (_directory, file) = file(0o600);
        let owner = file.metadata().unwrap().uid();

        let stranger = Some(owner.wrapping_add(1));

        assert_eq!(check_owner(&file, stranger).is_ok(), owner == 0);
        assert_eq!(check_owner(&file, None).is_ok(), owner == 0);
    }

    #[test]
    fn a_named_file_must_exist() {
        let choice = Choice::Named(PathBuf::from("/nonexistent/lc.yaml"));

        let problem = find(&choice, &Environment::default(), &mut Vec::new()).unwrap_err();

        assert!(problem.to_string().starts_with("/nonexistent/lc.yaml: cannot read the configuration: No such file"));
    }

    #[test]
    fn the_working_directory_comes_first_and_etc_last() {
        let environment = Environment::from_pairs([("HOME", "/home/x")]);

        let paths: Vec<_> = candidates(&environment).into_iter().map(|(path, _)| path.display().to_string()).collect();

        assert_eq!(
            paths,
            [
                "lippycat.yaml",
                "lippycat.toml",
                "/home/x/.config/lippycat/config.yaml",
                "/home/x/.config/lippycat/config.toml",
                "/etc/lippycat/config.yaml",
                "/etc/lippycat/config.toml"
            ]
        );
    }
}
