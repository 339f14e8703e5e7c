//! Calls, message by message.

use super::CallState::{Active, Ended, Ending, Ringing, Trying};
use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs_nanos(secs, 0)
}

struct Talk(Machine, i64);

impl Talk {
    fn new() -> Self {
        Self(Machine::default(), 0)
    }

    fn req(&mut self, method: &str, cseq: u32, to_tag: bool, branch: u64) -> CallState {
        self.1 += 1;
        self.step(method, None, cseq, [1, u64::from(to_tag) * 2], branch)
    }

    fn step(&mut self, method: &str, status: Option<u16>, cseq: u32, tags: [u64; 2], branch: u64) -> CallState {
        let [from, to] = tags;
        let dialog = if to == 0 { 0 } else { from + to };
        let step = Step { method: method.as_bytes(), status, cseq, to_tag: to != 0, dialog, branch, ts: at(self.1) };
        self.0.handle(&step);
        self.0.state()
    }

    fn rsp(&mut self, status: u16, method: &str, cseq: u32) -> CallState {
        self.1 += 1;
        self.step(method, Some(status), cseq, [1, 2], 0)
    }
}

#[test]
fn a_plain_call_goes_from_trying_to_ended() {
    let mut t = Talk::new();

    let seen = [
        t.req("INVITE", 1, false, 7),
        t.rsp(100, "INVITE", 1),
        t.rsp(180, "INVITE", 1),
        t.rsp(200, "INVITE", 1),
        t.req("ACK", 1, true, 8),
        t.req("BYE", 2, true, 9),
        t.rsp(200, "BYE", 2),
    ];

    assert_eq!(seen, [Trying, Trying, Ringing, Active, Active, Ending, Ended]);
    assert_eq!(t.0.answered_at(), Some(at(4)));
    assert_eq!(t.0.ended_at(), Some(at(6)));
}

#[test]
fn a_challenged_invite_does_not_fail_the_call() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);

    assert_eq!(t.rsp(401, "INVITE", 1), Trying);
    assert_eq!(t.req("ACK", 1, true, 7), Trying);
    assert_eq!(t.req("INVITE", 2, false, 8), Trying);
    assert_eq!(t.rsp(200, "INVITE", 2), Active);
}

#[test]
fn a_challenge_that_nobody_meets_fails_the_call_after_32_s_and_one_met_later_does_not() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.rsp(401, "INVITE", 1);
    t.req("ACK", 1, true, 7);
    assert_eq!(t.0.deadline(), Some(at(34)));
    t.0.handle_timeout(at(34));
    assert_eq!((t.0.state(), t.0.final_status(), t.0.ended_at()), (CallState::Failed, Some(401), Some(at(34))));

    assert_eq!(t.req("INVITE", 2, false, 8), Trying);
    t.0.handle_timeout(at(100));
    assert_eq!(t.rsp(200, "INVITE", 2), Active);
}

#[test]
fn an_error_inside_the_dialog_leaves_the_call_active() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.rsp(200, "INVITE", 1);

    t.req("INVITE", 2, true, 9);
    assert_eq!(t.rsp(491, "INVITE", 2), Active);
    t.req("INFO", 3, true, 10);
    assert_eq!(t.rsp(415, "INFO", 3), Active);
    t.req("BYE", 4, true, 11);
    assert_eq!(t.rsp(401, "BYE", 4), Active);
}

#[test]
fn one_refused_branch_of_a_fork_does_not_end_the_call() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);

    assert_eq!(t.rsp(486, "INVITE", 1), CallState::Busy);
    assert_eq!(t.rsp(200, "INVITE", 1), Active);
    assert_eq!(t.0.ended_at(), None);
}

#[test]
fn an_answer_of_another_branch_after_the_first_was_hung_up_goes_on() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.step("INVITE", Some(200), 1, [1, 2], 7);
    t.step("BYE", None, 2, [1, 2], 8);
    assert_eq!(t.step("BYE", Some(200), 2, [1, 2], 8), Ended);

    assert_eq!(t.step("INVITE", Some(200), 1, [1, 2], 7), Ended, "repeated");
    assert_eq!(t.step("INVITE", Some(200), 1, [1, 3], 7), Active);
    assert_eq!(t.0.ended_at(), None);
    assert_eq!(t.step("BYE", None, 3, [1, 3], 9), Ending);
}

#[test]
fn of_two_answers_to_a_forked_invite_the_one_nobody_hung_up_on_goes_on() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.step("INVITE", Some(200), 1, [1, 2], 7);
    t.step("INVITE", Some(200), 1, [1, 3], 7);

    assert_eq!(t.step("BYE", None, 2, [1, 3], 8), Active);
    assert_eq!(t.step("BYE", Some(200), 2, [1, 3], 8), Active);
    assert_eq!(t.step("BYE", None, 2, [1, 3], 8), Active, "repeated");
    assert_eq!(t.step("BYE", None, 1, [2, 1], 9), Ending, "from the callee");
    assert_eq!(t.step("BYE", Some(200), 1, [2, 1], 9), Ended);
}

#[test]
fn the_answer_to_a_re_invite_of_the_callee_with_the_same_number_is_no_other_dialog() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.step("INVITE", Some(200), 1, [1, 2], 7);
    t.step("INVITE", None, 1, [2, 1], 8);
    t.step("INVITE", Some(200), 1, [2, 1], 8);

    assert_eq!(t.step("BYE", None, 2, [1, 2], 9), Ending);
}

#[test]
fn a_challenged_bye_leaves_its_dialog_alive() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.step("INVITE", Some(200), 1, [1, 2], 7);
    t.step("BYE", None, 2, [1, 2], 8);
    t.step("BYE", Some(401), 2, [1, 2], 8);
    t.step("INVITE", Some(200), 1, [1, 3], 7);

    assert_eq!(t.step("BYE", None, 2, [1, 3], 9), Active);
    assert_eq!(t.step("BYE", None, 3, [1, 2], 10), Ending);
}

#[test]
fn the_ack_of_a_challenge_is_no_answer_whatever_its_branch() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.rsp(401, "INVITE", 1);

    assert_eq!(t.req("ACK", 1, true, 8), Trying);
}

#[test]
fn an_answer_that_crosses_a_cancel_wins() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.req("CANCEL", 1, false, 7);

    assert_eq!(t.rsp(200, "CANCEL", 1), Trying);
    assert_eq!(t.rsp(200, "INVITE", 1), Active);
}

#[test]
fn a_cancelled_call_is_cancelled_by_487_or_by_silence() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.req("CANCEL", 1, false, 7);
    let mut silent = t.0.clone();

    assert_eq!(t.rsp(487, "INVITE", 1), CallState::Cancelled);
    silent.handle_timeout(at(40));
    assert_eq!(silent.state(), CallState::Cancelled);
}

#[test]
fn the_ack_of_a_refusal_is_no_answer_even_when_it_overtakes_it() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);

    assert_eq!(t.req("ACK", 1, true, 7), Trying);
    assert_eq!(t.rsp(486, "INVITE", 1), CallState::Busy);
}

#[test]
fn an_ack_without_its_answer_says_there_was_one() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);

    assert_eq!(t.req("ACK", 1, true, 8), Active);
}

#[test]
fn a_redirected_call_says_so() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);

    assert_eq!(t.rsp(302, "INVITE", 1), CallState::Redirected);
    assert_eq!(t.req("INVITE", 2, false, 8), Trying);
}

#[test]
fn an_unanswered_bye_ends_after_the_transaction_timeout() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.rsp(200, "INVITE", 1);
    t.req("BYE", 2, true, 9);

    t.0.handle_timeout(at(10));
    assert_eq!(t.0.state(), Ending);
    t.0.handle_timeout(at(60));
    assert_eq!(t.0.state(), Ended);
}

#[test]
fn a_repeated_bye_does_not_move_the_end() {
    let mut t = Talk::new();
    t.req("INVITE", 1, false, 7);
    t.rsp(200, "INVITE", 1);
    t.req("BYE", 2, true, 9);
    let end = t.0.ended_at();

    t.req("BYE", 2, true, 9);
    t.req("BYE", 1, true, 10);

    assert_eq!((t.0.state(), t.0.ended_at()), (Ending, end));
}

#[test]
fn registrations_and_messages_are_no_calls() {
    let mut t = Talk::new();
    t.req("REGISTER", 1, false, 7);
    assert_eq!(t.rsp(200, "REGISTER", 1), CallState::Registration);
    let mut t = Talk::new();
    t.req("MESSAGE", 1, false, 7);
    assert_eq!(t.rsp(202, "MESSAGE", 1), CallState::Message);
    let mut t = Talk::new();
    assert_eq!(t.req("OPTIONS", 1, false, 7), CallState::Other);
}

#[test]
fn an_answer_to_a_method_nobody_knows_is_the_status_of_its_transaction() {
    let mut t = Talk::new();
    t.req("FROBNICATE", 7, false, 1);

    assert_eq!(t.rsp(501, "FROBNICATE", 7), CallState::Other);
    assert_eq!(t.0.final_status(), Some(501));
}
