//! A hunter on loopback that reads a pipe.

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lippycat::telemetry::clock::Moment;

use crate::numbered_file::{header, record};
use crate::started::Started;
use crate::whole::LC;

/// `lc hunt` on a pipe.
pub(super) struct Hunter {
    child: Started,
    log: PathBuf,
}

impl Hunter {
    pub(super) fn start(dir: &Path, port: u16, more: &[&str]) -> Self {
        let log = dir.join("hunter.log");
        let stderr = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = Command::new(LC)
            .args(["hunt", "-P", &format!("127.0.0.1:{port}"), "--insecure", "--id", "edge", "--no-filter-policy", "allow"])
            .args(["--keep-duplicates", "--log-format", "json", "--connect-timeout", "60s", "-r", "-"])
            .args(more)
            .current_dir(dir)
            .env("HOME", dir)
            .stdin(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        child.stdin.as_mut().unwrap().write_all(&header()).unwrap();
        Self { child: Started(child), log }
    }

    pub(super) fn send(&mut self, numbers: Range<u64>) {
        let bytes: Vec<u8> = numbers.flat_map(record).collect();
        self.child.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
    }

    /// The end of its input; it must deliver everything and end well. What its final line counts as dropped.
    pub(super) fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        let began = Moment::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_mins(2), "the hunter does not get rid of its packets: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}: {}", self.said());
        let said = self.said();
        assert!(said.contains("\"unaccounted\":0"), "{said}");
        let dropped = said.lines().rev().find_map(|l| l.split("\"dropped\":\"").nth(1)).unwrap();
        dropped.split('"').next().unwrap().to_owned()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}
