//! More calls than there is room for.

use super::*;

#[test]
fn a_hunter_that_floods_with_calls_takes_none_from_the_one_beside_it() {
    let tmp = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(tmp.path(), Setup { max_calls: 20, ..SPLIT });
    let call = one_call("plain.pcap");
    let id = &*call[0].call_id;
    let first = capture("refused.pcap", "").remove(0);
    let (mut good, mut evil) = (Batcher::new("good", 1), Batcher::new("evil", 2));

    // much comes between two packets of the call, and it was silent for longest each time
    let middle = call.len() / 2;
    for (n, part) in [&call[..1], &call[1..middle], &call[middle..]].into_iter().enumerate() {
        recorder.send(good.batch(part, "good"));
        let flood: Vec<Packet> = (0..60).map(|m| Packet { call_id: format!("evil-{n}-{m}"), ..first.clone() }).collect();
        recorder.send(evil.batch(&flood, "evil"));
    }

    let record = recorder.wait(id, is_closed);
    let dir = recorder.dir.clone();
    recorder.stop();
    let files = record["files"].as_array().unwrap();
    assert_eq!(files.iter().filter_map(|f| f["packets"].as_u64()).sum::<u64>(), call.len() as u64);
    let stem = files[0]["name"].as_str().unwrap().split("_sip").next().unwrap();
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|n| n.starts_with(stem) && n.contains(".pcap")).count(), files.len(), "none is of another story");
}

#[test]
fn a_start_with_room_for_fewer_calls_closes_the_others_and_their_records_say_what_they_said() {
    let tmp = tempfile::tempdir().unwrap();
    let calls = ["plain.pcap", "hold.pcap", "loss.pcap", "tcp-long.pcap"].map(one_call);
    let ids = calls.each_ref().map(|call| &*call[0].call_id);
    let mut hunter = Batcher::new("h", 1);
    let first = Recorder::start(tmp.path(), SPLIT);
    for call in &calls {
        first.send(hunter.batch(&call[..call.len() / 2], "h"));
        first.wait(&call[0].call_id, |_| true);
    }
    first.stop();
    let before = records(&tmp.path().join("calls"));

    let second = Recorder::start(tmp.path(), Setup { max_calls: 2, ..SPLIT });
    let after = ids[..2].iter().map(|id| second.wait(id, is_closed)).collect::<Vec<_>>();
    for call in &calls[2..] {
        second.send(hunter.batch(&call[call.len() / 2..], "h"));
    }
    let whole = ids[2..].iter().map(|id| second.wait(id, is_closed)).collect::<Vec<_>>();
    let evicted = second.shared.files.lock().evicted;
    second.stop();

    for (id, record) in ids.iter().zip(&after) {
        for said in ["from", "to", "streams", "answered", "packets", "hunters", "filter_ids", "first_packet", "last_packet"] {
            assert_eq!(record[said], before[*id][said], "{id}: {said}");
        }
        assert!(record["packets"]["sip"].as_u64().unwrap() > 0 && record["files"][0]["sha256"].is_string(), "{record:#}");
    }
    for (call, record) in calls[2..].iter().zip(&whole) {
        let files = record["files"].as_array().unwrap();
        assert_eq!(files.iter().filter_map(|f| f["packets"].as_u64()).sum::<u64>(), call.len() as u64);
    }
    assert_eq!(evicted, 2);
}
