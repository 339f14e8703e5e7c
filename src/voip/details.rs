//! What a record tells of a call beside its counts: who, by every name; how the set-up went; why it ended.
//!
//! Promises: bounded lists, bounded texts. Refuses: credentials other than the user name.

use crate::field::Field;
use crate::packet::Timestamp;
use crate::protocols::sip::{self, HeaderName, Message, NameAddr, Start};

use super::event::IdentityFact;
use super::message::text;
use super::state::Step;

/// Identities kept.
const IDENTITIES: usize = 32;
/// Dialogs kept; a fork to more is told as this many.
const DIALOGS: usize = 16;
/// Bytes kept of one text.
const TEXT: usize = 1024;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// From of the first message.
    pub from: Side,
    /// To of the first message.
    pub to: Side,
    /// Request-URI of the first request.
    pub request_uri: Box<str>,
    /// Identities other than From, To and Request-URI, each once.
    pub identities: Vec<IdentityFact>,
    /// Dialogs the caller's INVITE made.
    pub dialogs: Vec<Dialog>,
    /// First provisional answer above 100.
    pub ringing: Option<Timestamp>,
    /// Why it ended: the Reason header (RFC 3326), else the phrase of the refusal.
    pub reason: Box<str>,
}

/// One side of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Display name.
    pub display: Box<str>,
    /// URI as written.
    pub uri: Box<str>,
}

/// One dialog (RFC 3261 §12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// The caller's tag.
    pub from_tag: Box<str>,
    /// The callee's tag.
    pub to_tag: Box<str>,
    /// Where it stands.
    pub state: DialogState,
}

/// Where a dialog stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogState {
    /// A provisional answer made it.
    Early,
    /// A 2xx made or confirmed it.
    Confirmed,
    /// BYE, or a refusal while it was early.
    Terminated,
}

impl DialogState {
    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Confirmed => "confirmed",
            Self::Terminated => "terminated",
        }
    }
}

impl Details {
    /// Takes one message; `from_caller`: its transaction is one of the caller's.
    pub(super) fn note(&mut self, msg: &Message<'_>, step: &Step<'_>, from_caller: bool) {
        if self.from.uri.is_empty() && self.to.uri.is_empty() {
            self.from = msg.from().map(|a| side(&a)).unwrap_or_default();
            self.to = msg.to().map(|a| side(&a)).unwrap_or_default();
        }
        if let Start::Request { uri, .. } = msg.start()
            && self.request_uri.is_empty()
        {
            self.request_uri = cut(&sip::without_password(uri));
        }
        self.note_identities(msg);
        match (step.method, step.status) {
            (b"INVITE", Some(status)) if from_caller => self.note_answer(msg, status, step.ts),
            (b"BYE", None) => {
                let tags = [msg.from(), msg.to()].map(|a| a.and_then(|a| a.tag().map(cut)).unwrap_or_default());
                for d in self.dialogs.iter_mut().filter(|d| tags.contains(&d.from_tag) && tags.contains(&d.to_tag)) {
                    d.state = DialogState::Terminated;
                }
                self.note_reason(msg, &[]);
            }
            (b"CANCEL", None) => self.note_reason(msg, &[]),
            _ => {}
        }
    }

    fn note_answer(&mut self, msg: &Message<'_>, status: u16, ts: Timestamp) {
        let phrase = match msg.start() {
            Start::Response { reason, .. } => reason,
            Start::Request { .. } => &[],
        };
        match status {
            101..=199 => {
                self.ringing.get_or_insert(ts);
                self.note_dialog(msg, DialogState::Early);
            }
            200..=299 => {
                self.note_dialog(msg, DialogState::Confirmed);
                self.reason = Box::default();
            }
            // a challenge is no end
            401 | 407 => {}
            300..=699 => {
                // RFC 3261 §12.3; a refused re-INVITE finds no early dialog
                for d in self.dialogs.iter_mut().filter(|d| d.state == DialogState::Early) {
                    d.state = DialogState::Terminated;
                }
                if !self.dialogs.iter().any(|d| d.state == DialogState::Confirmed) {
                    self.note_reason(msg, phrase);
                }
            }
            _ => {}
        }
    }

    fn note_dialog(&mut self, msg: &Message<'_>, state: DialogState) {
        let tag = |a: Option<NameAddr<'_>>| a.and_then(|a| a.tag().map(cut));
        let (Some(from_tag), Some(to_tag)) = (tag(msg.from()), tag(msg.to())) else { return };
        let room = self.dialogs.len() < DIALOGS;
        match self.dialogs.iter_mut().find(|d| d.from_tag == from_tag && d.to_tag == to_tag) {
            Some(d) if d.state == DialogState::Early => d.state = state,
            None if room => self.dialogs.push(Dialog { from_tag, to_tag, state }),
            Some(_) | None => {}
        }
    }

    fn note_reason(&mut self, msg: &Message<'_>, phrase: &[u8]) {
        let said = msg.first(HeaderName::Reason);
        let said = said.as_deref().unwrap_or(phrase);
        if !said.is_empty() {
            self.reason = cut(said);
        }
    }

    fn note_identities(&mut self, msg: &Message<'_>) {
        sip::identities(msg, &mut |field, who| {
            if matches!(field, Field::SipFrom | Field::SipTo | Field::SipRequestUri) || self.identities.len() >= IDENTITIES {
                return;
            }
            let same =
                |f: &IdentityFact| f.field == field.name() && f.user.as_bytes() == who.user && f.host.as_bytes() == who.host;
            if !self.identities.iter().any(same) {
                let (user, host) = (cut(who.user).into_string(), cut(who.host).into_string());
                let fact = IdentityFact { field: field.name(), user, host };
                if !self.identities.contains(&fact) {
                    self.identities.push(fact);
                }
            }
        });
    }
}

fn side(a: &NameAddr<'_>) -> Side {
    Side { display: cut(&a.display()), uri: cut(&sip::without_password(a.uri_bytes())) }
}

fn cut(bytes: &[u8]) -> Box<str> {
    text(bytes.get(..TEXT).unwrap_or(bytes)).into()
}
