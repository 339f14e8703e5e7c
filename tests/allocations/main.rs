//! A packet of a flow that is known costs no memory: counted by the allocator, through decoding, the flow table and the engine.

#![expect(clippy::unwrap_used, reason = "test helpers")]

mod counting;
mod steady;

use steady::{Flow, Steady};

#[global_allocator]
static ALLOCATOR: counting::Counting<mimalloc::MiMalloc> = counting::Counting(mimalloc::MiMalloc);

#[test]
fn a_packet_of_a_known_flow_allocates_nothing() {
    for flow in Flow::ALL {
        let mut steady = Steady::new(flow);
        let before = steady.forwarded();

        let allocations = counting::during(|| steady.run(10_000));

        assert_eq!(allocations, 0, "{flow:?}");
        let forwarded = steady.forwarded() - before;
        assert_eq!(forwarded, if flow == Flow::Wanted { 10_000 } else { 0 }, "{flow:?}");
    }
}

#[test]
fn the_count_sees_what_is_allocated() {
    assert_eq!(counting::during(|| drop(std::hint::black_box(Box::new(1)))), 1);
}
