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

    /// Whether its first request was seen; what is no call has no other.
    pub const fn is_begun(&self) -> bool {
        self.invite_cseq.is_some() || !self.state.is_call() || matches!(self.state, CallState::RtpOnly)
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

    /// Notes an answered dialog. One that comes when all others have been hung up is talked on in, until its own BYE.
    fn note_answer(&mut self, dialog: u64) {
        if dialog == 0 || self.answers.len() >= ANSWERS || self.answers.iter().any(|a| a.dialog == dialog) {
            return;
        }
        if !self.answers.is_empty() && matches!(self.state, CallState::Ending | CallState::Ended) {
            self.state = CallState::Active;
            self.ended_at = None;
            self.deadline = None;
        }
        self.answers.push(Answer { dialog, over: false });
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
mod tests;
