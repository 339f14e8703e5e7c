//! The sub-messages of a batch and of its packets.

use super::{BatchError, Cursor, RawLegacy, RawRange, Span, metadata};

pub(super) fn read_range(whole: &[u8], span: Span) -> Result<RawRange, BatchError> {
    let mut raw = RawRange::default();
    let mut at = Cursor::within(whole, span);
    while !at.at_end() {
        match at.key()? {
            (1, wire) => raw.from = at.number(wire)?,
            (2, wire) => raw.to = at.number(wire)?,
            (3, wire) => raw.packets = at.number(wire)?,
            (4, wire) => raw.reason = at.text(wire)?,
            (_, wire) => at.skip(wire)?,
        }
    }
    Ok(raw)
}

pub(super) fn read_metadata(raw: &mut RawLegacy, whole: &[u8], span: Span) -> Result<(), BatchError> {
    let mut at = Cursor::within(whole, span);
    while !at.at_end() {
        let (field, wire) = at.key()?;
        match field {
            metadata::SIP => {
                let sip = at.span(wire)?;
                raw.has_sip = true;
                read_sip(raw, whole, sip)?;
            }
            metadata::RTP => {
                let rtp = at.span(wire)?;
                raw.has_rtp = true;
                read_rtp(raw, whole, rtp)?;
            }
            _ => at.skip(wire)?,
        }
    }
    Ok(())
}

fn read_sip(raw: &mut RawLegacy, whole: &[u8], span: Span) -> Result<(), BatchError> {
    let mut at = Cursor::within(whole, span);
    while !at.at_end() {
        let (field, wire) = at.key()?;
        match field {
            5 => raw.response_code = at.number32(wire)?,
            1..=4 | 6..=10 | 13 => {
                let text = at.text(wire)?;
                if let Some(slot) = raw.sip.get_mut(field as usize) {
                    *slot = text;
                }
            }
            _ => at.skip(wire)?,
        }
    }
    Ok(())
}

fn read_rtp(raw: &mut RawLegacy, whole: &[u8], span: Span) -> Result<(), BatchError> {
    let mut at = Cursor::within(whole, span);
    while !at.at_end() {
        let (field, wire) = at.key()?;
        match raw.rtp.get_mut(field as usize) {
            Some(slot) => *slot = at.number32(wire)?,
            None => at.skip(wire)?,
        }
    }
    Ok(())
}
