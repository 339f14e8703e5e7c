//! The data stream beside the same batches over bare TCP with a length before each.
//!
//! Both sides of both are in this process, on two threads; both receivers check every batch as a processor does
//! ([`BatchView::parse`]) and acknowledge it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use lippycat::batch::{BatchView, Encoder, EncoderConfig, Epoch, GRPC_PREFIX, Limits, Pushed, SealedBatch, ViewLimits};
use lippycat::capture::{FileSource, Progress, Source};
use lippycat::net::{AcceptLimits, Acceptor, Dialer, Transport};
use lippycat::processor::commit::{Durability, recover};
use lippycat::processor::{self, Access as Callers, Order, Outputs};
use lippycat::record::dir::{Access, Dir, MinFree};
use lippycat::record::state::Places;
use lippycat::uplink::{
    self, Backlog, BacklogConfig, Control, Ending, FilterChange, HeartbeatFacts, LinkState, Offer, RegistrationFacts, Road,
    UplinkConfig, WhenFull,
};

const HUNTER: &str = "bench";

/// Every packet of a file, in sealed batches.
pub(crate) fn batches(path: &Path) -> Vec<SealedBatch> {
    let config = EncoderConfig { hunter_id: HUNTER.into(), epoch: Epoch(1), limits: Limits::default() };
    let mut encoder = Encoder::new(config);
    let mut sealed = Vec::new();
    let mut source = FileSource::open(&[path]).unwrap();
    while source
        .poll(&mut |frame| {
            while let Pushed::SealFirst = encoder.push(&frame, None, &[], false) {
                sealed.extend(encoder.seal(0, 0, &lippycat::batch::BatchStats::default()));
            }
        })
        .unwrap()
        != Progress::End
    {}
    sealed.extend(encoder.seal(0, 0, &lippycat::batch::BatchStats::default()));
    sealed
}

/// Sends them over TCP: four bytes of length, then the batch; eight bytes come back for each.
pub(crate) fn bare_tcp(batches: &[SealedBatch]) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = std::thread::spawn(move || receive(&listener.accept().unwrap().0));
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut acks = stream.try_clone().unwrap();
    let count = batches.len();
    let acknowledged = std::thread::spawn(move || {
        let mut ack = [0; 8];
        for _ in 0..count {
            acks.read_exact(&mut ack).unwrap();
        }
    });
    for batch in batches {
        // the last four bytes of gRPC's prefix are the length
        stream.write_all(&batch.bytes[1..]).unwrap();
    }
    acknowledged.join().unwrap();
    let took = start.elapsed();
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(receiver.join().unwrap(), count);
    took
}

fn receive(mut stream: &TcpStream) -> usize {
    stream.set_nodelay(true).unwrap();
    let mut buffer = BytesMut::new();
    let mut piece = vec![0; 256 << 10];
    let mut count = 0;
    loop {
        let read = stream.read(&mut piece).unwrap();
        if read == 0 {
            return count;
        }
        buffer.extend_from_slice(&piece[..read]);
        while let Some(length) = buffer.first_chunk::<4>().map(|l| u32::from_be_bytes(*l) as usize) {
            if buffer.len() < 4 + length {
                break;
            }
            let message = buffer.split_to(4 + length).split_off(4).freeze();
            let view = BatchView::parse(message, &ViewLimits::default()).unwrap();
            stream.write_all(&view.sequence().0.to_be_bytes()).unwrap();
            count += 1;
        }
    }
}

/// Sends them through an uplink to a processor that writes no file, until the last one is acknowledged.
pub(crate) fn data_stream(batches: &[SealedBatch], dir: &Path) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let acceptor = Acceptor::bind(&[listen], None, AcceptLimits::default()).unwrap();
        let port = acceptor.addresses()[0].port();
        let state = Dir::open(dir, Access::Private, MinFree::NONE).unwrap();
        let recovered = recover(&state, Durability::Process, MinFree::NONE, Places::default(), &AtomicBool::new(false)).unwrap();
        let outputs = Outputs {
            unified: None,
            calls: None,
            rotating: None,
            memory: Vec::new(),
            losses: Vec::new(),
            times: lippycat::voip::expiry::CallTimes::default(),
            grace: Duration::from_secs(5),
            retain_age: Duration::ZERO,
        };
        let parts = processor::Parts {
            id: "bench".to_owned(),
            access: Callers::default(),
            acceptor,
            max_hunters: 1,
            hunter_rates: processor::Rates::default(),
            peers: Vec::new(),
            max_subscribers: 1,
            outputs,
            commit: recovered.commit,
            reopen: Box::new(|| Err("a measurement is not gone on with".into())),
            filters: Vec::new(),
            filter_version: 1,
            filter_file: None,
            acked: Vec::new(),
            stats: false,
            pages: None,
            transport: Transport::default(),
            upstream: None,
        };
        let (order, orders) = processor::orders();
        let processor = tokio::spawn(processor::run(parts, orders));

        let config = BacklogConfig { when_full: WhenFull::Block, ..BacklogConfig::default() };
        let backlog = Arc::new(Backlog::new(config));
        let uplink = UplinkConfig {
            party: uplink::Party::Hunter,
            hunter_id: HUNTER.into(),
            targets: vec![format!("127.0.0.1:{port}").parse().unwrap()],
            dialer: Dialer::insecure(),
            connect_timeout: Some(Duration::from_secs(10)),
            drain_timeout: Duration::from_secs(10),
            seed: 1,
        };
        let (ending, told) = tokio::sync::watch::channel(Ending::Run);
        let (up, mut is_up) = tokio::sync::watch::channel(false);
        let control = Arc::new(Quiet { up });
        let uplink = tokio::spawn(uplink::run(uplink, Arc::clone(&backlog), control, told));
        is_up.wait_for(|up| *up).await.unwrap();

        let start = Instant::now();
        let (offered, all) = (Arc::clone(&backlog), batches.to_vec());
        let offering = std::thread::spawn(move || {
            for mut batch in all {
                while let Offer::Full(back) = offered.offer(batch) {
                    offered.wait_for_room(&back, Duration::from_secs(1));
                    batch = back;
                }
            }
        });
        while !offering.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        offering.join().unwrap();
        backlog.wait_drained().await;
        let took = start.elapsed();

        assert_eq!(backlog.snapshot().acked_batches, batches.len() as u64);
        ending.send_replace(Ending::Drain);
        uplink.await.unwrap().unwrap();
        order.send_replace(Order::Stop);
        processor.await.unwrap().unwrap();
        took
    })
}

/// A hunter with nothing to say.
struct Quiet {
    up: tokio::sync::watch::Sender<bool>,
}

impl Control for Quiet {
    fn registration(&self) -> RegistrationFacts {
        RegistrationFacts { hostname: HUNTER.to_owned(), instance: 1, epochs: vec![Epoch(1)], ..RegistrationFacts::default() }
    }

    fn apply(&self, _: FilterChange) {}

    fn heartbeat(&self) -> HeartbeatFacts {
        HeartbeatFacts::default()
    }

    fn urgent(&self) -> u64 {
        0
    }

    fn link(&self, state: LinkState) {
        self.up.send_replace(state != LinkState::Down);
    }

    fn roads(&self, _: Vec<Road>) {}
}

const _: () = assert!(GRPC_PREFIX == 5, "a flag and four bytes of length");
