//! What a media packet costs among many calls and among few: its call is found in the same steps, what differs is what the caches hold.

use std::fs;
use std::time::Duration;

use lippycat::filter::{Filter, FilterKind};

use crate::Bench;
use crate::inspect;
use crate::table::{Goal, Row, Spread, Unit};
use crate::traffic::{CALLS, Kind};

/// Media packets per run.
const PACKETS: u64 = 1_000_000;
const FEW: u64 = 1_000;

pub(crate) fn row(bench: &Bench) -> Row {
    let everybody = [Filter::new("t", FilterKind::SipUser, "+4930*")];
    let cost = |calls| {
        let traffic = [0, PACKETS].map(|packets| Kind::Media { calls, packets }.make(&bench.dir, 0).unwrap());
        let median =
            |path| Spread::of((0..bench.rounds).map(|_| seconds(inspect::inspection(path, &everybody))).collect()).median;
        let [set_up, whole] = traffic.each_ref().map(|t| median(&t.path));
        for t in &traffic {
            fs::remove_file(&t.path).unwrap();
        }
        (whole - set_up) * 1e9 / PACKETS as f64
    };
    let (many, few) = (cost(CALLS), cost(FEW));
    Row {
        what: format!("calls: a media packet with {CALLS} calls, all chosen : with {FEW}"),
        figure: Spread::of(vec![many / few]),
        unit: Unit::Times,
        goal: Goal::None,
        from: format!("{many:.0} ns beside {few:.0} ns, decoding and quality included"),
    }
}

fn seconds((took, forwarded): (Duration, u64)) -> f64 {
    assert!(forwarded > 0, "the calls are chosen");
    took.as_secs_f64()
}
