//! `--subscriber-grants` at the real binary, everybody under mutual TLS: two hunters, and monitors that each see what the file grants them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use lippycat::net::ClientTls;
use lippycat::wire::data::data_service_client::DataServiceClient;
use lippycat::wire::data::{PacketBatch, SubscribeRequest};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status, Streaming};

use super::numbered::number;
use super::numbered_file::{header, record};
use super::whole::{Processor, calls_capture, frames, lc, succeed, wait_for};

/// Of the hunter that forwards everything.
const PACKETS: u64 = 3000;
/// Of the calls of alice.
const OF_CALLS: usize = 424;

/// A connection under the certificate of this subscriber.
async fn connect(dir: &Path, port: u16, id: &str) -> DataServiceClient<Channel> {
    let of = |kind: &str| Some(dir.join(format!("c/subscriber-{id}.{kind}")));
    let tls = ClientTls { ca: Some(dir.join("c/ca.crt")), cert: of("crt"), key: of("key"), ..ClientTls::default() };
    let connector = TlsConnector::from(Arc::new(tls.load().unwrap()));
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut io = Some(connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap());
    let service = tower::service_fn(move |_: Uri| std::future::ready(io.take().map(TokioIo::new).ok_or(std::fmt::Error)));
    let channel = Endpoint::from_static("http://processor").connect_with_connector(service).await.unwrap();
    DataServiceClient::new(channel)
}

async fn subscribe(dir: &Path, port: u16, id: &str, request: SubscribeRequest) -> Result<Streaming<PacketBatch>, Status> {
    connect(dir, port, id).await.subscribe_packets(request).await.map(tonic::Response::into_inner)
}

fn of_hunter(id: &str) -> SubscribeRequest {
    SubscribeRequest { hunter_ids: vec![id.to_owned()], has_hunter_filter: true, ..SubscribeRequest::default() }
}

/// What a monitor gets until its stream ends, by hunter; it must not miss anything.
async fn read_all(mut stream: Streaming<PacketBatch>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut all: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    while let Some(batch) = stream.message().await.unwrap() {
        assert_eq!(batch.skipped_packets, 0);
        let of = all.entry(batch.hunter_id).or_default();
        of.extend(batch.packets.into_iter().map(|p| p.data.to_vec()));
    }
    all
}

/// Certificates for everybody, and a processor that demands them.
fn processor(dir: &Path) -> Processor {
    succeed(dir, &["certs", "init", "--dir", "c"]);
    let issue = |words: &[&str]| succeed(dir, &[&["certs", "issue"], words, &["--dir", "c"]].concat());
    issue(&["processor", "mid", "--dns", "localhost"]);
    for [role, id] in
        [["hunter", "north"], ["hunter", "south"], ["subscriber", "desk"], ["subscriber", "case"], ["subscriber", "stranger"]]
    {
        issue(&[role, id]);
    }
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: alice, type: sip_user, pattern: alice}\n").unwrap();
    fs::write(dir.join("grants"), "desk hunters=south\ncase filters=alice\n").unwrap();
    fs::set_permissions(dir.join("grants"), fs::Permissions::from_mode(0o600)).unwrap();
    let tls =
        ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt", "--tls-client-auth"];
    let files = ["-w", "all.pcap", "--state-dir", "state", "--filter-file", "f.yaml", "--subscriber-grants", "grants"];
    Processor::start(dir, &[&tls[..], &files].concat())
}

#[test]
fn under_mutual_tls_each_monitor_sees_the_hunters_and_the_calls_it_is_granted_and_nothing_else() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let processor = processor(dir);
    let port = processor.port;
    let address = format!("localhost:{port}");
    let mut numbered = header();
    numbered.extend((0..PACKETS).flat_map(record));
    fs::write(dir.join("numbered.in"), numbered).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let denied = |id, request| {
        let answer = async { subscribe(dir, port, id, request).await?.message().await };
        runtime.block_on(answer).unwrap_err().code()
    };

    let foreign = [denied("stranger", SubscribeRequest::default()), denied("desk", of_hunter("north"))];
    let monitors = ["desk", "case"].map(|id| {
        let stream = runtime.block_on(subscribe(dir, port, id, SubscribeRequest::default())).unwrap();
        runtime.spawn(read_all(stream))
    });
    wait_for(|| processor.log().matches("subscription began").count() == 2);
    let hunt = |id: &str, words: &[&str]| {
        let (cert, key) = (format!("c/hunter-{id}.crt"), format!("c/hunter-{id}.key"));
        let tls = ["--tls-ca", "c/ca.crt", "--tls-cert", &cert, "--tls-key", &key, "-P", &address, "--id", id];
        succeed(dir, &[words, &tls].concat());
    };
    hunt("north", &["hunt", "voip", "-r", calls_capture().to_str().unwrap()]);
    hunt("south", &["hunt", "--no-filter-policy", "allow", "--keep-duplicates", "-r", "numbered.in"]);
    let listed = |id: &str| {
        let (cert, key) = (format!("c/subscriber-{id}.crt"), format!("c/subscriber-{id}.key"));
        let tls = ["--tls-ca", "c/ca.crt", "--tls-cert", &cert, "--tls-key", &key, "-P", &address];
        let out = lc(dir, &[&["list", "hunters", "--output-format", "json", "-q"], &tls[..]].concat());
        String::from_utf8(out.stdout).unwrap()
    };
    let lists = ["desk", "case"].map(listed);
    let log = processor.stop();
    let [desk, case] = monitors.map(|m| runtime.block_on(m).unwrap());

    assert_eq!(foreign, [Code::PermissionDenied; 2]);
    assert_eq!(desk.keys().collect::<Vec<_>>(), ["south"], "{log}");
    assert_eq!(desk["south"].iter().map(|d| number(d)).collect::<Vec<_>>(), (0..PACKETS).collect::<Vec<_>>());
    assert_eq!(case.keys().collect::<Vec<_>>(), ["north"], "{log}");
    let mut stored: Vec<Vec<u8>> = frames(&dir.join("all.pcap")).into_iter().map(|(_, _, data)| data).collect();
    assert_eq!(stored.len() as u64, PACKETS + OF_CALLS as u64);
    stored.retain(|data| !desk["south"].contains(data));
    assert_eq!((stored.len(), &case["north"]), (OF_CALLS, &stored), "the calls of alice, as they are stored");
    assert!(lists[0].contains("south") && !lists[0].contains("north"), "{}", lists[0]);
    assert!(!lists[1].contains("south"), "{}", lists[1]);
    assert!(log.contains("hunters=south") && log.contains("filters=alice"), "the audit says by which grant: {log}");
}
