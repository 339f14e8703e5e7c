//! What is done for calls beside writing their packets: those of an earlier process are read again, files of those that are over are closed, records
//! renewed. All of it in portions, since packets wait meanwhile: with many calls it takes more than one tick.

use std::sync::Arc;

use super::super::replay::replay;
use super::{SHARE, Writer};
use crate::packet::{Frame, Timestamp};
use crate::record::RecordError;
use crate::record::calls::{CallFiles, History};
use crate::telemetry::clock::{self, Moment};

impl Writer {
    /// Reads calls of an earlier process again. Where it knew more than this one may, those go that would make room, and no other is touched.
    pub(super) fn go_on_with_calls(&mut self) -> Result<(), RecordError> {
        let began = Moment::now();
        loop {
            if self.out.calls.as_mut().map_or(Ok(false), CallFiles::evict_beyond)? {
                self.save_finished()?;
            } else if let Some(id) = self.calls.next_unread() {
                self.read_again(&id);
                self.make_room()?;
            } else {
                return Ok(());
            }
            if began.elapsed() >= SHARE {
                return Ok(());
            }
        }
    }

    /// Closes calls that are over, and renews records.
    pub(super) fn look_at_calls(&mut self, now: Timestamp) {
        let began = Moment::now();
        let shared = Arc::clone(&self.shared);
        self.calls.note_there(now, |hunter| shared.has_sent_all(hunter));
        loop {
            for due in self.calls.due(now, self.out.grace) {
                if due.close {
                    self.close_call(&due.call_id, false);
                } else {
                    self.save_record(&due.call_id);
                }
                if began.elapsed() >= SHARE {
                    return self.calls.go_on_after(&due.call_id);
                }
            }
            if self.calls.is_round() || began.elapsed() >= SHARE {
                return;
            }
        }
    }

    /// Learns from a call's files what an earlier process knew of it.
    pub(super) fn read_again(&mut self, call_id: &str) {
        let history = self.out.calls.as_ref().map(|files| files.history(call_id.as_bytes())).unwrap_or_default();
        self.read_history(call_id, history);
    }

    /// The same, where its files are known; nothing, where that is known of it already.
    pub(super) fn read_history(&mut self, call_id: &str, history: Vec<History>) {
        if !self.calls.is_unread(call_id) {
            return;
        }
        if history.is_empty() {
            tracing::warn!(
                "a call's last record could not be written before the stop, and its files are no longer known; it stays as it is"
            );
        }
        let (mut packets, mut troubles) = (0_u64, 0_u64);
        self.calls.read_again(call_id, clock::wall(), |each| {
            let mut each = |hunter: &Arc<str>, sip, frame: &Frame<'_>| {
                packets = packets.saturating_add(1);
                each(hunter, sip, frame);
            };
            replay(history, &mut each, &mut |e| {
                troubles = troubles.saturating_add(1);
                tracing::debug!(error = %e, "a call's file could not be read again");
            });
        });
        if let Some(files) = &mut self.out.calls {
            files.note_known(call_id.as_bytes(), self.calls.weight(call_id));
        }
        if troubles > 0 {
            tracing::warn!(files = troubles, "files of a call could not be read again after the restart; its record says less");
        }
        tracing::debug!(packets, "a call was read again after the restart");
    }
}
