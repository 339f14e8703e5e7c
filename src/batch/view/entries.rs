//! What a batch holds, entry by entry: its packets, their contexts, and what is declared as missing.

use std::borrow::Cow;

use bytes::Bytes;

use super::{BatchView, RawContext, RawLegacy, RawPacket, Span, count};
use crate::batch::BatchSeq;
use crate::batch::legacy::{LegacyMeta, LegacyRtp, LegacySip};
use crate::packet::{LinkType, Timestamp};

/// Sealed batches the sender gave up; see [`crate::batch::DroppedRange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedView<'a> {
    /// The first of them.
    pub from: BatchSeq,
    /// The last of them.
    pub to: BatchSeq,
    /// Packets in them.
    pub packets: u64,
    /// Why, in the sender's word.
    pub reason: &'a str,
}

/// Whose a packet is.
#[derive(Clone, Copy, Debug)]
pub struct ContextView<'a> {
    pub(super) view: &'a BatchView,
    pub(super) raw: &'a RawContext,
}

impl<'a> ContextView<'a> {
    /// The call.
    pub fn call_id(&self) -> &'a str {
        self.raw.call_id.text(&self.view.message)
    }

    /// The filters that chose it.
    pub fn filter_ids(&self) -> impl ExactSizeIterator<Item = &'a str> + Clone + use<'a> {
        self.view.texts(self.raw.filters_start, self.raw.filters_len)
    }

    /// The leg, or nothing.
    pub fn leg(&self) -> &'a str {
        self.raw.leg.text(&self.view.message)
    }

    /// The evidence by which media belongs to the call, or nothing.
    pub fn claim(&self) -> &'a str {
        self.raw.claim.text(&self.view.message)
    }

    /// By which rule a phone number filter chose the call, or nothing.
    pub fn phone_rule(&self) -> &'a str {
        self.raw.phone_rule.text(&self.view.message)
    }

    /// What is missing of the call, or nothing.
    pub fn holes(&self) -> &'a str {
        self.raw.holes.text(&self.view.message)
    }
}

/// One packet of a batch.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    pub(super) view: &'a BatchView,
    pub(super) raw: &'a RawPacket,
}

impl<'a> PacketView<'a> {
    /// The captured bytes.
    pub fn data(&self) -> &'a [u8] {
        self.raw.data.of(&self.view.message)
    }

    /// The captured bytes, sharing the batch's memory: they keep the whole batch alive.
    pub fn data_bytes(&self) -> Bytes {
        let Span { start, end } = self.raw.data;
        let len = self.view.message.len();
        self.view.message.slice((start as usize).min(len)..(end as usize).min(len))
    }

    /// Capture time.
    pub const fn ts(&self) -> Timestamp {
        Timestamp::from_nanos(self.raw.ts)
    }

    /// Length on the wire; never below the captured length.
    pub fn wire_len(&self) -> u32 {
        self.raw.wire_len.max(count(self.data().len()))
    }

    /// How the data begins. Peers without our extensions mean Ethernet by 0.
    pub fn link(&self) -> LinkType {
        if self.raw.link == 0 && self.view.epoch == 0 {
            return LinkType::ETHERNET;
        }
        LinkType(u16::try_from(self.raw.link).unwrap_or(u16::MAX))
    }

    /// Into the interfaces the hunter registered.
    pub const fn interface_index(&self) -> u32 {
        self.raw.interface
    }

    /// The interface's name, where it came with the packet.
    pub fn interface_name(&self) -> Option<&'a str> {
        let name = self.legacy_raw()?.interface_name.text(&self.view.message);
        (!name.is_empty()).then_some(name)
    }

    /// The call it belongs to.
    pub fn context(&self) -> Option<ContextView<'a>> {
        self.view.context(self.raw.context)
    }

    /// The 1-based index of [`Self::context`] in [`BatchView::contexts`]; 0 for none.
    pub const fn context_index(&self) -> u32 {
        self.raw.context
    }

    /// Further calls it belongs to.
    pub fn shared(&self) -> impl Iterator<Item = ContextView<'a>> + Clone + use<'a> {
        let view = self.view;
        self.shared_indices().iter().filter_map(move |index| view.context(*index))
    }

    /// The 1-based indices of [`Self::shared`] in [`BatchView::contexts`].
    pub fn shared_indices(&self) -> &'a [u32] {
        let start = self.raw.shared_start as usize;
        self.view.shared.get(start..start.saturating_add(self.raw.shared_len as usize)).unwrap_or_default()
    }

    /// Whether it went out before in another batch, for another call.
    pub const fn repeat(&self) -> bool {
        self.raw.repeat
    }

    /// What a peer without our extensions says about it: SIP and RTP metadata.
    pub fn legacy(&self) -> Option<LegacyMeta<'a>> {
        let raw = self.legacy_raw()?;
        if !raw.has_sip && !raw.has_rtp {
            return None;
        }
        let text = |n: usize| Cow::Borrowed(raw.sip.get(n).copied().unwrap_or_default().text(&self.view.message));
        let number = |n: usize| raw.rtp.get(n).copied().unwrap_or_default();
        Some(LegacyMeta {
            sip: raw.has_sip.then(|| LegacySip {
                method: text(1),
                call_id: text(2),
                from_user: text(3),
                to_user: text(4),
                response_code: raw.response_code,
                p_asserted_identity: text(6),
                from_tag: text(7),
                to_tag: text(8),
                from_uri: text(9),
                to_uri: text(10),
                cseq_method: text(13),
            }),
            rtp: raw.has_rtp.then(|| LegacyRtp {
                ssrc: number(1),
                payload_type: number(2),
                sequence: number(3),
                timestamp: number(4),
            }),
        })
    }

    /// The filters a peer without our extensions says it matched.
    pub fn matched_filter_ids(&self) -> impl ExactSizeIterator<Item = &'a str> + Clone + use<'a> {
        let (start, len) = self.legacy_raw().map_or((0, 0), |raw| (raw.filters_start, raw.filters_len));
        self.view.texts(start, len)
    }

    fn legacy_raw(&self) -> Option<&'a RawLegacy> {
        self.view.legacy.get(self.raw.legacy.checked_sub(1)? as usize)
    }
}
