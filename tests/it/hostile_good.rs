//! The good hunter: it sends all the while others do what they want, and every packet of it is stored soon after.

use std::io::{self, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::numbered::number;
use super::numbered_file::{header, record};
use super::started::Started;
use super::whole::{LC, Processor, frames, wait_for};

/// Between two handfuls of packets, and how many are in one: 2000 a second.
const PACE: Duration = Duration::from_millis(10);
const HANDFUL: u64 = 20;

/// A hunter, and what feeds it numbered packets.
pub(super) struct Good {
    hunter: Started,
    enough: Arc<AtomicBool>,
    feeding: JoinHandle<io::Result<u64>>,
}

impl Good {
    /// Begins to send; returns once the processor knows it.
    pub(super) fn start(dir: &Path, processor: &Processor) -> Self {
        let address = format!("127.0.0.1:{}", processor.port);
        let mut command = Command::new(LC);
        command.args(["hunt", "-P", &address, "--insecure", "--id", "good", "--no-filter-policy", "allow", "--keep-duplicates"]);
        command
            .args(["-r", "-"])
            .current_dir(dir)
            .env("HOME", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut hunter = Started(command.spawn().unwrap());
        let (pipe, enough) = (hunter.stdin.take().unwrap(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&enough);
        let feeding = std::thread::spawn(move || feed(pipe, &told));
        wait_for(|| processor.has_said("hunter registered"));
        Self { hunter, enough, feeding }
    }

    /// Sends no more; all of it is acknowledged within a minute. How many packets that were.
    pub(super) fn end(mut self) -> u64 {
        self.enough.store(true, Ordering::Release);
        let sent = self.feeding.join().unwrap().unwrap();
        let mut status = None;
        wait_for(|| {
            status = self.hunter.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0), "the good hunter lost packets");
        sent
    }
}

fn feed(mut pipe: ChildStdin, enough: &AtomicBool) -> io::Result<u64> {
    pipe.write_all(&header())?;
    let mut next = 0;
    while !enough.load(Ordering::Acquire) || next < 10 * HANDFUL {
        std::thread::sleep(PACE);
        pipe.write_all(&(next..next + HANDFUL).flat_map(record).collect::<Vec<u8>>())?;
        next += HANDFUL;
    }
    Ok(next)
}

/// Every packet of the good hunter is in this file, once and in order, whatever else is.
#[track_caller]
pub(super) fn assert_stored(file: &Path, sent: u64) {
    let all = frames(file).into_iter().map(|frame| frame.2).filter(|data| data.get(42..49) == Some(b"number "));
    let stored: Vec<u64> = all.map(|data| number(&data)).collect();
    assert!(stored.iter().copied().eq(0..sent), "{} of {sent} stored, or in another order", stored.len());
}
