//! Interfaces that go down, or away, or are not up.

use std::time::Duration;

use lippycat::capture::{CaptureError, LiveOptions, LiveSource, LiveState, Source as _, open_live};

use crate::rig::{Sender, assert_closed, drain, ethernet, in_namespace, pair, sh, udp4};

#[test]
fn an_interface_that_goes_down_or_away_is_an_error_once_then_a_gap() {
    in_namespace("interfaces::an_interface_that_goes_down_or_away_is_an_error_once_then_a_gap", || {
        let options = LiveOptions { filter: "udp".to_owned(), ..LiveOptions::default() };
        let mut source = open_live(&["ve1".to_owned(), "lo".to_owned()], 1, &options).unwrap().pop().unwrap();
        let frame = |n| ethernet(None, 0x0800, &udp4([10, 0, 0, 1], [10, 0, 0, 2], 5060, 0, n));
        Sender::on("ve0").send(&frame(1));
        assert_eq!(drain(&mut source, |_, _, _| {}), 1);

        sh("ip link set ve1 down");
        let error = first_error(&mut source);
        assert!(matches!(&error, CaptureError::InterfaceDown { name } if name == "ve1"), "{error}");
        assert_eq!(source.states().next().unwrap().state, LiveState::Down);
        assert!(source.recover().is_err());
        sh("ip link set ve1 up");
        source.recover().unwrap();
        Sender::on("ve0").send(&frame(2));
        assert_eq!(drain(&mut source, |_, _, _| {}), 1);

        sh("ip link del ve1");
        let error = first_error(&mut source);
        assert!(matches!(&error, CaptureError::InterfaceGone { name, .. } if name == "ve1"), "{error}");
        assert!(matches!(source.recover(), Err(CaptureError::NoSuchInterface { .. })));
        // The other interface goes on.
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:9").unwrap();
        assert_eq!(drain(&mut source, |_, _, _| {}), 1);
        pair();
        source.recover().unwrap();
        Sender::on("ve0").send(&frame(3));
        assert_eq!(drain(&mut source, |_, _, _| {}), 1);

        let gaps = source.gaps();
        assert_eq!(gaps.len(), 2, "{gaps:?}");
        assert!(gaps.iter().all(|g| g.interface.0 == 0 && g.after.is_some() && g.after < g.before), "{gaps:?}");
        assert!(source.states().all(|s| s.state == LiveState::Up));
        assert_closed(source.stats(), 4);
    });
}

#[test]
fn an_interface_that_is_down_is_refused_in_words() {
    in_namespace("interfaces::an_interface_that_is_down_is_refused_in_words", || {
        sh("ip link set ve1 down");

        let error = open_live(&["ve1".to_owned()], 1, &LiveOptions::default()).err().unwrap().to_string();

        assert_eq!(error, "cannot capture on ve1: the interface is down; bring it up: ip link set ve1 up");
    });
}

#[test]
fn an_interface_that_goes_down_is_noticed_while_another_is_busy() {
    in_namespace("interfaces::an_interface_that_goes_down_is_noticed_while_another_is_busy", || {
        let interfaces = ["ve1".to_owned(), "lo".to_owned()];
        let mut source = open_live(&interfaces, 1, &LiveOptions::default()).unwrap().pop().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sh("ip link set ve1 down");

        let error = (0..20_000).find_map(|_| {
            let _refused = socket.send_to(b"busy", "127.0.0.1:9");
            source.poll(&mut |_| {}).err()
        });

        assert!(matches!(error, Some(CaptureError::InterfaceDown { name }) if name == "ve1"));
    });
}

/// Polls and waits until something is wrong.
fn first_error(source: &mut LiveSource) -> CaptureError {
    for _ in 0..100 {
        if let Err(e) = source.poll(&mut |_| {}).and_then(|_| source.wait(Duration::from_millis(20))) {
            return e;
        }
    }
    panic!("no error in 100 rounds");
}
