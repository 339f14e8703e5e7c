//! What a sniffer says about packets it never got.

use super::*;
use crate::capture::{InterfaceInfo, Libpcap, Wake};
use crate::engine::Mode;
use crate::packet::LinkType;
use crate::packet::build::{ethernet, frame, udp, v4};
use crate::packet::headers::DecodeOptions;
use crate::reason::DropReason;
use crate::voip::table::TableConfig;

/// A source at its end, some of whose frames were lost on the way.
struct Lossy;

impl Source for Lossy {
    fn poll(&mut self, _: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        Ok(Progress::End)
    }

    fn burst(&mut self, _: usize, _: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        Ok(Progress::End)
    }

    fn wait(&mut self, _: Duration) -> Result<Wake, CaptureError> {
        Ok(Wake::Ready)
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        &[]
    }

    fn stats(&mut self) -> KernelStats {
        KernelStats { received: 9, kernel_dropped: 2, interface_dropped: 3, in_ring: 0 }
    }

    fn describe(&self) -> String {
        String::new()
    }
}

fn config(is_short: fn() -> bool) -> SnifferConfig {
    let engine = EngineConfig {
        mode: Mode::Generic,
        table: TableConfig::default(),
        decode: DecodeOptions::default(),
        keep_duplicates: false,
        flows: 100,
        bounds: crate::engine::Bounds::default(),
    };
    SnifferConfig {
        engine,
        filters: Arc::new(FilterSet::default()),
        bpf: Arc::new(Libpcap),
        format: Format::Text,
        write: None,
        min_free: MinFree::NONE,
        readers: Readers::NONE,
        count: None,
        renewed: Arc::default(),
        is_short,
    }
}

#[test]
fn what_the_kernel_and_the_interface_did_not_deliver_is_lost() {
    let outcome = run(config(|| false), &mut Lossy, &|| Timestamp::MIN, &mut Vec::new(), &AtomicBool::new(false)).unwrap();

    assert_eq!(outcome.lost(), 5);
}

/// A datagram, nothing for two minutes, another one, the end.
struct Seldom(u8);

impl Source for Seldom {
    fn poll(&mut self, _: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        Ok(Progress::End)
    }

    fn burst(&mut self, _: usize, each: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        self.0 += 1;
        let data = ethernet(0x0800, &v4(17, &udp(1, 2, b"x")));
        match self.0 {
            1 | 3 => {
                each(&[frame(LinkType::ETHERNET, &data, i64::from(self.0) * 60_000_000_000)]);
                Ok(Progress::Frames(1))
            }
            2 => Ok(Progress::Idle),
            _ => Ok(Progress::End),
        }
    }

    fn wait(&mut self, _: Duration) -> Result<Wake, CaptureError> {
        Ok(Wake::Ready)
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        &[]
    }

    fn stats(&mut self) -> KernelStats {
        KernelStats::default()
    }

    fn describe(&self) -> String {
        String::new()
    }
}

#[test]
fn where_memory_is_short_idle_flows_are_forgotten_early_and_counted() {
    let forgotten = [(|| true) as fn() -> bool, || false].map(|is_short| {
        let mut config = config(is_short);
        config.engine.mode = Mode::Voip;
        let outcome = run(config, &mut Seldom(0), &|| Timestamp::MIN, &mut Vec::new(), &AtomicBool::new(false)).unwrap();
        outcome.counters.forgotten.flows_emergency
    });

    assert_eq!(forgotten, [1, 0]);
}

#[test]
fn what_was_given_up_for_want_of_room_is_lost_and_what_nobody_claimed_is_not() {
    let mut outcome = Outcome::default();
    for (reason, lost) in [
        (DropReason::EvictedCall, 1),
        (DropReason::HoldMessages, 2),
        (DropReason::HoldMedia, 3),
        (DropReason::HoldBytes, 4),
        (DropReason::HoldUnclaimed, 4),
        (DropReason::Fragment, 4),
    ] {
        outcome.counters.dropped[reason.index()] += 1;

        assert_eq!(outcome.lost(), lost, "{reason:?}");
    }
}
