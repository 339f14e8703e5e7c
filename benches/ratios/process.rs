//! Programs started and timed: tcpdump, and the real `lc` as hunter and processor.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub(crate) const LC: &str = env!("CARGO_BIN_EXE_lc");

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// From start to exit.
    pub(crate) wall: Duration,
    /// User and system time of the process, to a hundredth of a second.
    pub(crate) cpu: Duration,
}

/// Runs to the end; panics with what the program said if it failed.
pub(crate) fn run(command: &mut Command) -> Cost {
    let before = children_cpu();
    let start = Instant::now();
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let wall = start.elapsed();
    assert!(out.status.success(), "{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    Cost { wall, cpu: children_cpu() - before }
}

/// Runs with a file as its input, evenly spread over this time.
pub(crate) fn feed(command: &mut Command, path: &Path, over: Duration) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut pipe, mut file) = (child.stdin.take().unwrap(), fs::File::open(path).unwrap());
    let length = file.metadata().unwrap().len();
    let (mut piece, mut sent, start) = (vec![0; 64 << 10], 0_u64, Instant::now());
    loop {
        let read = file.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        pipe.write_all(&piece[..read]).unwrap();
        sent += read as u64;
        let due = over.mul_f64(sent as f64 / length as f64);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    drop(pipe);
    let status = child.wait().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// What a log says of this key: a number and its unit, as [`Duration`] shows itself.
pub(crate) fn duration(log: &str, key: &str) -> Option<Duration> {
    let said = log.split(&format!("\"{key}\":\"")).last()?.split('"').next()?;
    let at = said.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = said.split_at(at);
    let seconds = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * seconds))
}

/// `tcpdump -r FROM -w TO`.
pub(crate) fn tcpdump(from: &Path, to: &Path) -> Cost {
    let mut command = Command::new("tcpdump");
    // as root it would give up its rights, and then may not write where we do
    if fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0) {
        command.args(["-Z", "root"]);
    }
    run(command.arg("-r").arg(from).arg("-w").arg(to))
}

/// `lc` with arguments, at home in `dir`.
pub(crate) fn lc(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(LC);
    command.args(arguments).current_dir(dir).env("HOME", dir);
    command
}

/// A processor on a port of its own.
pub(crate) struct Processor {
    child: Child,
    port: u16,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Processor {
    /// Starts one in `dir`; returns once it listens.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        let given = [&["process", "--listen", "127.0.0.1:0", "--log-format", "json", "--state-dir", "state"], arguments].concat();
        let mut child = lc(dir, &given).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let port = loop {
            let line = lines.next().unwrap_or_else(|| panic!("the processor ended: {seen}")).unwrap();
            seen.push_str(&line);
            if let Some(rest) = line.split("\"listening\",\"address\":\"127.0.0.1:").nth(1) {
                break rest.split('"').next().unwrap().parse().unwrap();
            }
        };
        let log = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                seen.push_str(&line);
                seen.push('\n');
            }
            seen
        });
        Self { child, port, log: Some(log) }
    }

    /// For `-P`.
    pub(crate) fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Stops it gracefully: what it cost since its start, and its log.
    pub(crate) fn stop(mut self) -> (Duration, String) {
        let before = children_cpu();
        terminate(&self.child);
        let status = self.child.wait().unwrap();
        let log = self.log.take().unwrap().join().unwrap();
        assert!(status.success(), "processor: {status}\n{log}");
        (children_cpu() - before, log)
    }
}

impl Drop for Processor {
    /// A bench that failed leaves nothing running.
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Asks a program to end.
pub(crate) fn terminate(child: &Child) {
    let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(asked.success(), "kill");
}

/// A figure of `/proc/PID/status` in KiB, such as `VmRSS`; `None` when the process is gone.
pub(crate) fn memory_kib(pid: u32, what: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(what)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Runs to the end and returns the most memory it had resident, in KiB.
pub(crate) fn peak_kib(command: &mut Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        peak = memory_kib(child.id(), "VmHWM").unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success(), "{command:?}: {status}");
    peak
}

/// User and system time of all children that were waited for (`proc_pid_stat(5)`, fields 16 and 17).
fn children_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // the name, field 2, may hold anything, but ends at the last parenthesis
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = rest.split_whitespace().skip(13).take(2).map(|t| t.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
