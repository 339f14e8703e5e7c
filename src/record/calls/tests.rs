mod room;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::record::Origin;
use crate::record::append::{self, scan};
use crate::record::name::Purpose;

struct Bed {
    tmp: tempfile::TempDir,
    calls: CallFiles,
}

fn config(pattern: &str) -> CallFilesConfig {
    CallFilesConfig { min_free: MinFree::NONE, ..CallFilesConfig::new(Pattern::parse(pattern, Purpose::Call).unwrap()) }
}

fn bed(change: impl FnOnce(&mut CallFilesConfig)) -> Bed {
    let tmp = tempfile::tempdir().unwrap();
    let mut cfg = config("{callid}.pcap");
    change(&mut cfg);
    let calls = CallFiles::open(&tmp.path().join("d"), cfg).unwrap();
    Bed { tmp, calls }
}

impl Bed {
    fn put(&mut self, id: &str, part: Part, link: u16, data: &[u8]) -> Written {
        let call = Parties { call_id: id.as_bytes(), from: "alice", to: "bob" };
        self.calls.write(&call, part, &packet(link, data)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.calls.dir().files(|_| true).unwrap().into_iter().map(|f| f.0).collect()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.calls.dir().join(name)).unwrap()
    }

    fn close(&mut self, id: &str) -> ClosedCall {
        self.calls.close(id.as_bytes()).unwrap().unwrap()
    }
}

fn packet(link: u16, data: &[u8]) -> Packet<'_> {
    let origin = Origin { hunter: "h1", interface: "eth0", filters: "f1" };
    Packet { ts: at(1), wire_len: 1500, link: LinkType(link), data, origin }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs_nanos(secs, 0)
}

/// The payloads of a little-endian pcap.
fn payloads(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    bytes = bytes.get(24..).unwrap_or(&[]);
    while !bytes.is_empty() {
        let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        out.push(bytes[16..16 + len].to_vec());
        bytes = &bytes[16 + len..];
    }
    out
}

/// Packets in a file of either format; panics unless it ends with a whole record.
fn count(path: &Path) -> u64 {
    let format = Format::from_name(path.to_str().unwrap());
    let found = scan(&mut File::open(path).unwrap(), path, format, 0).unwrap();
    assert_eq!(found.torn, 0);
    found.packets
}

fn stem(id: &str) -> String {
    Pattern::parse("{callid}.pcap", Purpose::Call).unwrap().stem(at(0), &Parties { call_id: id.as_bytes(), from: "", to: "" })
}

#[test]
fn signalling_and_media_of_a_call_from_any_hunter_go_to_two_private_files() {
    let mut b = bed(|_| {});

    assert_eq!(b.put("a", Part::Sip, 1, b"INVITE"), Written::New);
    assert_eq!(b.put("a", Part::Rtp, 1, b"rtp1"), Written::Continued);
    let other = Origin { hunter: "h2", ..Origin::default() };
    let call = Parties { call_id: b"a", ..Parties::default() };
    b.calls.write(&call, Part::Rtp, &Packet { origin: other, ..packet(1, b"rtp2") }).unwrap();
    let closed = b.close("a");

    let s = stem("a");
    assert_eq!(closed.stem, s);
    assert_eq!(b.names(), [format!("{s}_rtp.pcap"), format!("{s}_sip.pcap")]);
    assert_eq!(payloads(&b.read(&format!("{s}_rtp.pcap"))), [b"rtp1".to_vec(), b"rtp2".to_vec()]);
    for f in &closed.files {
        let path = b.calls.dir().join(&f.name);
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.len()), (0o600, f.bytes));
        assert_eq!(f.packets, count(&path));
        assert_eq!(f.sha256.as_deref(), Some(append::sha256(File::open(&path).unwrap()).unwrap().as_str()));
    }
    assert_eq!(b.close("a"), closed);
}

#[test]
fn merged_keeps_the_order_of_arrival_in_one_file() {
    let mut b = bed(|c| c.layout = Layout::Merged);

    b.put("a", Part::Sip, 1, b"1");
    b.put("a", Part::Rtp, 1, b"2");
    b.put("a", Part::Sip, 1, b"3");
    b.close("a");

    assert_eq!(payloads(&b.read(&format!("{}.pcap", stem("a")))), [[b'1'], [b'2'], [b'3']]);
}

#[test]
fn another_link_type_goes_beside_in_pcap_and_inside_in_pcapng() {
    let mut classic = bed(|_| {});
    let mut ng = bed(|c| c.pattern = Pattern::parse("{callid}.pcapng", Purpose::Call).unwrap());
    for b in [&mut classic, &mut ng] {
        for link in [1, 113, 1] {
            b.put("a", Part::Rtp, link, b"x");
        }
        b.close("a");
    }

    let s = stem("a");
    assert_eq!(classic.names(), [format!("{s}_rtp.dlt113.pcap"), format!("{s}_rtp.pcap")]);
    assert_eq!(classic.read(&format!("{s}_rtp.dlt113.pcap"))[20], 113);
    assert_eq!(classic.calls.counters().siblings, 1);
    assert_eq!(ng.names(), [format!("{s}_rtp.pcapng")]);
    assert_eq!(count(&ng.calls.dir().join(&format!("{s}_rtp.pcapng"))), 3);
}

#[test]
fn a_full_file_is_followed_by_the_next_without_end_and_without_loss() {
    let mut b = bed(|c| c.max_file_bytes = 24 + 2 * (16 + 4));

    for n in 0_u32..31 {
        b.put("a", Part::Rtp, 1, &n.to_le_bytes());
    }
    let closed = b.close("a");

    let all: Vec<Vec<u8>> = closed.files.iter().flat_map(|f| payloads(&b.read(&f.name))).collect();
    assert_eq!(all, (0_u32..31).map(|n| n.to_le_bytes().to_vec()).collect::<Vec<_>>());
    assert_eq!((closed.files.len(), b.calls.counters().rotated), (16, 15));
    assert!(closed.files[15].name.ends_with("_rtp_15.pcap"));
    assert!(closed.files.iter().all(|f| f.sha256.is_some() && f.bytes <= 64));
}

#[test]
fn writes_when_a_block_is_full_when_it_is_old_and_when_told() {
    let mut b = bed(|c| c.block_bytes = 1000);
    let len = |b: &Bed| fs::metadata(b.calls.dir().join(&format!("{}_rtp.pcap", stem("a")))).unwrap().len();
    b.calls.tick(at(100)).unwrap();

    b.put("a", Part::Rtp, 1, &[0; 600]);
    assert_eq!(len(&b), 0);
    b.put("a", Part::Rtp, 1, &[0; 600]);
    assert_eq!(len(&b), 24 + 616);
    b.calls.tick(at(104)).unwrap();
    assert_eq!(len(&b), 24 + 616);
    b.calls.tick(at(105)).unwrap();
    assert_eq!(len(&b), 24 + 2 * 616);
    b.put("a", Part::Rtp, 1, &[0; 1]);
    assert_eq!(b.calls.pending(), 17);
    b.calls.commit().unwrap();
    assert_eq!((len(&b), b.calls.pending()), (24 + 2 * 616 + 17, 0));
}

#[test]
fn thousands_of_calls_share_few_descriptors_and_little_memory() {
    let mut b = bed(|c| (c.max_open_files, c.max_pending_bytes) = (16, 20_000));
    let ids: Vec<String> = (0..500).map(|n| format!("call-{n}@x")).collect();

    for round in 0_u8..5 {
        for id in &ids {
            b.put(id, Part::Sip, 1, &[round; 50]);
            b.put(id, Part::Rtp, 1, &[round; 50]);
            assert!(b.calls.open_files() <= 16 && b.calls.pending() <= 20_000 + 24);
        }
    }
    assert_eq!(b.calls.open_calls().count(), 500);
    for id in &ids {
        let closed = b.close(id);
        assert_eq!(closed.files.len(), 2);
        for f in &closed.files {
            let want: Vec<Vec<u8>> = (0_u8..5).map(|r| vec![r; 50]).collect();
            assert_eq!(payloads(&b.read(&f.name)), want);
        }
    }

    let c = b.calls.counters();
    assert!(c.reopened > 1000 && c.forced > 1 && c.displaced == 0, "{c:?}");
    assert_eq!((b.calls.open_files(), b.calls.pending(), c.files), (0, 0, 1000));
}

#[test]
fn late_packets_continue_the_files_for_ten_minutes_and_no_longer() {
    let mut b = bed(|_| {});
    b.calls.tick(at(0)).unwrap();
    b.put("a", Part::Rtp, 1, b"1");
    b.close("a");

    b.calls.tick(at(599)).unwrap();
    assert_eq!(b.put("a", Part::Rtp, 1, b"2"), Written::Reopened);
    b.calls.tick(at(603)).unwrap();
    assert_eq!(b.calls.poll_closed(), None);
    b.calls.tick(at(604)).unwrap();
    let again = b.calls.poll_closed().unwrap();
    assert_eq!((again.files.len(), again.files[0].packets), (1, 2));
    assert_eq!(again.files[0].sha256, append::sha256(File::open(b.calls.dir().join(&again.files[0].name)).unwrap()).ok());
    b.calls.tick(at(604 + 600)).unwrap();
    assert_eq!(b.put("a", Part::Rtp, 1, b"3"), Written::New);

    assert_eq!(b.close("a").stem, format!("{}-2", stem("a")));
    assert_eq!(b.calls.counters().late_calls, 1);
}

#[test]
fn files_of_an_earlier_run_are_never_mixed_into() {
    let mut b = bed(|_| {});
    let s = stem("a");
    fs::write(b.calls.dir().join(&format!("{s}_rtp.pcap")), b"older").unwrap();
    fs::write(b.calls.dir().join(&format!("{s}-2.json")), b"older").unwrap();
    fs::write(b.calls.dir().join(&format!("{s}-3_sip_1.pcap")), b"older").unwrap();

    b.put("a", Part::Sip, 1, b"x");
    b.calls.cfg.max_file_bytes = 1;
    b.put("a", Part::Sip, 1, b"y");

    let names: Vec<String> = b.close("a").files.into_iter().map(|f| f.name).collect();
    assert_eq!(names, [format!("{s}-3_sip.pcap"), format!("{s}-3_sip_2.pcap")]);
    assert_eq!(b.read(&format!("{s}-3_sip_1.pcap")), b"older");
}

#[test]
fn a_file_that_vanished_or_changed_is_followed_by_the_next() {
    for (format, suffix) in [("{callid}.pcap", ".pcap"), ("{callid}.pcapng", ".pcapng")] {
        let mut b = bed(|c| {
            c.pattern = Pattern::parse(format, Purpose::Call).unwrap();
            c.max_open_files = 1;
        });
        let file = |b: &Bed, i: &str| b.calls.dir().join(&format!("{}_rtp{i}{suffix}", stem("a")));
        b.put("a", Part::Rtp, 1, b"1");
        b.calls.commit().unwrap();
        b.put("a", Part::Rtp, 113, b"2");
        b.put("a", Part::Rtp, 1, b"3");
        b.put("b", Part::Rtp, 1, b"takes the only descriptor");
        fs::remove_file(file(&b, "")).unwrap();
        b.calls.commit().unwrap();

        let closed = b.close("a");

        assert!(count(&file(&b, "_1")) >= 1);
        assert_eq!(b.calls.counters().displaced, 1);
        assert_eq!(closed.files.iter().map(|f| f.packets).sum::<u64>(), 3);
        assert_eq!(closed.files[0].sha256, None);
        for f in &closed.files[1..] {
            assert_eq!(f.packets, count(&b.calls.dir().join(&f.name)), "{}", f.name);
        }
    }
}

#[test]
fn a_link_put_in_the_place_of_a_file_is_not_followed() {
    let mut b = bed(|c| c.max_open_files = 1);
    let file = b.calls.dir().join(&format!("{}_rtp.pcap", stem("a")));
    b.put("a", Part::Rtp, 1, b"1");
    b.put("b", Part::Rtp, 1, b"takes the only descriptor");
    let victim = b.tmp.path().join("victim");
    fs::write(&victim, b"").unwrap();
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&victim, &file).unwrap();

    b.calls.commit().unwrap();

    assert_eq!(fs::read(&victim).unwrap(), b"");
    assert_eq!(payloads(&b.read(&format!("{}_rtp_1.pcap", stem("a")))), [[b'1']]);
}

#[test]
fn a_file_removed_before_its_header_was_written_begins_again_whole() {
    let mut b = bed(|c| c.max_open_files = 1);
    b.put("a", Part::Rtp, 1, b"1");
    b.put("b", Part::Rtp, 1, b"2");
    fs::remove_file(b.calls.dir().join(&format!("{}_rtp.pcap", stem("a")))).unwrap();

    b.calls.commit().unwrap();

    assert_eq!(payloads(&b.read(&format!("{}_rtp_1.pcap", stem("a")))), [[b'1']]);
}

#[test]
fn a_full_disk_refuses_the_packet_and_keeps_everything_before_it() {
    let mut b = bed(|c| c.block_bytes = 200);
    b.put("a", Part::Rtp, 1, &[1; 100]);
    let full = MinFree { percent: 100, bytes: u64::MAX };
    let id = Parties { call_id: b"a", ..Parties::default() };

    let none = dir_with(&b, full);
    let room = std::mem::replace(&mut b.calls.dir, none);
    let e = b.calls.write(&id, Part::Rtp, &packet(1, &[2; 100])).unwrap_err();
    assert!(e.is_full() && e.is_retryable(), "{e}");
    assert!(b.calls.commit().unwrap_err().is_full());
    assert!(b.calls.close(b"a").unwrap_err().is_full());
    b.calls.dir = room;
    b.calls.dir.reserve("secret", u64::MAX).unwrap_or_else(|e| assert!(!e.to_string().contains("secret"), "{e}"));
    b.put("a", Part::Rtp, 1, &[2; 100]);
    b.close("a");

    assert_eq!(payloads(&b.read(&format!("{}_rtp.pcap", stem("a")))), [[1; 100], [2; 100]]);
}

fn dir_with(b: &Bed, min_free: MinFree) -> Dir {
    Dir::open(b.calls.dir().path(), Access::Private, min_free).unwrap()
}

#[test]
fn a_packet_no_reader_accepts_is_refused_before_anything_is_made() {
    let mut b = bed(|_| {});

    let big = vec![0; MAX_CAPTURED + 1];
    let e = b.calls.write(&Parties { call_id: b"a", ..Parties::default() }, Part::Sip, &packet(1, &big)).unwrap_err();

    assert!(matches!(e, RecordError::Oversize { .. }) && !e.is_retryable());
    assert!(b.names().is_empty());
}

#[test]
fn a_graceful_restart_continues_the_same_files() {
    for pattern in ["{timestamp}_{callid}.pcap", "{timestamp}_{callid}.pcapng"] {
        let mut b = bed(|c| c.pattern = Pattern::parse(pattern, Purpose::Call).unwrap());
        b.calls.tick(at(0)).unwrap();
        b.put("open", Part::Rtp, 1, b"1");
        b.put("open", Part::Rtp, 113, b"2");
        b.put("closed", Part::Sip, 1, b"3");
        b.close("closed");
        b.calls.commit().unwrap();
        let before = b.names();
        let json = serde_json::to_vec(&b.calls.snapshot()).unwrap();

        let dir = b.calls.dir().path().to_owned();
        b.calls = CallFiles::open(&dir, config(pattern)).unwrap();
        b.calls.restore(&serde_json::from_slice::<Vec<CallState>>(&json).unwrap());
        b.calls.tick(at(10)).unwrap();
        assert_eq!(b.put("open", Part::Rtp, 1, b"4"), Written::Continued);
        assert_eq!(b.put("closed", Part::Sip, 1, b"5"), Written::Reopened);

        let (open, closed) = (b.close("open"), b.close("closed"));
        assert_eq!(b.names(), before);
        assert_eq!(open.files.iter().map(|f| f.packets).sum::<u64>(), 3);
        assert_eq!(closed.files[0].packets, 2);
        for f in open.files.iter().chain(&closed.files) {
            let path = b.calls.dir().join(&f.name);
            assert_eq!(count(&path), f.packets);
            assert_eq!(f.sha256, append::sha256(File::open(path).unwrap()).ok());
        }
        assert!(b.tmp.path().exists());
    }
}

#[test]
fn after_a_crash_a_stale_state_touches_no_file_that_went_on() {
    let mut b = bed(|_| {});
    b.put("a", Part::Rtp, 1, b"1");
    b.calls.commit().unwrap();
    let stale = b.calls.snapshot();
    b.put("a", Part::Rtp, 1, b"2");
    b.calls.commit().unwrap();
    let name = format!("{}_rtp.pcap", stem("a"));
    let before = b.read(&name);

    let dir = b.calls.dir().path().to_owned();
    b.calls = CallFiles::open(&dir, config("{callid}.pcap")).unwrap();
    b.calls.restore(&stale);
    b.put("a", Part::Rtp, 1, b"3");
    b.calls.commit().unwrap();

    assert_eq!(b.read(&name), before);
    assert_eq!(payloads(&b.read(&format!("{}_rtp_1.pcap", stem("a")))), [[b'3']]);
}

#[test]
fn ten_thousand_hostile_call_ids_stay_inside_and_apart() {
    let mut b = bed(|c| {
        c.pattern = Pattern::parse("{timestamp}_{from}_{to}_{callid}.pcap", Purpose::Call).unwrap();
        c.max_open_files = 8;
        c.max_pending_bytes = 1 << 16;
    });
    let seeds =
        ["../", "..", "/etc/cron.d/x", "\0", "CON", "nul", "-rf", ".hidden", "ß", "漢字", "a b", "A", "a", "%2e%2e%2f", "x\r\ny"];
    let mut ids: std::collections::BTreeSet<Vec<u8>> = seeds.iter().map(|s| s.as_bytes().to_vec()).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    while ids.len() < 10_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let seed = seeds[usize::try_from(random >> 60).unwrap() % seeds.len()];
        let mut id = seed.repeat(1 + usize::try_from(random >> 40 & 7).unwrap()).into_bytes();
        match random >> 50 & 3 {
            0 => id.extend_from_slice(&random.to_le_bytes()),
            1 => id.extend(std::iter::repeat_n(b'x', usize::try_from(random >> 30 & 0x3fff).unwrap())),
            2 => id.extend_from_slice(format!("{:X}", random >> 33).as_bytes()),
            _ => id.extend_from_slice(format!("{:x}", random >> 33).as_bytes()),
        }
        ids.insert(id);
    }

    for id in &ids {
        let from = String::from_utf8_lossy(id);
        let call = Parties { call_id: id, from: &from, to: "../../x" };
        b.calls.write(&call, Part::Sip, &packet(1, &id[..id.len().min(1000)])).unwrap();
    }
    b.calls.commit().unwrap();

    let names = b.names();
    let folded: std::collections::BTreeSet<String> = names.iter().map(|n| n.to_ascii_lowercase()).collect();
    assert_eq!((names.len(), folded.len()), (ids.len(), ids.len()));
    assert!(names.iter().all(|n| n.starts_with("19700101_") && n.len() <= 255));
    assert_eq!(fs::read_dir(b.tmp.path()).unwrap().count(), 1);
    assert_eq!(b.calls.counters().renamed, 0);
}

#[test]
fn a_file_system_that_really_fills_up_leaves_whole_records_and_loses_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let run = std::process::Command::new(args[0]).args(&args[1..]).arg(tmp.path()).output();
        run.is_ok_and(|o| o.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "lc-test"]) {
        crate::not_run::say_unless_it_must("a file system that fills up", "it needs root to mount a tmpfs");
        return;
    }
    let result = std::panic::catch_unwind(|| fill(&tmp.path().join("d")));
    assert!(mount(&["umount"]));
    result.unwrap();
}

fn fill(dir: &Path) {
    let mut calls = CallFiles::open(dir, CallFilesConfig { block_bytes: 5000, ..config("{callid}.pcap") }).unwrap();
    fs::write(dir.join("ballast"), vec![0; 100_000]).unwrap();
    let id = Parties { call_id: b"a", ..Parties::default() };
    let (mut sent, mut refused) = (0_u32, 0);
    while sent < 200 {
        let data = [&sent.to_le_bytes()[..], &[0; 900]].concat();
        match calls.write(&id, Part::Rtp, &packet(1, &data)) {
            Ok(_) => sent += 1,
            Err(e) => {
                assert!(e.is_full(), "{e}");
                refused += 1;
                let bytes = fs::read(dir.join(format!("{}_rtp.pcap", stem("a")))).unwrap();
                assert!(payloads(&bytes).len() < sent as usize);
                fs::remove_file(dir.join("ballast")).unwrap();
            }
        }
    }
    calls.commit().unwrap();

    assert_eq!(refused, 1);
    let bytes = fs::read(dir.join(format!("{}_rtp.pcap", stem("a")))).unwrap();
    let got: Vec<u32> = payloads(&bytes).iter().map(|p| u32::from_le_bytes(p[..4].try_into().unwrap())).collect();
    assert_eq!(got, (0..200).collect::<Vec<_>>());
}

fn number(payload: &[u8]) -> u32 {
    u32::from_le_bytes(payload[..4].try_into().unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Put { call: usize, part: Part, link: u16, len: usize },
    Commit,
    Close(usize),
    Wait(i64),
    Restart,
    FullFor(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4usize, any::<bool>(), 0..4u16, 0..300usize).prop_map(|(call, rtp, link, len)| Step::Put {
            call,
            part: if rtp { Part::Rtp } else { Part::Sip },
            link: if link == 0 { 113 } else { 1 },
            len,
        }),
        1 => Just(Step::Commit),
        1 => (0..4usize).prop_map(Step::Close),
        1 => (0..400i64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => (1..4usize).prop_map(Step::FullFor),
    ]
}

proptest! {
    /// Against the simplest model: what was accepted, in order, per call, part and link type.
    #[test]
    fn whatever_happens_every_accepted_packet_is_in_its_file_once_and_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let cfg = CallFilesConfig {
            max_open_files: 3,
            max_pending_bytes: 2000,
            block_bytes: 500,
            max_file_bytes: 1200,
            ..config("{callid}.pcap")
        };
        let tmp = tempfile::tempdir().unwrap();
        let open = |min_free| CallFiles::open(tmp.path(), CallFilesConfig { min_free, ..cfg.clone() }).unwrap();
        let mut calls = open(MinFree::NONE);
        let full = MinFree { percent: 100, bytes: u64::MAX };
        let (mut now, mut sent, mut full_for) = (0, 0_u32, 0);
        let mut want = std::collections::BTreeMap::<(usize, &str, u16), Vec<Vec<u8>>>::new();

        for s in steps {
            if full_for > 0 {
                full_for -= 1;
                if full_for == 0 {
                    calls.dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
                }
            }
            let worked = match s {
                Step::Put { call, part, link, len } => {
                    let mut data = sent.to_le_bytes().to_vec();
                    data.resize(4 + len, 0);
                    let id = [b"abcd"[call]];
                    let done = calls.write(&Parties { call_id: &id, ..Parties::default() }, part, &packet(link, &data));
                    if done.is_ok() {
                        sent += 1;
                        want.entry((call, part.tag(), link)).or_default().push(data);
                    }
                    done.map(|_| ())
                }
                Step::Commit => calls.commit(),
                Step::Close(call) => calls.close(&[b"abcd"[call]]).map(|_| ()),
                Step::Wait(secs) => {
                    now += secs;
                    calls.tick(at(now))
                }
                Step::Restart if full_for == 0 => {
                    calls.commit().unwrap();
                    let state = calls.snapshot();
                    calls = open(MinFree::NONE);
                    calls.restore(&state);
                    calls.tick(at(now))
                }
                Step::Restart => Ok(()),
                Step::FullFor(n) => {
                    full_for = n;
                    calls.dir = Dir::open(tmp.path(), Access::Private, full).unwrap();
                    Ok(())
                }
            };
            prop_assert!(worked.is_ok() || (full_for > 0 && worked.unwrap_err().is_full()));
            prop_assert!(calls.open_files() <= 3);
        }
        calls.dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        calls.commit().unwrap();

        let mut got = std::collections::BTreeMap::<(usize, &str, u16), Vec<Vec<u8>>>::new();
        for (name, _) in calls.dir().files(|_| true).unwrap() {
            let bytes = fs::read(calls.dir().join(&name)).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let call = b"abcd".iter().position(|b| *b == name.as_bytes()[0]).unwrap();
            let part = if name.contains("_sip") { "_sip" } else { "_rtp" };
            let packets = payloads(&bytes);
            prop_assert!(packets.iter().map(|p| number(p)).is_sorted());
            got.entry((call, part, u16::from(bytes[20]))).or_default().extend(packets);
        }
        for packets in got.values_mut() {
            packets.sort_by_key(|p| number(p));
        }
        got.retain(|_, packets| !packets.is_empty());
        prop_assert_eq!(got, want);
    }
}
