//! `--sandbox`: what a long-running command may still ask of the kernel once it has begun, whatever becomes of it.
//!
//! ```text
//! privileges given up ─▶ paths (landlock): named ones, the rest of the file system is not there ─▶ system calls (seccomp) ─▶ threads
//! ```
//! It happens while the process has one thread: both are inherited by every later one, and neither can be taken back. The paths are
//! directories rather than files, since certificates, filters and captures are replaced by renaming; what a symbolic link leads to counts
//! as well. [`calls`] lists the system calls.
//!
//! Best effort: a kernel that knows less than is asked for gives what it has, and the log says so. Refuses to run without it only where
//! the kernel knows it and does not grant it. The network is left alone: a hunter goes wherever its processors are.

mod calls;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::Context;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};

use crate::record::readers::{Readers, make_dir};

pub(super) use self::calls::Role;
use super::exit::Stop;

/// Read by libraries: names of hosts and users, time zones, what the kernel says of processes, interfaces and control groups.
const SYSTEM: [&str; 8] = ["/etc", "/usr", "/lib", "/lib64", "/proc", "/sys", "/dev", "/run/systemd/resolve"];
/// What is asked of landlock; older kernels know less.
const WANTED: ABI = ABI::V6;

/// The directories a command goes on needing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl Reach {
    /// This file is read, now or later, or whatever takes its place.
    pub(super) fn reads<'a>(&mut self, files: impl IntoIterator<Item = &'a PathBuf>) {
        for file in files {
            self.read.push(parent(file));
            // where a symbolic link leads
            self.read.extend(file.canonicalize().ok().map(|file| parent(&file)));
        }
    }

    /// This file is written, and others beside it.
    pub(super) fn writes_file(&mut self, file: &Path, readers: Readers) {
        self.writes_into(&parent(file), readers);
    }

    /// This directory is written into, for these readers; it is made if it is not there, as it would be later.
    pub(super) fn writes_into(&mut self, dir: &Path, readers: Readers) {
        // one that cannot be made is said by who needs it
        let _later = make_dir(dir, readers);
        self.write.push(dir.to_path_buf());
    }
}

fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Goes in, for good: this thread, and every thread it starts.
pub(super) fn enter(role: Role, reach: &Reach) -> Result<(), Stop> {
    let paths = restrict_paths(reach).context("cannot restrict the paths this process may use (landlock); see --sandbox")?;
    let calls = calls::restrict(role).context("cannot restrict system calls (seccomp); see --sandbox")?;
    let paths = match paths {
        RulesetStatus::FullyEnforced => "all",
        RulesetStatus::PartiallyEnforced => "in part",
        RulesetStatus::NotEnforced => "none",
    };
    if paths == "none" || !calls {
        tracing::warn!(paths, calls, "the sandbox is not whole: this kernel or processor does not know all of it");
    } else {
        tracing::info!(paths, calls, "sandboxed");
    }
    Ok(())
}

fn restrict_paths(reach: &Reach) -> anyhow::Result<RulesetStatus> {
    let everything = AccessFs::from_all(WANTED);
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let change = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::Refer;
    let write = read | change | AccessFs::RemoveFile | AccessFs::RemoveDir;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(&reach.read, read))?
        .add_rules(path_beneath_rules(&reach.write, write))?
        .add_rules(path_beneath_rules(["/dev/null"], read | AccessFs::WriteFile))?
        .restrict_self()?;
    Ok(status.ruleset)
}
