//! gRPC's message framing over an HTTP/2 body, for the streams that carry their own bytes.
//!
//! ```text
//! 0        1                5
//! +--------+----------------+---------------- … --+
//! | flag 0 | length (be 32) | message             |
//! +--------+----------------+---------------- … --+
//! ```
//!
//! Promises: a message that lies whole in one received piece is a slice of it; one that is spread is copied together once;
//! never more than one message of the limit is buffered. Refuses: compressed messages, and messages above the limit before
//! anything is allocated for them.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Length of the prefix.
const PREFIX: usize = 5;
/// Room made for a message before its bytes have come: four of the usual ones. A larger one is copied together again as it grows, so that
/// nobody takes memory by announcing.
const ROOM: usize = 256 << 10;

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The peer compressed although nobody offered it.
    #[error("message is compressed, which was not agreed")]
    Compressed,
    /// The peer's message is larger than it may be.
    #[error("message of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Announced size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The stream ended inside a message.
    #[error("stream ended inside a message")]
    Truncated,
}

/// Cuts a body into messages.
#[derive(Debug)]
pub struct Deframer {
    limit: usize,
    /// The piece received last, as far as it is not consumed.
    piece: Bytes,
    /// A message that is spread over pieces, its prefix included.
    spread: BytesMut,
    /// Length of the message in `spread`, once known.
    wanted: Option<usize>,
}

impl Deframer {
    /// Messages may have up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, piece: Bytes::new(), spread: BytesMut::new(), wanted: None }
    }

    /// Adds what the body gave next. Take all messages first: what is still unread is kept, copied.
    pub fn push(&mut self, piece: Bytes) {
        if !self.piece.is_empty() {
            self.spread.extend_from_slice(&self.piece);
        }
        self.piece = piece;
    }

    /// The next whole message, or `None` when more of the body is needed.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use after one.
    #[expect(clippy::should_implement_trait, reason = "a fallible step of a parser, not an iterator")]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.spread.is_empty() {
            let Some(head) = self.piece.first_chunk::<PREFIX>() else {
                self.keep();
                return Ok(None);
            };
            let len = self.checked_len(*head)?;
            let end = PREFIX.saturating_add(len);
            if self.piece.len() < end {
                self.wanted = Some(len);
                self.spread.reserve(end.min(ROOM));
                self.keep();
                return Ok(None);
            }
            let mut message = self.piece.split_to(end);
            message.advance(PREFIX);
            return Ok(Some(message));
        }
        if self.wanted.is_none() {
            self.take(PREFIX);
            let Some(head) = self.spread.first_chunk::<PREFIX>() else {
                return Ok(None);
            };
            let len = self.checked_len(*head)?;
            self.wanted = Some(len);
        }
        let end = PREFIX.saturating_add(self.wanted.unwrap_or_default());
        self.take(end);
        if self.spread.len() < end {
            return Ok(None);
        }
        self.wanted = None;
        let mut message = self.spread.split_to(end).freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// The body has ended.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it did so inside a message.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.piece.is_empty() && self.spread.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }

    fn checked_len(&self, [flag, length @ ..]: [u8; PREFIX]) -> Result<usize, FrameError> {
        let bytes = u32::from_be_bytes(length) as usize;
        match flag {
            0 if bytes <= self.limit => Ok(bytes),
            0 => Err(FrameError::TooLarge { bytes, limit: self.limit }),
            _ => Err(FrameError::Compressed),
        }
    }

    fn keep(&mut self) {
        self.spread.extend_from_slice(&self.piece);
        self.piece = Bytes::new();
    }

    /// Moves bytes over until `spread` has `len` of them or the piece is used up.
    fn take(&mut self, len: usize) {
        let n = len.saturating_sub(self.spread.len()).min(self.piece.len());
        self.spread.extend_from_slice(&self.piece.split_to(n));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_in_one_piece_is_not_copied() {
        let body = Bytes::from(framed(&[vec![7; 100]]));
        let mut frames = Deframer::new(1000);

        frames.push(body.clone());
        let message = frames.next().unwrap().unwrap();

        assert_eq!(message.as_ptr(), body[5..].as_ptr());
        assert_eq!(frames.next(), Ok(None));
        assert_eq!(frames.finish(), Ok(()));
    }

    #[test]
    fn a_message_above_the_limit_is_refused_by_its_length() {
        let mut frames = Deframer::new(1000);

        frames.push(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]));

        assert_eq!(frames.next(), Err(FrameError::TooLarge { bytes: 0xffff_ffff, limit: 1000 }));
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let mut frames = Deframer::new(1000);

        frames.push(Bytes::from_static(&[1, 0, 0, 0, 1, 9]));

        assert_eq!(frames.next(), Err(FrameError::Compressed));
    }

    #[test]
    fn an_end_inside_a_message_is_told() {
        let mut frames = Deframer::new(1000);

        frames.push(Bytes::from_static(&[0, 0, 0, 0, 3, 9]));

        assert_eq!(frames.next(), Ok(None));
        assert_eq!(frames.finish(), Err(FrameError::Truncated));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in prop::collection::vec(1_usize..20, 1..20),
        ) {
            let mut body = Bytes::from(framed(&messages));
            let mut frames = Deframer::new(40);
            let mut got = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !body.is_empty() {
                frames.push(body.split_to((*cuts.next().unwrap()).min(body.len())));
                while let Some(message) = frames.next().unwrap() {
                    got.push(message.to_vec());
                }
            }
            prop_assert_eq!(frames.finish(), Ok(()));
            prop_assert_eq!(got, messages);
        }
    }

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        messages.iter().flat_map(|m| [&crate::batch::grpc_prefix(m.len())[..], m].concat()).collect()
    }
}
