//! Subscribers and what they are granted: packets, states, filters; in the file, out of it, and when it changes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::monitors::{Monitor, Seen, anything, bring};
use super::*;
use crate::filter::{Filter, FilterKind};
use crate::net::{Grants, PeerIdentity, PeerInfo, Reloading, Role};
use crate::processor::access::Access;
use crate::processor::management::Management;
use crate::processor::shared::Doors;
use crate::wire::data::{PacketBatch, SubscribeRequest};
use crate::wire::management::management_service_server::ManagementService;
use crate::wire::management::{FilterRequest, HunterCapabilities, ListHuntersRequest, StatusRequest};

/// A processor with two hunters, three filters and a file of grants.
struct Bed {
    _dir: tempfile::TempDir,
    path: PathBuf,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
}

impl Bed {
    fn new(grants: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants");
        std::fs::write(&path, grants).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let grants = Arc::new(Reloading::new(Grants::at(path.clone())).unwrap());
        let (shared, queue) = processor(64);
        let access = Access::new(true, None).granting(Some(grants));
        assert!(shared.doors.set(Doors { connections: Arc::default(), access, peers: Vec::new() }).is_ok());
        for id in ["edge-1", "edge-2"] {
            let capabilities =
                Some(HunterCapabilities { filter_types: vec!["sip_user".into()], ..HunterCapabilities::default() });
            let r =
                HunterRegistration { hunter_id: id.into(), durable_acks: true, capabilities, ..HunterRegistration::default() };
            shared.roster.lock().register(r, None, crate::telemetry::clock::wall()).unwrap();
        }
        let user = |id: &str| Filter::new(id, FilterKind::SipUser, "x");
        let filters = vec![user("case-1"), user("case-2"), Filter { target_hunters: vec!["edge-2".into()], ..user("far") }];
        shared.filters.replace(filters, "test").unwrap();
        Self { _dir: dir, path, shared, queue }
    }

    fn monitor(&self, who: &PeerInfo, request: &SubscribeRequest) -> Monitor {
        Monitor::with(&self.shared, request, Some(who.clone()))
    }

    async fn brings(&mut self, hunter: &str, batch: Bytes) {
        let identity = PeerIdentity { role: Role::Hunter, id: hunter.into() };
        let mut stream = Stream::open_as(&self.shared, peer(identity));
        assert_eq!(bring(&mut stream, &mut self.queue, [batch]).await, 1);
    }

    fn denied(&self) -> u64 {
        self.shared.doors.get().unwrap().access.counts().not_granted
    }
}

fn peer(identity: PeerIdentity) -> PeerInfo {
    let here = SocketAddr::from(([127, 0, 0, 1], 1));
    PeerInfo::new(here, here, Some(identity), true)
}

fn subscriber(id: &str) -> PeerInfo {
    peer(PeerIdentity { role: Role::Subscriber, id: id.into() })
}

fn asks<T>(who: &PeerInfo, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(who.clone());
    request
}

/// A batch of a call for each of these filters.
fn of_filters(hunter: &str, epoch: u64, filters: &[&str]) -> Bytes {
    let mut encoder = Encoder::new(EncoderConfig { hunter_id: hunter.into(), epoch: Epoch(epoch), limits: Limits::default() });
    for (n, filter) in (1..).zip(filters) {
        let call = CallContext {
            call_id: format!("call-of-{filter}").as_str().into(),
            filter_ids: [Arc::from(*filter)].into(),
            ..CallContext::default()
        };
        let (ts, interface) = (Timestamp::from_nanos(1), InterfaceId(0));
        let frame = Frame { ts, wire_len: 20, link: LinkType::ETHERNET, interface, data: &[0x55; 20] };
        assert_eq!(encoder.push(&frame, Some((ContextKey(n), &call)), &[], false), Pushed::Stored);
    }
    encoder.seal(5, 1, &BatchStats::default()).unwrap().bytes
}

fn hunters(batches: &[PacketBatch]) -> Vec<&str> {
    batches.iter().map(|b| b.hunter_id.as_str()).collect()
}

async fn end(monitor: &mut Monitor) -> (Code, String) {
    loop {
        match monitor.next().await {
            Seen::End(code, text) => return (code, text),
            Seen::Silence => {}
            Seen::Batch(b) => panic!("{b:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_sees_the_hunters_it_is_granted_and_an_admin_all() {
    let mut bed = Bed::new("desk hunters=edge-1\nboss hunters=*\n");
    let admin = peer(PeerIdentity { role: Role::Admin, id: "desk".into() });
    let mut each = Vec::new();
    for who in [&subscriber("desk"), &subscriber("boss"), &admin] {
        let mut monitor = bed.monitor(who, &anything());
        assert_eq!(monitor.next().await, Seen::Silence);
        each.push(monitor);
    }
    bed.brings("edge-1", of_filters("edge-1", 1, &["case-1"])).await;
    bed.brings("edge-2", of_filters("edge-2", 2, &["case-1"])).await;

    let seen: Vec<_> = [each[0].all().await, each[1].all().await, each[2].all().await].to_vec();
    assert_eq!(
        seen.iter().map(|b| hunters(b)).collect::<Vec<_>>(),
        [vec!["edge-1"], vec!["edge-1", "edge-2"], vec!["edge-1", "edge-2"]]
    );
    assert_eq!((bed.shared.monitors.figures().offered, bed.denied()), (5, 0), "what is not granted is not offered");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_in_the_file_or_asks_for_others_by_name_is_denied() {
    let bed = Bed::new("desk hunters=edge-1\n");
    let by_name = |id: &str| SubscribeRequest { hunter_ids: vec![id.into()], has_hunter_filter: true, ..anything() };

    let (code, text) = end(&mut bed.monitor(&subscriber("other"), &anything())).await;
    assert!(
        code == Code::PermissionDenied && text.contains("subscriber 'other'") && text.contains("--subscriber-grants"),
        "{text}"
    );
    let (code, text) = end(&mut bed.monitor(&subscriber("desk"), &by_name("edge-2"))).await;
    assert!(code == Code::PermissionDenied && text.contains("hunter 'edge-2'"), "{text}");
    assert_eq!(bed.monitor(&subscriber("desk"), &by_name("edge-1")).next().await, Seen::Silence);
    assert_eq!((bed.denied(), bed.shared.monitors.len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn of_granted_filters_a_subscriber_sees_their_calls_and_no_word_of_others() {
    let mut bed = Bed::new("case filters=case-1\nboth hunters=edge-2 filters=case-2\n");
    let old = SubscribeRequest::default();
    let mut each = Vec::new();
    for (who, request) in [("case", &anything()), ("case", &old), ("both", &anything())] {
        let mut monitor = bed.monitor(&subscriber(who), request);
        assert_eq!(monitor.next().await, Seen::Silence);
        each.push(monitor);
    }
    bed.brings("edge-1", of_filters("edge-1", 1, &["case-2", "case-1", "case-2"])).await;
    bed.brings("edge-2", of_filters("edge-2", 2, &["case-2"])).await;

    let [new, old, both] = [each[0].all().await, each[1].all().await, each[2].all().await];
    for batches in [&new, &old] {
        let [batch] = &batches[..] else { panic!("{batches:?}") };
        assert_eq!((batch.packets.len(), batch.hunter_id.as_str()), (1, "edge-1"));
        let words = format!("{batch:?}");
        assert!(words.contains("call-of-case-1") && !words.contains("case-2"), "{words}");
    }
    assert_eq!(new[0].contexts[new[0].packets[0].context as usize - 1].call_id, "call-of-case-1");
    assert_eq!(hunters(&both), ["edge-2"]);
    let f = bed.shared.monitors.figures();
    assert_eq!((f.offered, f.delivered, f.filtered, f.imbalance()), (9, 3, 6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_taken_back_narrows_or_ends_the_streams_that_are_open() {
    let mut bed = Bed::new("desk hunters=edge-1,edge-2\ngone hunters=edge-1\n");
    let mut desk = bed.monitor(&subscriber("desk"), &anything());
    let mut gone = bed.monitor(&subscriber("gone"), &anything());
    assert_eq!((desk.next().await, gone.next().await), (Seen::Silence, Seen::Silence));
    // what waits is not seen any more, either
    bed.brings("edge-1", of_filters("edge-1", 1, &["case-1"])).await;
    std::fs::write(&bed.path, "desk hunters=edge-2\n").unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;

    let (code, text) = end(&mut gone).await;
    assert!(code == Code::PermissionDenied && text.contains("subscriber 'gone'"), "{text}");
    assert_eq!(desk.next().await, Seen::Silence);
    for n in [1, 2] {
        let hunter = format!("edge-{n}");
        bed.brings(&hunter, of_filters(&hunter, 10 + n, &["case-1"])).await;
    }
    assert_eq!(hunters(&desk.all().await), ["edge-2"]);

    // a file that cannot be read as one changes nothing
    std::fs::write(&bed.path, "desk hunters=\n").unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(desk.next().await, Seen::Silence);
    bed.brings("edge-2", of_filters("edge-2", 20, &["case-1"])).await;
    assert_eq!(hunters(&desk.all().await), ["edge-2"]);
}

#[tokio::test]
async fn states_and_filters_are_those_that_are_granted() {
    let bed = Bed::new("desk hunters=edge-1\ncase filters=case-1\nboth hunters=edge-2 filters=far\n");
    let management = Management::new(Arc::clone(&bed.shared));
    let listed = async |who: &str| {
        let answer = management.list_available_hunters(asks(&subscriber(who), ListHuntersRequest::default())).await.unwrap();
        answer.into_inner().hunters.into_iter().map(|h| h.hunter_id).collect::<Vec<_>>()
    };
    let status = async |who: &str, hunter_id: &str| {
        let request = StatusRequest { hunter_id: hunter_id.into() };
        let answer = management.get_hunter_status(asks(&subscriber(who), request)).await.map_err(|e| e.code())?.into_inner();
        let of = |h: crate::wire::management::ConnectedHunter| {
            (h.hunter_id, h.filters.into_iter().map(|f| f.id).collect::<Vec<_>>().join(","), h.filters_meant)
        };
        assert_eq!(answer.processor_stats.unwrap().total_hunters as usize, listed(who).await.len());
        Ok::<_, Code>(answer.hunters.into_iter().map(of).collect::<Vec<_>>())
    };
    let filters = async |who: &str, hunter_id: &str| {
        let request = FilterRequest { hunter_id: hunter_id.into() };
        let answer = management.get_filters(asks(&subscriber(who), request)).await.map_err(|e| e.code())?.into_inner();
        Ok::<_, Code>(answer.filters.into_iter().map(|f| f.id).collect::<Vec<_>>().join(","))
    };
    let denied = Code::PermissionDenied;

    assert_eq!(
        (listed("desk").await, listed("case").await, listed("both").await),
        (vec!["edge-1".to_owned()], vec![], vec!["edge-2".to_owned()])
    );
    assert_eq!(status("desk", "").await, Ok(vec![("edge-1".to_owned(), "case-1,case-2".to_owned(), 2)]));
    assert_eq!(status("both", "edge-2").await, Ok(vec![("edge-2".to_owned(), "far".to_owned(), 1)]));
    assert_eq!([status("desk", "edge-2").await, status("case", "edge-1").await], [Err(denied), Err(denied)]);
    assert_eq!(filters("desk", "").await, Ok("case-1,case-2".into()));
    assert_eq!(filters("desk", "edge-1").await, Ok("case-1,case-2".into()));
    assert_eq!(filters("case", "").await, Ok("case-1".into()));
    assert_eq!(filters("case", "edge-2").await, Ok("case-1".into()));
    assert_eq!(filters("both", "").await, Ok("far".into()));
    assert_eq!([filters("desk", "edge-2").await, filters("other", "").await], [Err(denied), Err(denied)]);
    assert_eq!(bed.denied(), 4);
    let admin = peer(PeerIdentity { role: Role::Admin, id: "ops".into() });
    let all = management.list_available_hunters(asks(&admin, ListHuntersRequest::default())).await.unwrap();
    assert_eq!(all.into_inner().hunters.len(), 2);
}
