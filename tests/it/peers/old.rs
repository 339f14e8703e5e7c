//! An old hunter or monitor, played beside our processor.

use std::path::Path;

use serde_json::{Value, json};

use super::{Peer, base64, there};
use crate::whole::Processor;

/// Old hunters and monitors receive this much (reference behaviour: 10 MiB and the library's 4 MiB).
const HUNTER_MAX: u64 = 10 << 20;

pub(super) struct Old {
    peer: Peer,
    pub(super) address: String,
}

impl Old {
    /// One that has not connected yet.
    pub(super) fn near(processor: &Processor) -> Self {
        Self { peer: Peer::start("hunter.py"), address: format!("localhost:{}", processor.port) }
    }

    pub(super) fn at(processor: &Processor) -> Self {
        let mut old = Self { peer: Peer::start("hunter.py"), address: format!("127.0.0.1:{}", processor.port) };
        let limit = json!([["grpc.max_receive_message_length", HUNTER_MAX]]);
        for on in ["control", "data"] {
            old.ask(&json!({"connect": old.address, "on": on, "options": limit}));
        }
        old
    }

    pub(super) fn ask(&mut self, command: &Value) -> Value {
        self.peer.tell(command);
        self.peer.hear()
    }

    /// A call's answer; fails the test when it is an error.
    #[track_caller]
    pub(super) fn call(&mut self, what: &str, message: &Value) -> Value {
        let mut answer = self.ask(&json!({"call": what, "on": "control", "message": message}));
        assert!(answer.get("answer").is_some(), "{what}: {answer}");
        answer["answer"].take()
    }

    /// A call's failure.
    #[track_caller]
    pub(super) fn failure(&mut self, what: &str, message: &Value) -> String {
        let answer = self.ask(&json!({"call": what, "on": "control", "message": message}));
        format!("{} {}", answer["code"].as_str().unwrap(), answer["message"].as_str().unwrap())
    }

    #[track_caller]
    pub(super) fn register(&mut self, id: &str, kinds: &[&str]) -> Value {
        self.call("RegisterHunter", &registration(id, kinds))
    }

    /// Sends on a stream and waits until it has received `count` messages in all; the newest.
    #[track_caller]
    pub(super) fn exchange(&mut self, stream: &str, message: &Value, count: usize) -> Value {
        self.ask(&json!({"send": stream, "message": message}));
        self.read(stream, count).last().unwrap().clone()
    }

    #[track_caller]
    pub(super) fn read(&mut self, stream: &str, count: usize) -> Vec<Value> {
        let got = self.ask(&json!({"read": stream, "count": count}));
        let messages = got["messages"].as_array().unwrap().clone();
        assert!(messages.len() >= count, "{stream}: {} of {count}, ended {}", messages.len(), got["ended"]);
        messages
    }

    /// What a subscription has told so far: `+id=pattern`, `-id`.
    #[track_caller]
    pub(super) fn updates(&mut self, count: usize) -> Vec<String> {
        let told = |u: &Value| {
            let (id, pattern) = (u["filter"]["id"].as_str().unwrap(), u["filter"]["pattern"].as_str().unwrap());
            match u["update_type"].as_str().unwrap() {
                "UPDATE_ADD" => format!("+{id}={pattern}"),
                "UPDATE_MODIFY" => format!("~{id}={pattern}"),
                _ => format!("-{id}"),
            }
        };
        self.read("SubscribeFilters", count).iter().map(told).collect()
    }
}

pub(super) fn registration(id: &str, kinds: &[&str]) -> Value {
    json!({
        "hunter_id": id, "hostname": "192.0.2.7", "interfaces": ["eth0"], "version": "v0.9.4",
        "capabilities": {"filter_types": kinds, "max_buffer_size": "20480000"}
    })
}

pub(super) const VOIP: &[&str] = &["bpf", "ip_address", "sip_user", "phone_number", "call_id", "codec", "sip_uri"];

pub(super) fn start(dir: &Path, filters: &str, more: &[&str]) -> Option<Processor> {
    if !there() {
        return None;
    }
    std::fs::write(dir.join("f.yaml"), filters).unwrap();
    Some(Processor::start(
        dir,
        &[&["--insecure", "--id", "mid", "--filter-file", "f.yaml", "--state-dir", "state"], more].concat(),
    ))
}

pub(super) const FILTERS: &str = "\
filters:
  - {id: user, type: sip_user, pattern: alice}
  - {id: url, type: http_url, pattern: /login*}
  - {id: net, type: ip_address, pattern: 192.0.2.0/24}
  - {id: other, type: sip_user, pattern: bob*, target_hunters: [another]}
  - {id: off, type: sip_user, pattern: carol, enabled: false}
";

pub(super) fn ids(filters: &Value) -> Vec<&str> {
    filters.as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).collect()
}

/// A batch as an old hunter sends it.
pub(super) fn batch(sequence: usize, packets: &[Value]) -> Value {
    let stats = json!({"total_captured": packets.len(), "filtered_matched": packets.len()});
    json!({"hunter_id": "edge", "sequence": sequence, "timestamp_ns": 1, "packets": packets, "stats": stats})
}

pub(super) fn packet((ns, wire, data): &(i64, u32, Vec<u8>)) -> Value {
    json!({
        "data": base64(data), "timestamp_ns": ns, "capture_length": data.len(), "original_length": wire, "link_type": 1,
        "interface_name": "eth0"
    })
}
