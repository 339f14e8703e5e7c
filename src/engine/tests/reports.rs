//! What RTCP says, and of which stream.

use super::*;
use crate::voip::event::RtcpFacts;

/// Middle of the NTP time of the sender reports made here.
const MIDDLE: u32 = 0x7e80_8000;

fn words(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// SR of `ssrc` after so many packets, and a description, as every compound has one.
fn sender_report(ssrc: u32, packets: u32) -> Vec<u8> {
    let ntp = u64::from(MIDDLE) << 16;
    let (high, low) = (u32::try_from(ntp >> 32).unwrap(), u32::try_from(ntp & 0xffff_ffff).unwrap());
    words(&[0x80c8_0006, ssrc, 0x83aa_0000 | high, low, 0, packets, packets * 160, 0x81ca_0002, ssrc, 0x0101_6100])
}

/// RR about `ssrc`: a quarter lost lately, 5 in all, 80 units of jitter, a quarter of a second after the sender report came.
fn receiver_report(reporter: u32, ssrc: u32) -> Vec<u8> {
    let block = [ssrc, 0x4000_0005, 100, 80, MIDDLE, 16_384];
    join(&[&words(&[0x81c9_0007, reporter]), &words(&block), &words(&[0x81ca_0002, reporter, 0x0101_6100])])
}

fn call(media: &str) -> Wire {
    let mut w = Wire::new(&["alice"]);
    let with = |m: Vec<u8>| String::from_utf8(m).unwrap().replace("RTP/AVP", media).into_bytes();
    w.udp(1, (5060, 5060), &with(invite("one", "alice", 4000)));
    w
}

/// Each stream's SSRC and what was said of it.
fn said(w: Wire) -> Vec<(u32, Option<RtcpFacts>)> {
    let (out, _) = w.end();
    out.calls[0].streams.iter().map(|s| (s.ssrc, s.rtcp.as_deref().cloned())).collect()
}

#[test]
fn reports_belong_to_the_source_they_name_and_to_no_other() {
    let mut w = call("RTP/AVP");
    for seq in 0..3 {
        w.rtp(SEC + i64::from(seq) * 20 * MS, (9000, 4000), 7, seq);
        w.udp_back(SEC + 1 + i64::from(seq) * 20 * MS, (4000, 9000), &rtp(8, seq));
    }
    w.udp(2 * SEC, (9001, 4001), &sender_report(7, 50));
    w.udp_back(2 * SEC + 500 * MS, (4001, 9001), &receiver_report(8, 7));
    w.udp_back(3 * SEC, (4001, 9001), &receiver_report(8, 99));

    let said = said(w);

    assert_eq!(said.iter().map(|s| s.0).collect::<Vec<_>>(), [7, 8]);
    let expected = RtcpFacts {
        sender_reports: 1,
        sender_packets: Some(50),
        sender_bytes: Some(8000),
        receiver_reports: 1,
        lost: Some(5),
        lost_percent_max: Some(25.0),
        jitter_ms: Some(10.0),
        jitter_max_ms: Some(10.0),
        round_trip_ms: Some(250.0),
        round_trip_max_ms: Some(250.0),
        voip_metrics: None,
    };
    assert_eq!(said[0].1.as_ref(), Some(&expected), "{:?}", said[0].1);
    assert_eq!(said[1].1, None);
}

#[test]
fn one_ssrc_on_two_legs_has_the_reports_of_each_leg_on_its_own() {
    let mut w = call("RTP/AVP");
    let answer = sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", Some(6000));
    w.udp_back(2, (5060, 5060), &answer);
    for seq in 0..2 {
        w.rtp(SEC + i64::from(seq) * 20 * MS, (9000, 4000), 7, seq);
        w.rtp(SEC + 1 + i64::from(seq) * 20 * MS, (9100, 6000), 7, seq);
    }
    w.udp_back(2 * SEC, (6001, 9101), &receiver_report(8, 7));

    let (out, _) = w.end();

    let lost: Vec<_> = out.calls[0].streams.iter().map(|s| (s.dst.as_str(), s.rtcp.as_ref().and_then(|r| r.lost))).collect();
    assert_eq!(lost, [("198.51.100.2:4000", None), ("198.51.100.2:6000", Some(5))]);
}

#[test]
fn voice_metrics_of_an_extended_report_are_the_streams() {
    let mut w = call("RTP/AVP");
    w.rtp(SEC, (9000, 4000), 7, 1);
    w.rtp(SEC + 20 * MS, (9000, 4000), 7, 2);
    let mut xr = words(&[0x80cf_000a, 8, 0x0700_0008, 7]);
    xr.extend([64, 0, 128, 0, 0, 100, 0, 200, 0, 150, 0, 60]);
    xr.extend([0xec, 0xc4, 127, 16, 82, 127, 38, 127, 0xb0, 0, 0, 40, 0, 80, 0, 160]);
    w.udp_back(2 * SEC, (4001, 9001), &xr);

    let said = said(w);

    let m = said[0].1.as_ref().unwrap().voip_metrics.unwrap();
    assert_eq!((m.loss_percent, m.burst_density_percent, m.burst_ms, m.gap_ms), (25.0, 50.0, 100, 200));
    assert_eq!((m.round_trip_ms, m.r_factor, m.mos_lq, m.mos_cq, m.jitter_buffer_ms), (Some(150), Some(82), Some(3.8), None, 40));
}

#[test]
fn encrypted_and_cut_reports_say_nothing() {
    let mut secure = call("RTP/SAVP");
    secure.rtp(SEC, (9000, 4000), 7, 1);
    secure.udp(2 * SEC, (9001, 4001), &sender_report(7, 50));
    assert_eq!(said(secure), [(7, None)]);

    let mut cut = call("RTP/AVP");
    cut.rtp(SEC, (9000, 4000), 7, 1);
    let whole = sender_report(7, 50);
    cut.udp(2 * SEC, (9001, 4001), &whole[..whole.len() - 2]);
    assert_eq!(said(cut), [(7, None)]);
}
