//! A capture thread, its backlog and whoever asks for figures meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::figures::Report;
use super::inspect::{Inspector, Shared};
use super::names::Names;
use super::pages::HunterPages;
use crate::batch::{Encoder, EncoderConfig, Epoch, Limits};
use crate::capture::{CaptureError, InterfaceInfo, KernelStats, Libpcap, Outages, Progress, Source, Wake};
use crate::engine::{EngineConfig, Guarded, Mode};
use crate::filter::FilterSet;
use crate::flow::PacketTime;
use crate::net::{Pages, Transport};
use crate::packet::headers::DecodeOptions;
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};
use crate::reason::DropReason;
use crate::uplink::{Backlog, BacklogConfig, PeerKind, WhenFull};
use crate::voip::table::{NoFilterPolicy, TableConfig};

/// So many frames, the kernel having dropped one for every hundred.
struct Flood {
    left: u64,
    delivered: u64,
}

impl Source for Flood {
    fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        self.burst(32, &mut |frames| frames.iter().for_each(|frame| f(*frame)))
    }

    fn burst(&mut self, max: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        let n = self.left.min(max as u64);
        if n == 0 {
            return Ok(Progress::End);
        }
        let data = [0x55; 600];
        let link = LinkType::ETHERNET;
        let frame = |i: u64| Frame {
            ts: Timestamp::from_nanos(i.cast_signed()),
            wire_len: 600,
            link,
            interface: InterfaceId(0),
            data: &data,
        };
        let frames: Vec<Frame<'_>> = (self.delivered..self.delivered + n).map(frame).collect();
        f(&frames);
        self.left -= n;
        self.delivered += n;
        Ok(Progress::Frames(frames.len()))
    }

    fn wait(&mut self, _: Duration) -> Result<Wake, CaptureError> {
        Ok(Wake::Ready)
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        &[]
    }

    fn stats(&mut self) -> KernelStats {
        let kernel_dropped = self.delivered / 100;
        KernelStats { received: self.delivered + kernel_dropped, kernel_dropped, ..KernelStats::default() }
    }

    fn describe(&self) -> String {
        String::new()
    }
}

fn shared(config: BacklogConfig, threads: usize) -> Arc<Shared> {
    let shared = Arc::new(Shared::new(Arc::new(Backlog::new(config)), threads));
    shared.filters.swap(Arc::new(FilterSet::empty()));
    shared
}

fn inspector(shared: &Arc<Shared>, index: usize, frames: u64, offline: bool) -> Inspector {
    let config = EngineConfig {
        mode: Mode::Generic,
        table: TableConfig { no_filter: NoFilterPolicy::Allow, ..TableConfig::default() },
        decode: DecodeOptions::default(),
        keep_duplicates: true,
        flows: 100,
        bounds: crate::engine::Bounds::default(),
    };
    let epoch = Epoch(1 + index as u64);
    Inspector {
        source: Box::new(Flood { left: frames, delivered: 0 }),
        engine: Guarded::new(config, shared.filters.current(), Arc::new(Libpcap)),
        encoder: Encoder::new(EncoderConfig { hunter_id: "h".into(), epoch, limits: Limits::default() }),
        names: Names::new(Arc::from([])),
        outages: Outages::default(),
        index,
        offline,
        count: None,
        time: PacketTime::default(),
        shared: Arc::clone(shared),
    }
}

/// The error metrics and the terms of K2 and K3 in an answer of `/metrics`, added up as a reader would.
fn k2_k3(text: &str) -> (f64, f64, f64) {
    let sum = |names: &[&str]| -> f64 {
        let of = |line: &str| names.iter().any(|n| line.split(['{', ' ']).next() == Some(n));
        text.lines().filter(|l| of(l)).map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let matched = sum(&["lc_matched_packets_total"]);
    let dropped = sum(&["lc_dropped_packets_total"]);
    let k2 = sum(&["lc_captured_packets_total", "lc_shared_packets_total"])
        - matched
        - sum(&["lc_filtered_packets_total", "lc_seen_twice_packets_total", "lc_own_packets_total", "lc_held_packets"]);
    let k3 = matched + sum(&["lc_recovered_packets_total"]) - sum(&["lc_acked_packets_total", "lc_inflight_packets"]) - dropped;
    (k2, k3, matched)
}

#[tokio::test]
async fn the_equation_holds_in_every_answer_while_two_threads_capture_and_batches_are_lost_sent_and_acknowledged() {
    let room = BacklogConfig { max_bytes: 2 << 20, ..BacklogConfig::default() };
    let shared = shared(room, 2);
    let backlog = Arc::clone(&shared.backlog);
    let done = AtomicBool::new(false);
    let pages = HunterPages::new(Arc::clone(&shared), "h".into(), Transport::default(), 0);
    let (mut samples, mut moved) = (0_u32, 0_u32);

    std::thread::scope(|s| {
        let capture: Vec<_> = (0..2).map(|n| inspector(&shared, n, 150_000, false)).map(|i| s.spawn(move || i.run())).collect();
        s.spawn(|| {
            let connection = backlog.begin(PeerKind::Extended, &[]);
            while !done.load(Ordering::Relaxed) || !backlog.is_drained() {
                let Some(out) = backlog.next_to_send(connection) else { continue };
                backlog.ack(connection, out.batch.epoch, out.batch.seq);
            }
        });
        let mut before = 0.0;
        while !capture.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let r = shared.report();
            let text = pages.page("/metrics").unwrap().text;
            let (k2, k3, matched) = k2_k3(&text);
            assert_eq!((r.imbalance(), k2, k3), ([0; 3], 0.0, 0.0), "{r:?}\n{text}");
            samples += 1;
            moved += u32::from(matched > before);
            before = matched;
        }
        done.store(true, Ordering::Relaxed);
    });

    let r = shared.report();
    assert!(samples > 20 && moved > 10, "{samples} samples, {moved} of them while traffic flowed");
    assert_eq!((r.engine.captured, r.engine.forwarded, r.imbalance()), (300_000, 300_000, [0; 3]));
    assert_eq!((r.kernel.kernel_dropped, r.in_memory()), (3000, 0));
    assert_eq!(r.backlog.acked_packets + r.given_up_after_match(), 300_000);
}

#[test]
fn the_equation_holds_while_a_reader_of_files_waits_for_room_and_is_stopped() {
    let room = BacklogConfig { max_bytes: 200_000, when_full: WhenFull::Block, ..BacklogConfig::default() };
    let shared = shared(room, 1);

    std::thread::scope(|s| {
        let reader = inspector(&shared, 0, 5000, true);
        let reader = s.spawn(move || reader.run());
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(shared.report().imbalance(), [0; 3]);
        }
        assert!(!reader.is_finished(), "it waits");
        shared.stop.store(true, Ordering::Relaxed);
        reader.join().unwrap().unwrap();
    });

    let r = shared.report();
    assert_eq!((r.imbalance(), r.open), ([0; 3], 0));
    assert!(r.drops[DropReason::Shutdown.index()] > 0 && r.backlog.in_memory_packets > 0, "{r:?}");
}

/// The predecessor's batch grows without bound in a pause, and leaves as one message that nobody takes.
#[test]
fn a_pause_makes_no_batch_longer_and_what_does_not_fit_is_counted() {
    let room = BacklogConfig { max_bytes: 1 << 20, ..BacklogConfig::default() };
    let shared = shared(room, 1);
    let connection = shared.backlog.begin(PeerKind::Extended, &[]);
    shared.backlog.pause(true);

    inspector(&shared, 0, 10_000, false).run().unwrap();

    let r: Report = shared.report();
    assert!(shared.backlog.next_to_send(connection).is_none());
    assert_eq!((r.engine.captured, r.imbalance()), (10_000, [0; 3]), "the capture goes on");
    assert!(r.backlog.in_memory_bytes <= 1 << 20 && r.drops[DropReason::MemFull.index()] > 0, "{r:?}");
    shared.backlog.pause(false);
    let mut sent = 0;
    while let Some(out) = shared.backlog.next_to_send(connection) {
        assert!(out.batch.bytes.len() <= 70_000, "{}", out.batch.bytes.len());
        sent += 1;
    }
    assert!(sent > 5, "{sent}");
}

#[tokio::test]
async fn pages_say_what_keeps_a_hunter_from_capturing_and_not_that_it_is_cut_off() {
    let shared = shared(BacklogConfig::default(), 1);
    let pages = HunterPages::new(Arc::clone(&shared), "h".into(), Transport::default(), 0);
    let ready = || pages.page("/readyz").map(|p| (p.good, p.text)).unwrap();
    assert_eq!(ready(), (false, "a capture thread gives no sign of life\n".to_owned()));

    inspector(&shared, 0, 40, false).run().unwrap();
    assert_eq!(ready(), (false, "nothing is captured any more\n".to_owned()));
    shared.progress[0].lock().ended = false;
    assert_eq!(ready(), (true, "ok\n".to_owned()), "there is no processor, and that is no reason");
    shared.progress[0].lock().degraded = true;
    assert_eq!(ready(), (false, "an interface does not deliver\n".to_owned()));
    shared.tick();
    assert!(pages.page("/livez").unwrap().good && pages.page("/nothing").is_none());
    let status: serde_json::Value = serde_json::from_str(&pages.page("/statusz").unwrap().text).unwrap();
    assert_eq!((&status["equation"]["k3"]["matched"], &status["equation"]["k3"]["in_memory"]), (&40.into(), &40.into()));
}

#[tokio::test]
async fn pages_say_which_flows_were_forgotten_for_want_of_room_and_which_early() {
    let shared = shared(BacklogConfig::default(), 1);
    let pages = HunterPages::new(Arc::clone(&shared), "h".into(), Transport::default(), 0);
    let status = || serde_json::from_str::<serde_json::Value>(&pages.page("/statusz").unwrap().text).unwrap();
    assert_eq!(status()["limits"], serde_json::json!({}));

    let forgotten = crate::engine::Forgotten { flows: 3, flows_emergency: 5, ..Default::default() };
    shared.progress[0].lock().engine.forgotten = forgotten;

    assert_eq!(status()["limits"], serde_json::json!({"flows": 3, "flows_emergency": 5}));
    let metrics = pages.page("/metrics").unwrap().text;
    for line in ["{reason=\"full\"} 3\n", "{reason=\"emergency\"} 5\n"] {
        assert!(metrics.contains(&format!("lc_flows_evicted_total{line}")), "{metrics}");
    }
}

#[test]
fn what_was_held_and_given_up_for_want_of_room_is_lost_and_what_nobody_claimed_is_not() {
    let shared = Shared::new(Arc::new(Backlog::new(BacklogConfig::default())), 1);
    let mut slot = shared.progress[0].lock();
    slot.engine.dropped[DropReason::HoldMedia.index()] = 3;
    slot.engine.dropped[DropReason::HoldUnclaimed.index()] = 5;
    drop(slot);

    assert_eq!(shared.report().lost(), 3);
}
