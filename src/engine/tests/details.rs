//! What a call's record tells beside its counts, and what goes with each of its packets.

use super::*;
use crate::voip::details::{Details, DialogState};
use crate::voip::output::Owner;

fn details(out: &Seen) -> &Details {
    out.calls[0].details.as_deref().unwrap()
}

/// A message with one thing changed.
fn changed(message: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    text.replace(from, to).into_bytes()
}

#[test]
fn parties_request_uri_identities_and_ringing_are_those_of_the_messages() {
    let mut w = Wire::new(&["alice"]);
    let asserted = "P-Asserted-Identity: <tel:+4930123456>, <sip:alice@pbx.example>\r\nCSeq";
    let named = changed(&invite("one", "alice", 4000), "From: <sip:alice", "From: \"Alice A\" <sip:alice");
    w.udp(1, (5060, 5060), &changed(&named, "CSeq", asserted));
    w.udp_back(2, (5060, 5060), &sip("SIP/2.0 100 Trying", "one", "alice", "1 INVITE", None));
    w.udp_back(3, (5060, 5060), &sip("SIP/2.0 180 Ringing", "one", "alice", "1 INVITE", None));
    w.udp_back(4, (5060, 5060), &sip("SIP/2.0 183 Progress", "one", "alice", "1 INVITE", None));

    let (out, _) = w.end();

    let d = details(&out);
    assert_eq!((&*d.from.display, &*d.from.uri, &*d.to.uri), ("Alice A", "sip:alice@a.example", "sip:bob@b.example"));
    assert_eq!(&*d.request_uri, "sip:bob@b.example");
    let identities: Vec<_> = d.identities.iter().map(|i| (i.field, i.user.as_str(), i.host.as_str())).collect();
    assert_eq!(identities, [("sip.pai", "+4930123456", ""), ("sip.pai", "alice", "pbx.example")], "each once");
    assert_eq!(d.ringing, Some(Timestamp::from_nanos(3)));
}

#[test]
fn a_forked_call_has_a_dialog_for_each_answer_and_their_ends() {
    let mut w = Wire::new(&["alice"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    for (at, status, tag) in [(2, "SIP/2.0 180 Ringing", "x"), (3, "SIP/2.0 180 Ringing", "y"), (4, "SIP/2.0 200 OK", "x")] {
        let answer = sip(status, "one", "alice", "1 INVITE", None);
        w.udp_back(at, (5060, 5060), &changed(&answer, ";tag=b", &format!(";tag={tag}")));
    }
    w.udp(5, (5060, 5060), &changed(&sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None), ";tag=b", ";tag=x"));

    let (out, _) = w.end();

    let dialogs: Vec<_> = details(&out).dialogs.iter().map(|d| (&*d.from_tag, &*d.to_tag, d.state)).collect();
    assert_eq!(dialogs, [("a", "x", DialogState::Terminated), ("a", "y", DialogState::Early)]);
    assert_eq!(out.calls[0].dialogs, 2);
}

#[test]
fn a_call_says_why_it_ended_and_a_challenge_is_no_end() {
    let reason = |last: &[u8]| {
        let mut w = Wire::new(&["alice"]);
        w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
        w.udp_back(2, (5060, 5060), &sip("SIP/2.0 407 Proxy Authentication Required", "one", "alice", "1 INVITE", None));
        w.udp(3, (5060, 5060), &sip("INVITE sip:bob@b.example SIP/2.0", "one", "alice", "2 INVITE", None));
        w.udp_back(4, (5060, 5060), last);
        let (out, _) = w.end();
        details(&out).reason.to_string()
    };
    let busy = sip("SIP/2.0 486 Busy Here", "one", "alice", "2 INVITE", None);

    assert_eq!(reason(&busy), "Busy Here");
    assert_eq!(reason(&changed(&busy, "CSeq", "Reason: Q.850;cause=17\r\nCSeq")), "Q.850;cause=17");
    assert_eq!(reason(&sip("SIP/2.0 200 OK", "one", "alice", "2 INVITE", None)), "");
}

/// Claim, phone rule and holes of every packet.
#[derive(Default)]
struct Contexts(Vec<(String, String, String)>);

impl Output for Contexts {
    fn forward(&mut self, _: &Frame<'_>, owner: Option<&Owner<'_>>) {
        let c = owner.unwrap().context;
        self.0.push((c.claim.to_string(), c.phone_rule.to_string(), c.holes.to_string()));
    }

    fn event(&mut self, _: Event) {}

    fn wants_events(&self) -> bool {
        false
    }
}

fn contexts(kind: FilterKind, pattern: &str, packets: &[(i64, Vec<u8>)]) -> Vec<(String, String, String)> {
    let mut w = Wire::with(&[], |c| c.table.quality = false);
    let (set, _) = FilterSet::compile(&[Filter::new("f", kind, pattern)], &CompileOptions::default());
    w.engine.set_filters(&Arc::new(set));
    let mut out = Contexts::default();
    for (n, (at, data)) in packets.iter().enumerate() {
        w.engine.handle_frame(&frame(LinkType::ETHERNET, data, *at), n as u64 + 1, &mut out);
    }
    out.0
}

fn on_wire(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &v4(17, &udp(ports.0, ports.1, payload)))
}

#[test]
fn media_learnt_behind_nat_says_symmetric_with_every_packet() {
    let back = ethernet(0x0800, &reversed(&v4(17, &udp(4000, 61_000, &rtp(7, 1)))));
    let packets =
        [(1, on_wire((5060, 5060), &invite("one", "alice", 4000))), (2, on_wire((61_000, 4000), &rtp(8, 1))), (3, back)];

    let got: Vec<String> = contexts(FilterKind::SipUser, "alice", &packets).into_iter().map(|c| c.0).collect();

    let claim = "sdp message 1 media 0 caller 198.51.100.2:4000";
    assert_eq!(got, [String::new(), claim.to_owned(), format!("symmetric to {claim}")]);
}

#[test]
fn the_rule_by_which_a_number_matched_goes_with_the_call() {
    let packets = [(1, on_wire((5060, 5060), &invite("one", "+4930123456", 4000)))];

    let by_number = contexts(FilterKind::PhoneNumber, "+4930123456", &packets);
    let by_user = contexts(FilterKind::SipUser, "+4930123456", &packets);

    assert_eq!(by_number[0].1, "E.164; other spellings by suffix of at least 7 digits (numbers with + are E.164)");
    assert_eq!(by_user[0].1, "");
}

#[test]
fn what_is_missing_goes_with_the_call() {
    let mut packets = vec![(0, on_wire((5060, 5060), &invite("one", "anonymous", 4000)))];
    packets.extend((1..=202_u16).map(|n| (i64::from(n), on_wire((4001, 4000), &rtp(1, n)))));
    let late = changed(
        &sip("SIP/2.0 180 Ringing", "one", "anonymous", "1 INVITE", None),
        "CSeq",
        "P-Asserted-Identity: <sip:zoe@x>\r\nCSeq",
    );
    packets.push((500, on_wire((5060, 5060), &late)));

    let got = contexts(FilterKind::SipUser, "zoe", &packets);

    assert_eq!(got.len(), 202);
    assert!(got.iter().all(|c| c.2 == "hold_media 1 2 2"), "{:?}", got[0]);
}

#[test]
fn an_address_that_is_none_is_said_in_words() {
    let mut w = Wire::new(&["alice"]);
    let held = changed(&invite("one", "alice", 4000), "c=IN IP4 198.51.100.2", "c=IN IP4 0.0.0.0");
    let named = changed(&invite("two", "alice", 4000), "c=IN IP4 198.51.100.2", "c=IN IP4 media.example");
    w.udp(1, (5060, 5060), &changed(&held, "Content-Length: ", "X: "));
    w.udp(2, (5060, 5060), &changed(&named, "Content-Length: ", "X: "));

    let (out, _) = w.end();

    assert_eq!(out.sip[0].media, ["audio port 4000 on hold"]);
    assert_eq!(out.sip[1].media, ["audio port 4000"]);
}

#[test]
fn quality_is_measured_for_nobody_who_did_not_ask_and_from_a_late_match_on() {
    let mut w = Wire::new(&["nobody"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.rtp(2, (4001, 4000), 1, 1);
    w.udp_back(3, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", None));
    w.udp(4, (5060, 5060), &sip("ACK sip:bob@b.example SIP/2.0", "one", "alice", "1 ACK", None));
    w.rtp(5, (4001, 4000), 1, 2);
    assert!(w.engine.call_facts("one", false).unwrap().streams.is_empty());
    let (set, _) = FilterSet::compile(&[Filter::new("f", FilterKind::SipUser, "alice")], &CompileOptions::default());
    w.engine.set_filters(&Arc::new(set));
    w.udp(6, (5060, 5060), &sip("UPDATE sip:bob@b.example SIP/2.0", "one", "alice", "2 UPDATE", None));
    w.rtp(7, (4001, 4000), 1, 3);

    let (out, _) = w.end();

    let streams: Vec<_> = out.calls[0].streams.iter().map(|s| (s.packets, s.clock_hz)).collect();
    assert_eq!(streams, [(1, 8000)]);
    assert_eq!(out.calls[0].media_from_ns, Some(7), "what is recorded begins here");
}
