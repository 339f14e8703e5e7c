//! The rows, in order.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lippycat::filter::{Filter, FilterKind};
use lippycat::record::FileFact;
use lippycat::record::calls::{CallFiles, CallFilesConfig, CallKey, CallState, Part, Run, TrackState};
use lippycat::record::dir::{Access, Dir, MinFree};
use lippycat::record::name::{Pattern, Purpose};
use lippycat::record::state::{self, Saving, State};

use crate::Bench;
use crate::monitors::Stalled;
use crate::process::{self, Cost, Processor, lc};
use crate::steady::{Flow, Steady};
use crate::table::{Goal, Row, Spread, Unit};
use crate::traffic::{Kind, TARGETS, Traffic};
use crate::{counting, drain, growth, inspect, media, push, stream};

/// Bytes before the first record of a capture file.
const PCAP_HEADER: u64 = 24;

/// Measures every wanted row and hands it over as soon as it is there.
pub(crate) fn all(bench: &Bench, done: &mut dyn FnMut(Row)) {
    if ["inspect", "voip", "forward", "durable", "filters", "stream", "monitors", "drain"].iter().any(|k| bench.wants(k)) {
        let voip = Kind::Voip.make(&bench.dir, bench.bytes).unwrap();
        with_voip(bench, &voip, done);
        fs::remove_file(&voip.path).unwrap();
    }
    if bench.wants("inspect") {
        for (kind, name) in [(Kind::Imix, "IMIX"), (Kind::Small, "64-byte UDP")] {
            let traffic = kind.make(&bench.dir, bench.bytes / 2).unwrap();
            let what = format!("inspect: the same on {name}");
            done(Row::speed(
                &what,
                Goal::None,
                bench.rounds,
                || inspect::read_decode_detect_flow(&traffic.path),
                || tcpdump_to_null(&traffic),
            ));
            fs::remove_file(&traffic.path).unwrap();
        }
    }
    if bench.wants("calls") {
        calls(bench, done);
        done(media::row(bench));
    }
    if bench.wants("push") {
        match push::row(bench, &fresh(bench, "push")) {
            Some(row) => done(row),
            None => println!("push: not run: capturing needs root"),
        }
    }
    if bench.wants("idle") || bench.wants("start") {
        idle(bench, done);
    }
    if bench.wants("checkpoint") {
        checkpoint(bench, done);
    }
    if bench.wants("allocations") {
        allocations(done);
    }
    growth::rows(bench, done);
}

fn tcpdump_to_null(traffic: &Traffic) -> Duration {
    process::tcpdump(&traffic.path, Path::new("/dev/null")).wall
}

fn with_voip(bench: &Bench, voip: &Traffic, done: &mut dyn FnMut(Row)) {
    if bench.wants("inspect") {
        let what = "inspect: read, decode, detect, find the flow : tcpdump -w null";
        let ours = || inspect::read_decode_detect_flow(&voip.path);
        done(Row::speed(what, Goal::AtLeast(2.0), bench.rounds, ours, || tcpdump_to_null(voip)));
        let what = "inspect: the whole engine, 1 % chosen : tcpdump -w null";
        let ours = || inspect::inspection(&voip.path, &[Filter::new("t", FilterKind::SipUser, format!("{TARGETS}*"))]).0;
        done(Row::speed(what, Goal::None, bench.rounds, ours, || tcpdump_to_null(voip)));
    }
    if bench.wants("voip") {
        hunt_voip(bench, voip, done);
    }
    if bench.wants("forward") {
        forward(bench, voip, done);
    }
    if bench.wants("drain") {
        let dir = fresh(bench, "drain");
        let plain = ["--insecure", "--no-filter-policy", "allow"];
        drain::rows(&dir, bench, voip, |processor| hunt(&dir, &[], processor, &plain, voip).wall, done);
    }
    if bench.wants("monitors") {
        monitors(bench, voip, done);
    }
    if bench.wants("durable") {
        durable(bench, voip, done);
    }
    if bench.wants("filters") {
        filters(bench, voip, done);
    }
    if bench.wants("stream") {
        let batches = stream::batches(&voip.path);
        let state = bench.dir.join("stream");
        let what = "stream: batches over gRPC : the same with a length over TCP";
        let ours = || stream::data_stream(&batches, &state);
        done(Row::speed(what, Goal::AtLeast(0.85), bench.rounds, ours, || stream::bare_tcp(&batches)));
    }
}

/// What hunters and processors cost per packet of the file, over several runs.
#[derive(Default)]
struct Cpu {
    hunter: Vec<f64>,
    processor: Vec<f64>,
}

impl Cpu {
    fn note(&mut self, hunter: Duration, processor: Duration, packets: u64) {
        let nanos = |d: Duration| d.as_secs_f64() * 1e9 / packets as f64;
        self.hunter.push(nanos(hunter));
        self.processor.push(nanos(processor));
    }

    fn row(self, what: &str) -> Row {
        let processor = Spread::of(self.processor).median;
        let from = format!("beside {processor:.0} ns of the processor's");
        Row { what: what.to_owned(), figure: Spread::of(self.hunter), unit: Unit::Nanos, goal: Goal::None, from }
    }
}

/// One percent of the packets, to a real processor that writes them.
fn hunt_voip(bench: &Bench, voip: &Traffic, done: &mut dyn FnMut(Row)) {
    let dir = fresh(bench, "voip");
    fs::write(dir.join("filters.yaml"), format!("filters:\n  - {{id: t, type: sip_user, pattern: '{TARGETS}*'}}\n")).unwrap();
    let mut cpu = Cpu::default();
    let mut share = 0.0;
    let ours = || {
        let _old = fs::remove_file(dir.join("all.pcap"));
        let _old = fs::remove_dir_all(dir.join("state"));
        let processor = Processor::start(&dir, &["--insecure", "--filter-file", "filters.yaml", "-w", "all.pcap"]);
        let hunter = hunt(&dir, &["voip"], &processor, &["--insecure"], voip);
        let (spent, _) = processor.stop();
        cpu.note(hunter.cpu, spent, voip.packets);
        share = fs::metadata(dir.join("all.pcap")).unwrap().len() as f64 / voip.bytes as f64;
        hunter.wall
    };
    let what = "voip: lc hunt voip, 1 % to lc process -w : tcpdump -w null";
    let mut row = Row::speed(what, Goal::AtLeast(1.0), bench.rounds, ours, || tcpdump_to_null(voip));
    row.from = format!("{}, {:.1} % of the bytes forwarded", row.from, share * 100.0);
    done(row);
    done(cpu.row("voip: CPU of the hunter per packet captured"));
}

/// Every packet, to a real processor that writes them.
fn forward(bench: &Bench, voip: &Traffic, done: &mut dyn FnMut(Row)) {
    let dir = fresh(bench, "forward");
    for arguments in [
        &["certs", "init", "--dir", "c", "-q"][..],
        &["certs", "issue", "processor", "mid", "--dns", "localhost", "--ip", "127.0.0.1", "--dir", "c", "-q"],
    ] {
        process::run(&mut lc(&dir, arguments));
    }
    let ways: [(&str, &[&str], &[&str], f64); 2] = [
        ("TLS", &["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key"], &["--tls-ca", "c/ca.crt"], 0.7),
        ("plain text", &["--insecure"], &["--insecure"], 1.0),
    ];
    for (name, server, client, goal) in ways {
        let mut cpu = Cpu::default();
        let ours = || {
            let _old = fs::remove_file(dir.join("all.pcap"));
            let _old = fs::remove_dir_all(dir.join("state"));
            let processor = Processor::start(&dir, &[server, &["-w", "all.pcap"]].concat());
            let hunter = hunt(&dir, &[], &processor, &[client, &["--no-filter-policy", "allow"]].concat(), voip);
            let (spent, _) = processor.stop();
            let written = fs::metadata(dir.join("all.pcap")).unwrap().len();
            assert_eq!(written, voip.bytes, "every packet is in the file");
            cpu.note(hunter.cpu, spent, voip.packets);
            hunter.wall
        };
        let copy = dir.join("copy.pcap");
        let theirs = || {
            let _old = fs::remove_file(&copy);
            process::tcpdump(&voip.path, &copy).wall
        };
        let what = format!("forward: everything to lc process -w, {name} : tcpdump -w file");
        done(Row::speed(&what, Goal::AtLeast(goal), bench.rounds, ours, theirs));
        done(cpu.row(&format!("forward: CPU of the hunter per packet, {name}")));
    }
}

/// What monitors that read nothing, and of which each has as much waiting as may, cost those who store.
fn monitors(bench: &Bench, voip: &Traffic, done: &mut dyn FnMut(Row)) {
    let dir = fresh(bench, "monitors");
    let first = Kind::Voip.make(&dir, 32 << 20).unwrap();
    let all = ["--insecure", "--no-filter-policy", "allow"];
    let stored = |stalled: u32| {
        let _old = fs::remove_file(dir.join("all.pcap"));
        let _old = fs::remove_dir_all(dir.join("state"));
        let processor = Processor::start(&dir, &["--insecure", "-w", "all.pcap"]);
        let monitors = Stalled::at(&processor.address(), stalled);
        hunt(&dir, &[], &processor, &all, &first);
        let hunter = hunt(&dir, &[], &processor, &all, voip);
        drop(monitors);
        processor.stop();
        let bytes = fs::metadata(dir.join("all.pcap")).unwrap().len();
        assert_eq!(bytes, first.bytes + voip.bytes - PCAP_HEADER, "every packet is in the file");
        hunter.wall
    };
    let what = "monitors: everything to lc process -w beside 50 that stand still, 8 MiB waiting for each : beside none";
    done(Row::speed(what, Goal::AtLeast(0.98), bench.rounds, || stored(50), || stored(0)));
}

/// What it costs that nothing is lost: everything to a processor that writes it, in plain text.
fn durable(bench: &Bench, voip: &Traffic, done: &mut dyn FnMut(Row)) {
    let dir = fresh(bench, "durable");
    let processor = |durability: &str| {
        for old in ["state", "spool"] {
            let _old = fs::remove_dir_all(dir.join(old));
        }
        let _old = fs::remove_file(dir.join("all.pcap"));
        Processor::start(&dir, &["--insecure", "-w", "all.pcap", "--durability", durability])
    };
    let plain = ["--insecure", "--no-filter-policy", "allow", "--disk-buffer-dir", "spool"];
    let forward = |to: &Processor, hunters: &str| hunt(&dir, &[], to, &[&plain[..], &["--durability", hunters]].concat(), voip);
    let stored = |processors: &str, hunters: &str| {
        let processor = processor(processors);
        let hunter = forward(&processor, hunters);
        processor.stop();
        hunter.wall
    };
    let what = "durable: acknowledged by the disk : by the kernel";
    done(Row::speed(what, Goal::AtLeast(0.9), bench.rounds, || stored("disk", "memory"), || stored("process", "memory")));
    // in a short run the kernel writes nothing itself: whoever goes on for longer pays for that, too
    let settled = |processors: &str| {
        let processor = processor(processors);
        let began = Instant::now();
        forward(&processor, "memory");
        processor.stop();
        fs::File::open(dir.join("all.pcap")).unwrap().sync_data().unwrap();
        began.elapsed()
    };
    let what = "durable: the same, until all of it is on the disk and the processor has ended";
    done(Row::speed(what, Goal::AtLeast(0.9), bench.rounds, || settled("disk"), || settled("process")));
    let what = "durable: hunter with a log on its disk (wal) : in memory";
    done(Row::speed(what, Goal::AtLeast(0.7), bench.rounds, || stored("disk", "wal"), || stored("disk", "memory")));

    let full = stored("disk", "memory");
    let (mut p99, mut p50) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let processor = processor("disk");
        let address = processor.address();
        let command = [&["hunt", "-P", &address, "--id", "bench", "--log-format", "json", "-r", "-"][..], &plain].concat();
        process::feed(&mut lc(&dir, &command), &voip.path, full * 2);
        let (_, log) = processor.stop();
        let millis = |key: &str| process::duration(&log, key).unwrap_or_else(|| panic!("{log}")).as_secs_f64() * 1e3;
        p50.push(millis("p50"));
        p99.push(millis("p99"));
    }
    done(Row {
        what: "durable: time to acknowledgement at half load, p99".to_owned(),
        figure: Spread::of(p99),
        unit: Unit::Millis,
        goal: Goal::AtMost(500.0),
        from: format!("half of all: within {:.0} ms", Spread::of(p50).median),
    });
}

/// What a checkpoint costs while so many calls have files.
fn checkpoint(bench: &Bench, done: &mut dyn FnMut(Row)) {
    const CALLS: u64 = 100_000;
    let dir = fresh(bench, "checkpoint");
    let fact = |n: u64, part: &str| {
        let name = format!("{n:08}-0123456789abcdef_{part}.pcap");
        FileFact { name, bytes: 10_000 + n, packets: 50 + n, sha256: None }
    };
    let track = |n: u64, part: Part, name: &str| TrackState {
        part,
        link: 1,
        sibling: false,
        index: 0,
        current: fact(n, name),
        done: Vec::new(),
        runs: vec![Run { hunter: "edge-1".into(), sip: part == Part::Sip, packets: 50 + n }],
    };
    let call = |n: u64| CallState {
        call_id: CallKey::Text(format!("{n:08}@host.example")),
        stem: format!("{n:08}-0123456789abcdef"),
        packets: 100,
        closed_at: None,
        tracks: vec![track(n, Part::Sip, "sip"), track(n, Part::Rtp, "rtp")],
    };
    let calls: Vec<CallState> = (0..CALLS).map(call).collect();
    let pattern = Pattern::parse("{callid}.pcap", Purpose::Call).unwrap();
    let mut files = CallFiles::open(&dir.join("calls"), CallFilesConfig::new(pattern)).unwrap();
    files.restore(&calls);
    let at = Dir::open(&dir, Access::Private, MinFree::NONE).unwrap();
    let (mut taking, mut saving, mut slice, mut pause) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let start = Instant::now();
        let state = State { calls: files.snapshot(), ..State::default() };
        taking.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let mut slices = Saving::begin(&at, true, 0).unwrap();
        let mut longest = Duration::ZERO;
        loop {
            let slice = Instant::now();
            let done = slices.step(&state, &at).unwrap();
            longest = longest.max(slice.elapsed());
            if done {
                break;
            }
        }
        saving.push(start.elapsed().as_secs_f64() * 1e3);
        // nothing is acknowledged while a slice is written, and no new batch while the lists are made
        let waits = longest.as_secs_f64() * 1e3;
        slice.push(waits);
        pause.push(waits.max(taking.last().copied().unwrap_or(0.0)));
    }
    let bytes = fs::metadata(dir.join(state::FILE_NAME)).unwrap().len();
    let mut loading = Vec::new();
    for _ in 0..bench.rounds {
        let start = Instant::now();
        assert_eq!(State::load(&at).unwrap().unwrap().calls.len(), calls.len());
        loading.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let mut idle = Vec::new();
    for n in 1..=bench.rounds as u64 {
        let start = Instant::now();
        let (calls, gone) = files.take_changes();
        State { calls, gone, since: Some(0), ..State::default() }.save_changes(&at, true, n).unwrap();
        idle.push(start.elapsed().as_secs_f64() * 1e3);
    }
    done(Row {
        what: "checkpoint: of 100 000 calls, the longest wait for it".to_owned(),
        figure: Spread::of(pause),
        unit: Unit::Millis,
        goal: Goal::AtMost(500.0),
        from: format!(
            "{:.0} ms on the record thread; {} MiB in {:.0} ms, of which a slice {:.0} ms; read in {:.0} ms; the next one, while nothing happens, {:.1} ms in all",
            Spread::of(taking).median,
            bytes >> 20,
            Spread::of(saving).median,
            Spread::of(slice).median,
            Spread::of(loading).median,
            Spread::of(idle).median,
        ),
    });
}

fn hunt(dir: &Path, mode: &[&str], processor: &Processor, arguments: &[&str], traffic: &Traffic) -> Cost {
    let address = processor.address();
    let read = traffic.path.to_str().unwrap();
    let command = [&["hunt"], mode, &["-P", &address, "--id", "bench", "--log-format", "json", "-r", read], arguments].concat();
    process::run(&mut lc(dir, &command))
}

fn filters(bench: &Bench, voip: &Traffic, done: &mut dyn FnMut(Row)) {
    let messages = inspect::messages(&voip.path);
    let (few, many) = (inspect::patterns(10), inspect::patterns(100_000));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds.max(5) * 4 {
        a.push(inspect::filter(&few, &messages));
        b.push(inspect::filter(&many, &messages));
    }
    let ratios = a.iter().zip(&b).map(|(few, many)| many.as_secs_f64() / few.as_secs_f64()).collect();
    let nanos = |all: &[Duration]| {
        let each = all.iter().map(|d| d.as_secs_f64() * 1e9 / messages.len() as f64).collect();
        Spread::of(each).median
    };
    done(Row {
        what: "filters: cost of a message with 100 000 patterns : with 10".to_owned(),
        figure: Spread::of(ratios),
        unit: Unit::Times,
        goal: Goal::AtMost(1.25),
        from: format!("{:.0} ns beside {:.0} ns, parsing included", nanos(&b), nanos(&a)),
    });
    let mut took: Vec<f64> = (0..100).map(|_| inspect::apply(10_000).as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    done(Row {
        what: "filters: one change among 10 000 applied, p99".to_owned(),
        figure: Spread::of(vec![took[98]]),
        unit: Unit::Millis,
        goal: Goal::AtMost(50.0),
        from: format!("half of all: within {:.0} ms", took[50]),
    });
}

/// 100 000 calls at once in a real hunter: nobody's, and everybody's.
fn calls(bench: &Bench, done: &mut dyn FnMut(Row)) {
    let dir = fresh(bench, "calls");
    let traffic = Kind::Calls.make(&bench.dir, 0).unwrap();
    for (what, pattern, goal) in [
        ("calls: most memory of a hunter with 100 000 calls, none chosen", "nobody", Goal::AtMost(300.0)),
        ("calls: the same, all of them chosen", "+4930*", Goal::None),
    ] {
        let _old = fs::remove_dir_all(dir.join("state"));
        let processor = Processor::start(&dir, &["--insecure"]);
        let address = processor.address();
        let read = traffic.path.to_str().unwrap();
        let filter = format!("--sip-user={pattern}");
        let arguments = ["hunt", "voip", "-P", &address, "--insecure", "--id", "bench", &filter, "-r", read];
        let peak = process::peak_kib(&mut lc(&dir, &arguments));
        processor.stop();
        done(Row {
            what: what.to_owned(),
            figure: Spread::of(vec![peak as f64 / 1024.0]),
            unit: Unit::Mib,
            goal,
            from: format!("{} packets", traffic.packets),
        });
    }
    fs::remove_file(&traffic.path).unwrap();
}

/// A live hunter on the loopback interface: how much memory while nothing happens, how soon it captures.
fn idle(bench: &Bench, done: &mut dyn FnMut(Row)) {
    let dir = fresh(bench, "idle");
    let processor = Processor::start(&dir, &["--insecure"]);
    let address = processor.address();
    let hunt = ["hunt", "voip", "-P", &address, "--insecure", "--id", "bench", "-i", "lo", "--sip-user", "nobody"];
    let probe = lc(&dir, &[&hunt[..], &["--count", "1"]].concat()).stderr(Stdio::null()).stdin(Stdio::null()).spawn();
    let mut first = probe.unwrap();
    let started = Instant::now();
    // something to capture until it has captured something
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let status = loop {
        if let Some(status) = first.try_wait().unwrap() {
            break status;
        }
        let _refused = socket.send_to(b"x", "127.0.0.1:9");
        std::thread::sleep(Duration::from_micros(200));
        assert!(started.elapsed() < Duration::from_secs(20), "the hunter captured nothing");
    };
    if !status.success() {
        println!("idle, start: not run: capturing needs root ({status})");
        return;
    }
    done(Row {
        what: "start: from the start to the first packet captured, and the end".to_owned(),
        figure: Spread::of(vec![started.elapsed().as_secs_f64() * 1e3]),
        unit: Unit::Millis,
        goal: Goal::AtMost(200.0),
        from: "lc hunt voip -i lo --count 1".to_owned(),
    });
    let mut hunter = lc(&dir, &hunt).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let resident = process::memory_kib(hunter.id(), "VmRSS").unwrap();
    let own = process::memory_kib(hunter.id(), "RssAnon").unwrap() as f64 / 1024.0;
    process::terminate(&hunter);
    hunter.wait().unwrap();
    processor.stop();
    done(Row {
        what: "idle: resident memory of a hunter without traffic".to_owned(),
        figure: Spread::of(vec![resident as f64 / 1024.0]),
        unit: Unit::Mib,
        goal: Goal::AtMost(30.0),
        from: format!("{own:.1} of its own; the rest is the kernel's ring (16), the program and libraries"),
    });
}

fn allocations(done: &mut dyn FnMut(Row)) {
    for flow in Flow::ALL {
        let mut steady = Steady::new(flow);
        let count = counting::during(|| steady.run(100_000));
        done(Row {
            what: format!("allocations: of 100 000 packets, {flow:?}"),
            figure: Spread::of(vec![count as f64]),
            unit: Unit::Count,
            goal: Goal::AtMost(0.0),
            from: format!("{} forwarded in all", steady.forwarded()),
        });
    }
}

fn fresh(bench: &Bench, name: &str) -> std::path::PathBuf {
    let dir = bench.dir.join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}
