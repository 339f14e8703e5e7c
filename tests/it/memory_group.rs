//! A control group whose memory the kernel limits: whoever takes more is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// One group below that of the tests; gone when it is dropped.
pub(super) struct Group {
    path: PathBuf,
    /// Where the kernel counts whom it killed.
    events: &'static str,
}

impl Group {
    /// A group of so many bytes, no swap among them.
    ///
    /// # Errors
    /// Why none can be made here.
    pub(super) fn new(bytes: u64) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (parent, is_v2) = parent()?;
        let path = parent.join(format!("lc-tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (limit, swap, events) = if is_v2 {
            ("memory.max", ("memory.swap.max", 0), "memory.events")
        } else {
            ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", bytes), "memory.oom_control")
        };
        let group = Self { path, events };
        fs::write(group.path.join(limit), bytes.to_string()).map_err(|e| format!("{limit}: {e}"))?;
        // not there where there is no swap
        let _absent = fs::write(group.path.join(swap.0), swap.1.to_string());
        Ok(group)
    }

    /// What runs a program in it.
    pub(super) fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 > \"$0\" && exec \"$@\""]).arg(self.path.join("cgroup.procs")).arg(program);
        command
    }

    /// How often the kernel killed somebody in it for want of memory.
    pub(super) fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.events)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // a process that has just ended is in it for a moment yet
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// The nearest group that can have others below it with a limit, and whether it is of the second version (cgroups(7)).
fn parent() -> Result<(PathBuf, bool), String> {
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let group = group.trim_start_matches('/');
        if controllers.split(',').any(|c| c == "memory") {
            return Ok((Path::new("/sys/fs/cgroup/memory").join(group), false));
        }
        let gives = |path: &Path| {
            let given = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
            given.split_whitespace().any(|c| c == "memory")
        };
        let outwards = Path::new(group).ancestors().map(|group| Path::new("/sys/fs/cgroup").join(group));
        if let Some(path) = outwards.filter(|_| controllers.is_empty()).find(|path| gives(path)) {
            return Ok((path, true));
        }
    }
    Err("no group gives memory to those below it".into())
}
