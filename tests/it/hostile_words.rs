//! A peer that is let in and puts every character where it may say something: each line of the log, in text as in JSON, stays one line.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use lippycat::wire::data::{DroppedRange, PacketContext};
use lippycat::wire::management::{HunterCapabilities, HunterRegistration};
use prost::Message;
use tokio::time::timeout;

use super::hostile::{REGISTER, call, http2};
use super::hostile_hunter::{batch, framed, register, told};
use super::started::Started;
use super::whole::LC;

async fn send(connection: &SendRequest<Bytes>, message: &impl Message) {
    let (answer, mut body) = connection.clone().ready().await.unwrap().send_request(call(REGISTER), false).unwrap();
    body.send_data(framed(message), true).unwrap();
    // refused or not
    if let Ok(answer) = timeout(Duration::from_secs(10), answer).await.unwrap() {
        // read, since the client ends a connection with too many small frames that nobody reads
        let mut body = answer.into_body();
        while let Some(Ok(data)) = body.data().await {
            let _room = body.flow_control().release_capacity(data.len());
        }
    }
}

/// The fields of a registration, one hostile at a time.
fn registrations(text: &str) -> Vec<HunterRegistration> {
    let me = || HunterRegistration { hunter_id: "evil".into(), durable_acks: true, instance: 7, ..HunterRegistration::default() };
    let kinds = HunterCapabilities { filter_types: vec![text.into()], ..HunterCapabilities::default() };
    vec![
        HunterRegistration { hunter_id: text.into(), ..me() },
        HunterRegistration { hostname: text.into(), ..me() },
        HunterRegistration { interfaces: vec![text.into()], ..me() },
        HunterRegistration { version: text.into(), ..me() },
        HunterRegistration { capabilities: Some(kinds), ..me() },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_character_in_every_field_stays_within_its_line_of_the_log() {
    for format in ["text", "json"] {
        let tmp = tempfile::tempdir().unwrap();
        let log = tmp.path().join("log");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let processor = Command::new(LC)
            .args([
                "process",
                "--insecure",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--log-format",
                format,
                "--log-level",
                "trace",
            ])
            .args(["--state-dir", "state", "--per-call-pcap", "--per-call-pcap-dir", "calls"])
            .current_dir(tmp.path())
            .env("HOME", tmp.path())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let processor = Started(processor);
        let evil = loop {
            if let Some(evil) = http2(port).await {
                break evil;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };

        let characters = (0..=255_u8).map(char::from).chain(['\u{2028}', '\u{202e}', '\u{feff}']);
        // JSON escapes by itself
        let characters = characters.take(if format == "json" { 40 } else { usize::MAX });
        for (n, c) in (1_u64..).zip(characters) {
            let text = format!("a{c}2026-01-01T00:00:00Z ERROR b");
            for registration in registrations(&text) {
                send(&evil, &registration).await;
            }
            register(&evil, "evil").await;
            let context = PacketContext {
                call_id: text.clone(),
                filter_ids: vec![text.clone()],
                holes: text.clone(),
                ..PacketContext::default()
            };
            let mut message = batch("evil", 9, n);
            message.contexts = vec![context];
            message.dropped_ranges = vec![DroppedRange { from_seq: n, to_seq: n, packets: 1, reason: text.clone() }];
            let mut named = batch(&text, 9, n);
            named.epoch = 10;
            let _status = told(&evil, vec![framed(&message), framed(&named)]).await;
        }
        drop(processor);

        let log = String::from_utf8(fs::read(&log).unwrap()).unwrap();
        assert!(log.lines().count() > 100, "{log}");
        for line in log.split_terminator('\n') {
            assert!(!line.chars().any(char::is_control), "{format}: {line:?}");
            assert!(!line.starts_with("2026-01-01"), "{format}: a forged line: {line:?}");
            assert!(line.starts_with(if format == "json" { "{\"timestamp\":" } else { "20" }), "{format}: {line:?}");
            assert!(format == "text" || serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        }
    }
}
