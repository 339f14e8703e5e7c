//! The state of a call, from the messages of one Call-ID (RFC 3261 §12–§17).
//!
//! What decides is the *initial* INVITE transaction and the BYE; nothing else ends a call. A challenge (401, 407) is followed by a new
//! INVITE, an error to a request inside the dialog leaves the dialog alive, one refused branch of a forked INVITE does not fail the
//! call, and an answer that crosses a CANCEL wins. A final state is therefore soft: an INVITE's 2xx or a new INVITE leads out of it. Where several
//! branches of a fork have answered, the caller hangs up on all but one (RFC 3261 §13.2.2.4): the call ends with the last of its dialogs.

use std::time::Duration;

use smallvec::SmallVec;

use crate::packet::Timestamp;

/// Timer B, F and H of RFC 3261 (64·T1): after this long without an answer a transaction is over.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(32);

/// Answered dialogs told apart per call; more answers to one INVITE are not seen apart.
const ANSWERS: usize = 8;

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallState {
    /// Known only from messages that do not say (mid-call join).
    New,
    /// INVITE seen.
    Trying,
    /// 180.
    Ringing,
    /// 183 or another provisional with early media.
    Progress,
    /// Answered.
    Active,
    /// BYE seen, not yet answered.
    Ending,
    /// BYE answered, or nothing came for 32 s.
    Ended,
    /// The INVITE was refused.
    Failed,
    /// CANCEL, confirmed by 487 or by silence.
    Cancelled,
    /// 486 or 600.
    Busy,
    /// 3xx.
    Redirected,
    /// A MESSAGE outside a dialog (RFC 3428).
    Message,
    /// A REGISTER transaction (RFC 3261 §10).
    Registration,
    /// OPTIONS, SUBSCRIBE, NOTIFY, PUBLISH and unknown methods without a call.
    Other,
    /// Media without any signalling.
    RtpOnly,
}

impl CallState {
    /// The name in events and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Trying => "TRYING",
            Self::Ringing => "RINGING",
            Self::Progress => "PROGRESS",
            Self::Active => "ACTIVE",
            Self::Ending => "ENDING",
            Self::Ended => "ENDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Busy => "BUSY",
            Self::Redirected => "REDIRECTED",
            Self::Message => "MESSAGE",
            Self::Registration => "REGISTRATION",
            Self::Other => "OTHER",
            Self::RtpOnly => "RTP-ONLY",
        }
    }

    /// Whether the call is over unless something unusual follows.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Ended | Self::Failed | Self::Cancelled | Self::Busy | Self::Redirected)
    }

    /// Whether this is a call with a set-up, as opposed to a registration, a message or another transaction.
    pub const fn is_call(self) -> bool {
        !matches!(self, Self::Message | Self::Registration | Self::Other)
    }
}

/// What one message says, reduced to what the state machine needs.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Request method, or the `CSeq` method of a response.
    pub method: &'a [u8],
    /// Status code; `None` for a request.
    pub status: Option<u16>,
    /// `CSeq` number; 0 when it could not be read.
    pub cseq: u32,
    /// Whether the To header has a tag.
    pub to_tag: bool,
    /// What the two tags are together, whoever speaks; 0 where one is missing.
    pub dialog: u64,
    /// A hash of the topmost Via branch; 0 when there is none.
    pub branch: u64,
    /// Packet time.
    pub ts: Timestamp,
}

/// The state machine of one Call-ID.
#[derive(Clone, Debug)]
pub struct Machine {
    state: CallState,
    /// `CSeq` number of the newest INVITE without a To tag.
    invite_cseq: Option<u32>,
    /// Branch of that INVITE: the ACK of a refusal repeats it (RFC 3261 §17.1.1.3).
    invite_branch: u64,
    cancelled: bool,
    /// Last final status of the initial INVITE.
    final_status: Option<u16>,
    answered_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    /// When a pending transaction gives up.
    deadline: Option<Timestamp>,
    /// The dialogs that answers to the INVITE have made.
    answers: SmallVec<[Answer; 1]>,
}

/// A dialog made by a 2xx.
#[derive(Clone, Copy, Debug)]
struct Answer {
    /// As [`Step::dialog`].
    dialog: u64,
    /// Whether somebody has hung up on it.
    over: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            state: CallState::New,
            invite_cseq: None,
            invite_branch: 0,
            cancelled: false,
            final_status: None,
            answered_at: None,
            ended_at: None,
            deadline: None,
            answers: SmallVec::new(),
        }
    }
}

impl Machine {
    /// A machine for media that no signalling has explained.
    pub fn rtp_only() -> Self {
        Self { state: CallState::RtpOnly, ..Self::default() }
    }

    /// Where the call is.
    pub const fn state(&self) -> CallState {
        self.state
    }

    /// Final status of the initial INVITE (or of the transaction, for what is no call).
    pub const fn final_status(&self) -> Option<u16> {
        self.final_status
    }

    /// When the call was answered.
    pub const fn answered_at(&self) -> Option<Timestamp> {
        self.answered_at
    }

    /// When the call reached a final state.
    pub const fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }

    /// When [`Self::handle_timeout`] wants to be called, if nothing else comes.
    pub const fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// Takes one message.
    pub fn handle(&mut self, step: &Step<'_>) {
        match step.status {
            None => self.request(step),
            Some(status) => self.response(step, status),
        }
    }

    /// Ends what has waited 32 s for an answer.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let Some(at) = self.deadline.filter(|&at| at <= now) else { return };
        self.deadline = None;
        if self.state == CallState::Ending {
            self.end(CallState::Ended, at);
        } else if self.cancelled && self.answered_at.is_none() {
            self.end(CallState::Cancelled, at);
        } else if self.state == CallState::Trying && matches!(self.final_status, Some(401 | 407)) {
            self.end(CallState::Failed, at);
        }
    }

    fn request(&mut self, s: &Step<'_>) {
        match s.method {
            b"INVITE" if !s.to_tag => self.invite(s),
            b"INVITE" | b"UPDATE" | b"INFO" | b"REFER" | b"PRACK" if self.state == CallState::New => {
                self.state = if s.method == b"PRACK" || s.method == b"UPDATE" { CallState::Progress } else { CallState::Active };
                if self.state == CallState::Active {
                    self.answered_at = Some(s.ts);
                }
            }
            b"ACK" => self.ack(s),
            b"CANCEL" if self.answered_at.is_none() && !self.state.is_final() => {
                self.cancelled = true;
                self.deadline = Some(s.ts.saturating_add(TRANSACTION_TIMEOUT));
                if self.state == CallState::New {
                    self.state = CallState::Trying;
                }
            }
            b"BYE" if self.another_dialog_goes_on(s) => {}
            // the call ended with the first one; a repeated or crossing BYE changes nothing
            b"BYE" if !matches!(self.state, CallState::Ending | CallState::Ended) => {
                self.state = CallState::Ending;
                self.ended_at = Some(s.ts);
                self.deadline = Some(s.ts.saturating_add(TRANSACTION_TIMEOUT));
            }
            b"MESSAGE" if self.state == CallState::New && !s.to_tag => self.state = CallState::Message,
            b"REGISTER" if self.state == CallState::New => self.state = CallState::Registration,
            b"BYE" | b"INVITE" | b"UPDATE" | b"INFO" | b"REFER" | b"PRACK" | b"MESSAGE" | b"REGISTER" => {}
            _ if self.state == CallState::New && !s.to_tag => self.state = CallState::Other,
            _ => {}
        }
    }

    fn invite(&mut self, s: &Step<'_>) {
        let newer = self.invite_cseq.is_none_or(|n| s.cseq > n);
        if self.answered_at.is_some() && !newer {
            return;
        }
        if newer || self.state == CallState::New {
            self.invite_cseq = Some(s.cseq);
            self.invite_branch = s.branch;
            self.cancelled = false;
            self.final_status = None;
            self.deadline = None;
            if self.answered_at.is_none() || self.state.is_final() {
                self.state = CallState::Trying;
                self.answered_at = None;
                self.ended_at = None;
                self.answers.clear();
            }
        }
    }

    /// Notes who hung up on which dialog; true where that one is known and another one stands. A dialog nobody saw answered is all there is.
    fn another_dialog_goes_on(&mut self, s: &Step<'_>) -> bool {
        let Some(answer) = self.answers.iter_mut().find(|a| a.dialog == s.dialog) else { return false };
        answer.over = true;
        self.answers.iter().any(|a| !a.over)
    }

    /// An ACK seen without its 2xx still says that there was one, unless it repeats the INVITE's branch, or that INVITE was refused: then it
    /// acknowledges the refusal.
    fn ack(&mut self, s: &Step<'_>) {
        let refused = self.invite_cseq == Some(s.cseq) && self.final_status.is_some_and(|status| status >= 300);
        let refusal = refused || s.branch != 0 && s.branch == self.invite_branch;
        if refusal || self.answered_at.is_some() || self.state.is_final() || !s.to_tag {
            return;
        }
        if matches!(self.state, CallState::New | CallState::Trying | CallState::Ringing | CallState::Progress) {
            self.answer(s.ts);
        }
    }

    fn response(&mut self, s: &Step<'_>, status: u16) {
        match s.method {
            b"INVITE" if self.is_initial(s) => self.invite_response(s, status),
            b"BYE" => self.bye_response(s, status),
            b"" | b"INVITE" | b"ACK" | b"CANCEL" | b"PRACK" | b"UPDATE" | b"INFO" | b"REFER" => {}
            _ => {
                if self.state == CallState::New {
                    self.state = match s.method {
                        b"MESSAGE" => CallState::Message,
                        b"REGISTER" => CallState::Registration,
                        _ => CallState::Other,
                    };
                }
                if !self.state.is_call() && status >= 200 {
                    self.final_status = Some(status);
                }
            }
        }
    }

    /// A response belongs to the initial INVITE when its `CSeq` says so; joined in mid-call, the first answer seen counts.
    fn is_initial(&self, s: &Step<'_>) -> bool {
        self.invite_cseq.is_none_or(|n| n == s.cseq)
    }

    fn invite_response(&mut self, s: &Step<'_>, status: u16) {
        match status {
            0..=179 if self.state == CallState::New => self.state = CallState::Trying,
            180 if self.before_answer() => self.state = CallState::Ringing,
            181..=199 if self.before_answer() && (status == 183 || self.state != CallState::Ringing) => {
                self.state = CallState::Progress;
            }
            200..=299 => {
                self.final_status = Some(status);
                self.note_answer(s.dialog);
                self.answer(s.ts);
            }
            // a challenge: the client tries again with credentials (RFC 3261 §22), or gives up
            401 | 407 => {
                self.final_status = Some(status);
                if self.before_answer() {
                    self.deadline = Some(s.ts.saturating_add(TRANSACTION_TIMEOUT));
                }
            }
            300..=699 if self.answered_at.is_none() => {
                self.final_status = Some(status);
                let state = match status {
                    300..=399 => CallState::Redirected,
                    486 | 600 => CallState::Busy,
                    487 => CallState::Cancelled,
                    _ => CallState::Failed,
                };
                self.end(state, s.ts);
            }
            _ => {}
        }
    }

    fn bye_response(&mut self, s: &Step<'_>, status: u16) {
        match status {
            401 | 407 if self.state == CallState::Ending => {
                for answer in self.answers.iter_mut().filter(|a| a.dialog == s.dialog) {
                    answer.over = false;
                }
                self.state = CallState::Active;
                self.ended_at = None;
                self.deadline = None;
            }
            200..=699 if matches!(self.state, CallState::Ending | CallState::New) => self.end(CallState::Ended, s.ts),
            _ => {}
        }
    }

    fn note_answer(&mut self, dialog: u64) {
        if dialog != 0 && self.answers.len() < ANSWERS && !self.answers.iter().any(|a| a.dialog == dialog) {
            self.answers.push(Answer { dialog, over: false });
        }
    }

    fn before_answer(&self) -> bool {
        self.answered_at.is_none()
    }

    fn answer(&mut self, at: Timestamp) {
        if self.answered_at.is_none() {
            self.answered_at = Some(at);
            self.ended_at = None;
            self.deadline = None;
            self.state = CallState::Active;
        }
    }

    fn end(&mut self, state: CallState, at: Timestamp) {
        self.state = state;
        self.deadline = None;
        if self.ended_at.is_none() {
            self.ended_at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
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
}
