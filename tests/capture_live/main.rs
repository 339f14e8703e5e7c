//! Live capture on veth pairs, each test in a network namespace of its own. Needs root; says so where there is none.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "test helpers")]

mod interfaces;
mod lc;
#[path = "../it/not_run.rs"]
mod not_run;
mod rig;

use std::collections::HashMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use lippycat::capture::{KernelStats, LiveOptions, Progress, Source, Wake, list_interfaces, open_live};

use self::rig::{Sender, assert_closed, drain, ethernet, in_namespace, mark, open, sh, udp4, udp6};

#[test]
fn every_frame_comes_once_with_nanoseconds_and_its_true_length_and_k1_closes() {
    in_namespace("every_frame_comes_once_with_nanoseconds_and_its_true_length_and_k1_closes", || {
        let mut source = open("ve1", &LiveOptions { snaplen: 64, ..LiveOptions::default() });
        let mut sender = Sender::on("ve0");
        let mut packet = udp4([10, 0, 0, 1], [10, 0, 0, 2], 5060, 0, 0);
        packet.resize(200, 0);
        for n in 0..30_000u32 {
            // The mark lies within the snap length.
            packet[28..32].copy_from_slice(&n.to_be_bytes());
            sender.send(&ethernet(None, 0x0800, &packet));
        }

        let mut marks = Vec::new();
        let mut fractions = 0;
        let count = drain(&mut source, |data, ts, len| {
            assert_eq!((data.len(), len), (64, 214));
            fractions += i64::from(ts.as_nanos() % 1000 != 0);
            marks.push(u32::from_be_bytes(data[42..46].try_into().unwrap()));
        });

        assert!(marks.iter().copied().eq(0..30_000));
        assert!(fractions > 20_000, "nanoseconds, not microseconds: {fractions}");
        assert_closed(source.stats(), count);
        assert_eq!(source.stats().received, 30_000);
    });
}

#[test]
fn the_kernel_filter_passes_what_was_asked_and_every_later_fragment() {
    in_namespace("the_kernel_filter_passes_what_was_asked_and_every_later_fragment", || {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let frames = |n: u32| {
            [
                (true, ethernet(None, 0x0800, &udp4(a, b, 5060, 0, n))),
                (false, ethernet(None, 0x0800, &udp4(a, b, 5061, 0, n + 1))),
                (true, ethernet(None, 0x0800, &udp4(a, b, 0, 100, n + 2))),
                (true, ethernet(Some(7), 0x0800, &udp4(a, b, 0, 100, n + 3))),
                (true, ethernet(None, 0x86dd, &udp6(1, 2, Some(90), n + 4))),
                (true, ethernet(Some(7), 0x86dd, &udp6(1, 2, Some(90), n + 5))),
                (false, ethernet(None, 0x0806, &[0; 28])),
            ]
        };
        let mut sender = Sender::on("ve0");
        for filter in ["udp port 5060", "udp port 5060 or (vlan 9 and tcp)"] {
            // Frames sent while the handle opens must not confuse its counters.
            let mut early = Sender::on("ve0");
            let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stopped = std::sync::Arc::clone(&stop);
            let noise = ethernet(None, 0x0800, &udp4(a, b, 9, 0, u32::MAX));
            let background = std::thread::spawn(move || {
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    early.send(&noise);
                }
            });
            std::thread::sleep(Duration::from_millis(20));
            let mut source = open("ve1", &LiveOptions { filter: filter.to_owned(), ..LiveOptions::default() });
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            background.join().unwrap();
            let mut expected = Vec::new();
            for n in 0..100 {
                for (wanted, frame) in frames(n * 10) {
                    if wanted {
                        expected.push(frame.clone());
                    }
                    sender.send(&frame);
                }
            }

            let mut got = Vec::new();
            let count = drain(&mut source, |data, _, _| got.push(data.to_vec()));

            assert_eq!(got.len(), expected.len(), "{filter}");
            assert!(got == expected, "{filter}");
            assert_closed(source.stats(), count);
        }
    });
}

#[test]
fn fan_out_gives_every_frame_once_and_keeps_an_address_pair_together() {
    in_namespace("fan_out_gives_every_frame_once_and_keeps_an_address_pair_together", || {
        for filter in ["", "udp"] {
            let options = LiveOptions { filter: filter.to_owned(), ..LiveOptions::default() };
            // Sending begins before the handles open: nothing may come twice while they join.
            let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stopped = std::sync::Arc::clone(&stop);
            let background = std::thread::spawn(move || {
                let mut sender = Sender::on("ve0");
                let mut n = 1_000_000u32;
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    let host = n.to_le_bytes()[0];
                    sender.send(&ethernet(None, 0x0800, &udp4([10, 1, 0, host], [10, 1, 1, 1], 5060, 0, n)));
                    n += 1;
                    std::thread::sleep(Duration::from_micros(20));
                }
            });
            std::thread::sleep(Duration::from_millis(30));
            let mut sources = open_live(&["ve1".to_owned()], 4, &options).unwrap();
            std::thread::sleep(Duration::from_millis(30));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            background.join().unwrap();

            let mut sender = Sender::on("ve0");
            let mut mark_of = 0u32;
            let mut pair_of = HashMap::new();
            for host in 0..=255u8 {
                let (a, b) = ([10, 0, 0, host], [192, 168, host, 9]);
                for tag in [None, Some(5)] {
                    let mut frames = Vec::new();
                    for (src, dst) in [(a, b), (b, a)] {
                        for offset in [0, 0x2000, 185] {
                            frames.push((4u8, 0x0800, udp4(src, dst, 5060, offset, mark_of)));
                            mark_of += 1;
                        }
                    }
                    for (src, dst) in [(host, 200), (200, host)] {
                        for fragment in [None, Some(0), Some(150)] {
                            frames.push((6u8, 0x86dd, udp6(src, dst, fragment, mark_of)));
                            mark_of += 1;
                        }
                    }
                    for (version, ethertype, packet) in frames {
                        pair_of.insert(mark(&packet), (version, host));
                        sender.send(&ethernet(tag, ethertype, &packet));
                    }
                }
            }

            let mut seen: HashMap<u32, usize> = HashMap::new();
            let mut early = Vec::new();
            let mut captured = 0;
            let mut total = KernelStats::default();
            for (n, source) in sources.iter_mut().enumerate() {
                captured += drain(source, |data, _, _| match mark(data) {
                    early_mark if early_mark >= 1_000_000 => early.push(early_mark),
                    other => assert_eq!(seen.insert(other, n), None, "seen twice"),
                });
                total = total.plus(source.stats());
            }

            assert_eq!(seen.len(), mark_of as usize, "{filter}");
            let mut member_of: HashMap<(u8, u8), usize> = HashMap::new();
            for (mark, member) in &seen {
                // Host 200 to itself and its IPv6 pair are one pair like any other.
                let member_before = *member_of.entry(pair_of[mark]).or_insert(*member);
                assert_eq!(member_before, *member, "pair {:?}", pair_of[mark]);
            }
            let mut load = [0usize; 4];
            for n in seen.values() {
                load[*n] += 1;
            }
            assert!(load.iter().all(|n| *n > seen.len() / 16), "{load:?}");
            early.sort_unstable();
            let first = early.first().copied().unwrap();
            let count = u32::try_from(early.len()).unwrap();
            assert!(early.iter().copied().eq(first..first + count), "while joining, nothing twice and nothing lost");
            assert_closed(total, captured);
        }
    });
}

#[test]
fn a_wait_times_out_on_an_idle_interface_and_ends_when_woken() {
    in_namespace("a_wait_times_out_on_an_idle_interface_and_ends_when_woken", || {
        let mut source = open("ve1", &LiveOptions::default());

        assert_eq!(source.poll(&mut |_| {}).unwrap(), Progress::Idle);
        assert_eq!(source.wait(Duration::from_millis(30)).unwrap(), Wake::Timeout);
        let waker = source.waker();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            waker.wake();
        });
        assert_eq!(source.wait(Duration::from_mins(1)).unwrap(), Wake::Woken);
        thread.join().unwrap();
        Sender::on("ve0").send(&ethernet(None, 0x0800, &[0; 60]));
        assert_eq!(source.wait(Duration::from_mins(1)).unwrap(), Wake::Ready);
        assert_eq!(source.poll(&mut |_| {}).unwrap(), Progress::Frames(1));
    });
}

#[test]
fn promiscuous_mode_is_asked_of_the_interface_and_given_back() {
    in_namespace("promiscuous_mode_is_asked_of_the_interface_and_given_back", || {
        for (promiscuous, promiscuity) in [(false, "promiscuity 0"), (true, "promiscuity 1")] {
            let source = open("ve1", &LiveOptions { promiscuous, ..LiveOptions::default() });
            sh(&format!("ip -d link show ve1 | grep -q '{promiscuity} '"));

            drop(source);

            sh("ip -d link show ve1 | grep -q 'promiscuity 0 '");
        }
    });
}

#[test]
fn loopback_and_any_show_each_frame_once_and_k1_closes() {
    in_namespace("loopback_and_any_show_each_frame_once_and_k1_closes", || {
        for (interface, filter) in [("lo", ""), ("lo", "udp"), ("any", ""), ("any", "udp port 9")] {
            let mut source = open(interface, &LiveOptions { filter: filter.to_owned(), ..LiveOptions::default() });
            let (from, to) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), "127.0.0.1:9");
            for n in 0..500u32 {
                let _refused = from.send_to(&n.to_be_bytes(), to);
            }

            let mut marks = Vec::new();
            let mut icmp = 0;
            let count = drain(&mut source, |data, _, _| {
                let ip = if interface == "lo" { &data[14..] } else { &data[16..] };
                if ip[9] == 17 { marks.push(mark(data)) } else { icmp += 1 }
            });

            assert!(marks.iter().copied().eq(0..500), "{interface} '{filter}': {}", marks.len());
            assert_eq!(source.interfaces()[0].link.0, if interface == "lo" { 1 } else { 113 });
            assert!(filter.is_empty() || icmp == 0);
            assert_closed(source.stats(), count);
        }
    });
}

#[test]
fn any_opens_beside_promiscuous_mode_and_names_the_direction() {
    in_namespace("any_opens_beside_promiscuous_mode_and_names_the_direction", || {
        let mut source =
            open("any", &LiveOptions { promiscuous: true, filter: "udp port 5060".into(), ..LiveOptions::default() });
        Sender::on("ve0").send(&ethernet(None, 0x0800, &udp4([10, 0, 0, 1], [10, 0, 0, 2], 5060, 0, 1)));

        let mut kinds = Vec::new();
        drain(&mut source, |data, _, _| kinds.push(data[1]));

        // Sent on ve0 (4), broadcast on ve1 (1).
        kinds.sort_unstable();
        assert_eq!(kinds, [1, 4]);
    });
}

#[test]
fn what_the_kernel_drops_is_counted() {
    in_namespace("what_the_kernel_drops_is_counted", || {
        let mut source = open("ve1", &LiveOptions { buffer_bytes: 1 << 20, ..LiveOptions::default() });
        let mut sender = Sender::on("ve0");
        let frame = ethernet(None, 0x0800, &[1; 1200]);
        for _ in 0..5000 {
            sender.send(&frame);
        }

        let count = drain(&mut source, |_, _, _| {});

        let stats = source.stats();
        assert_eq!(stats.received, 5000);
        assert!(stats.kernel_dropped > 1000, "{stats:?}");
        assert_closed(stats, count);
    });
}

#[test]
fn a_wrong_filter_is_refused_before_anything_is_captured() {
    in_namespace("a_wrong_filter_is_refused_before_anything_is_captured", || {
        for interface in ["ve1", "any"] {
            let options = LiveOptions { filter: "udp prot 5060".to_owned(), ..LiveOptions::default() };

            let error = open_live(&[interface.to_owned()], 1, &options).err().unwrap().to_string();

            assert!(error.starts_with("cannot use the BPF filter 'udp prot 5060': "), "{error}");
        }
        let ve1 = list_interfaces().unwrap().into_iter().find(|i| i.name == "ve1").unwrap();
        assert!(ve1.up && ve1.links.unwrap()[0].0.0 == 1);
    });
}

#[test]
fn without_permission_the_error_says_what_to_do() {
    const NAME: &str = "without_permission_the_error_says_what_to_do";
    if std::env::var_os("LC_TEST_UNPRIVILEGED").is_some() || !not_run::is_root() {
        let error = open_live(&["lo".to_owned()], 1, &LiveOptions::default()).err().unwrap().to_string();

        assert_eq!(error, "cannot capture on lo: permission denied; run as root or: setcap cap_net_raw+ep $(command -v lc)");
        return;
    }
    // A copy, since the build folder may be closed to others.
    let copy = std::env::temp_dir().join(format!("lc-unprivileged-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let status = Command::new(&copy).args(["--exact", NAME]).env("LC_TEST_UNPRIVILEGED", "1").uid(65_534).gid(65_534).status();
    std::fs::remove_file(&copy).unwrap();
    assert!(status.unwrap().success());
}
