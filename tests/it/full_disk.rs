//! A disk that is full, and then is not: a small tmpfs in a mount namespace of its own. Needs root, and says so when it has not run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::not_run;
use super::started::Started;
use super::whole::{LC, Processor, calls_capture, frames, records, wait_for};

/// A small file system nobody else sees.
pub(crate) struct Disk {
    holder: Started,
    /// Where it is for those inside.
    inside: PathBuf,
}

impl Disk {
    fn mount(inside: &Path, bytes: u64) -> Self {
        let script = format!("mount -t tmpfs -o size={bytes},mode=700 none \"$0\" && echo mounted && exec sleep 600");
        Self::mount_by(Command::new("unshare"), inside, &script, Stdio::null())
    }

    /// A real file system of 16 MiB, in the network namespace `command` enters.
    pub(crate) fn mount_ext4(mut command: Command, inside: &Path) -> Self {
        let make = "truncate -s 16M \"$0.img\" && mkfs.ext4 -q \"$0.img\" && mount -o loop \"$0.img\" \"$0\" && chmod 700 \"$0\"";
        command.arg("unshare");
        Self::mount_by(command, inside, &format!("{make} && echo mounted && exec sleep 3600"), Stdio::null())
    }

    /// What answers at this end of `/dev/fuse`, in the network namespace `command` enters.
    pub(crate) fn mount_fuse(mut command: Command, inside: &Path, device: fs::File) -> Self {
        // whoever keeps the device open keeps those waiting who ask when nobody answers any more
        let script = "mount -i -t fuse -o fd=0,rootmode=40000,user_id=0,group_id=0,default_permissions sick \"$0\" && \
                      echo mounted && exec sleep 3600 < /dev/null";
        command.arg("unshare");
        Self::mount_by(command, inside, script, device.into())
    }

    fn mount_by(mut unshare: Command, inside: &Path, script: &str, stdin: Stdio) -> Self {
        fs::create_dir(inside).unwrap();
        unshare.args(["-m", "sh", "-c", script]).arg(inside).stdin(stdin).stdout(Stdio::piped());
        let mut holder = unshare.spawn().unwrap();
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut said).unwrap();
        assert_eq!(said, "mounted\n");
        Self { holder: Started(holder), inside: inside.to_owned() }
    }

    /// Where it is for the test.
    pub(crate) fn outside(&self) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(self.inside.strip_prefix("/").unwrap())
    }

    fn processor(&self, dir: &Path, port: u16, arguments: &[&str]) -> Processor {
        Processor::spawn(self.enter(dir), dir, port, arguments)
    }

    /// What runs `lc` where the file system is there, in the same network namespace.
    pub(crate) fn enter(&self, dir: &Path) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.holder.id().to_string(), "-m", "-n", "sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(dir).arg(LC);
        enter
    }

    /// From here on it takes nothing more, as after an error that its kernel met; for [`Self::mount_ext4`].
    pub(crate) fn make_read_only(&self) {
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.holder.id().to_string(), "-m", "mount", "-o", "remount,abort"]).arg(&self.inside);
        assert!(enter.status().unwrap().success());
    }

    /// Leaves only so many bytes free.
    fn fill(&self, leave: u64) {
        let free = self.free();
        fs::write(self.outside().join("filler"), vec![0; usize::try_from(free.saturating_sub(leave)).unwrap()]).unwrap();
    }

    pub(crate) fn free(&self) -> u64 {
        let out = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(self.outside()).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.split_whitespace().map(|n| n.parse::<u64>().unwrap()).product()
    }
}

/// What a run leaves: records with the sums of their files, and the frames of the unified file.
type Left = (std::collections::BTreeMap<String, serde_json::Value>, Vec<(i64, u32, Vec<u8>)>);

/// What happens while the disk is full.
#[derive(Clone, Copy, PartialEq)]
enum Trial {
    Never,
    Waits,
    Restarts,
}

fn run(dir: &Path, trial: Trial, min_free: u64) -> Left {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: t, type: sip_user, pattern: alice}\n").unwrap();
    let disk = Disk::mount(&dir.join("disk"), 4 << 20);
    let reserve = min_free.to_string();
    let arguments = ["--insecure", "--filter-file", "f.yaml", "-w", "disk/all.pcap", "--per-call-pcap", "--per-call-pcap-dir"];
    let arguments = [&arguments[..], &["disk/calls", "--state-dir", "disk/state", "--min-free", &reserve]].concat();
    let mut processor = disk.processor(dir, 0, &arguments);
    let port = processor.port;
    if trial != Trial::Never {
        // room for some batches, then none
        disk.fill(min_free + 64 * 1024);
    }
    let address = format!("127.0.0.1:{port}");
    let capture = calls_capture();
    let hunt = ["hunt", "voip", "-P", &address, "--insecure", "--id", "h", "--batch-size", "10", "-r", capture.to_str().unwrap()];
    let hunter = Command::new(LC).args(hunt).current_dir(dir).env("HOME", dir).stderr(Stdio::piped()).spawn().unwrap();

    if trial != Trial::Never {
        wait_for(|| processor.has_said("hunters are paused"));
        // every file is whole, whatever the disk took of the last write; one may not even have its header
        let calls = fs::read_dir(disk.outside().join("calls")).unwrap().map(|e| e.unwrap().path());
        let captures = calls.filter(|p| p.extension().is_some_and(|e| e == "pcap")).chain([disk.outside().join("all.pcap")]);
        let counts: Vec<usize> = captures.filter(|p| p.metadata().unwrap().size() > 0).map(|p| frames(&p).len()).collect();
        assert!(counts.iter().sum::<usize>() < 2 * 424, "the disk was not full");
        // records, which are small, may use the reserve
        assert!(disk.free() >= min_free / 4 * 3, "{} bytes are free", disk.free());
        if trial == Trial::Restarts {
            processor.stop();
            fs::remove_file(disk.outside().join("filler")).unwrap();
            processor = disk.processor(dir, port, &arguments);
        } else {
            fs::remove_file(disk.outside().join("filler")).unwrap();
            wait_for(|| processor.has_said("hunters go on"));
        }
    }
    let said = hunter.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("\"acknowledged\":424") && said.contains("\"unaccounted\":0"), "{said}");
    let calls = disk.outside().join("calls");
    wait_for(|| records(&calls).values().filter(|r| r["closed"] == true).count() == 4);
    let log = processor.stop();
    assert!(log.contains("\"lost\":0"), "{log}");
    let named = records(&calls).into_values().any(|r| log.contains(r["call_id"].as_str().unwrap().split('@').next().unwrap()));
    assert!(!named, "a call is named: {log}");
    (records(&calls), frames(&disk.outside().join("all.pcap")))
}

#[test]
fn a_full_disk_pauses_the_hunters_and_what_is_left_is_what_it_would_have_been() {
    if !not_run::has_namespaces_and("full disk", &["unshare", "nsenter", "mount"]) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();

    let (records, unified) = run(&tmp.path().join("roomy"), Trial::Never, 0);
    assert_eq!((records.len(), unified.len()), (4, 424));
    for (name, trial, min_free) in [
        ("enospc", Trial::Waits, 0),
        ("enospc-restart", Trial::Restarts, 0),
        ("reserve", Trial::Waits, 1 << 20),
        ("reserve-restart", Trial::Restarts, 1 << 20),
    ] {
        let left = run(&tmp.path().join(name), trial, min_free);

        assert_eq!(left.0, records, "{name}: records, with the sums of their files");
        assert_eq!(left.1, unified, "{name}");
    }
}
