//! A disk that is sick: a file system of the test's own (FUSE) in a mount namespace of its own, which answers with errors when told to, and forgets
//! what was not synced. Needs root and `/dev/fuse`, and says so when it has not run.

mod fs;
mod platter;

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use parking_lot::Mutex;

use self::fs::Sick;
pub(crate) use self::platter::Health;
use self::platter::Platter;
use super::full_disk::Disk;
use super::not_run;
use super::numbered::Dice;

/// What makes file systems of programs.
const DEVICE: &str = "/dev/fuse";

/// The disk, mounted; gone with everybody who is in its namespace.
pub(crate) struct SickDisk {
    pub(crate) disk: Disk,
    platter: Arc<Mutex<Platter>>,
}

/// Whether `test` can have one; says so when not.
pub(crate) fn is_possible(test: &str) -> bool {
    if !not_run::has_namespaces_and(test, &["unshare", "nsenter", "mount"]) {
        return false;
    }
    let there = File::options().read(true).write(true).open(DEVICE);
    if let Err(e) = &there {
        not_run::say(test, &format!("{DEVICE}: {e}"));
    }
    there.is_ok()
}

impl SickDisk {
    /// Well, and empty; in the network namespace `command` enters.
    pub(crate) fn mount(command: Command, inside: &Path) -> Self {
        let device = File::options().read(true).write(true).open(DEVICE).unwrap();
        let platter = Arc::new(Mutex::new(Platter::new()));
        let (of, end) = (Arc::clone(&platter), device.try_clone().unwrap());
        std::thread::spawn(move || {
            // the kernel refuses to be listened to until it is mounted, and the mount may wait for the first answer
            let listen =
                || Session::from_fd(Sick(Arc::clone(&of)), end.try_clone().unwrap().into(), SessionACL::Owner, Config::default());
            let session = (0..2000).find_map(|_| listen().inspect_err(|_| std::thread::sleep(Duration::from_millis(5))).ok());
            session.unwrap().run()
        });
        Self { disk: Disk::mount_fuse(command, inside, device), platter }
    }

    /// How it is from here on.
    pub(crate) fn is(&self, health: Health) {
        self.platter.lock().health = health;
    }

    /// Power goes, and comes back: what was not confirmed is gone, or a part of it. Whoever has files open there must have been killed.
    pub(crate) fn lose_power(&self, dice: &mut Dice) {
        self.platter.lock().lose_power(dice);
    }

    /// Everything is on the disk, though nobody asked: as the kernel does it after half a minute.
    pub(crate) fn write_back(&self) {
        self.platter.lock().write_back();
    }

    /// Calls that were answered with an error so far.
    pub(crate) fn refused(&self) -> u64 {
        self.platter.lock().refused
    }
}
