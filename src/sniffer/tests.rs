//! What a sniffer says about packets it never got.

use super::*;
use crate::capture::{InterfaceInfo, Libpcap, Wake};
use crate::engine::Mode;
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

#[test]
fn what_the_kernel_and_the_interface_did_not_deliver_is_lost() {
    let engine = EngineConfig {
        mode: Mode::Generic,
        table: TableConfig::default(),
        decode: DecodeOptions::default(),
        keep_duplicates: false,
        flows: 100,
        bounds: crate::engine::Bounds::default(),
    };
    let config = SnifferConfig {
        engine,
        filters: Arc::new(FilterSet::default()),
        bpf: Arc::new(Libpcap),
        format: Format::Text,
        write: None,
        min_free: MinFree::NONE,
        readers: Readers::NONE,
        count: None,
        renewed: Arc::default(),
    };

    let outcome = run(config, &mut Lossy, &|| Timestamp::MIN, &mut Vec::new(), &AtomicBool::new(false)).unwrap();

    assert_eq!(outcome.lost(), 5);
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
