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
