//! Where RTCP flows when `a=rtcp-mux` is declined: an offer of it holds only if the answer repeats it, else RTCP goes to the port that the
//! offer would have meant without it (RFC 5761 §5.1.1).

use smallvec::SmallVec;

use crate::packet::Endpoint;
use crate::protocols::sdp;

use super::call::CallRef;
use super::table::CallTable;

/// Offers remembered per call: as many as it may hold claims.
const OFFERS: usize = 64;

/// One side's offer to send RTCP on the port of RTP.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfferedMux {
    /// Number of the m-line.
    pub(super) media: u8,
    /// Whether the caller's side offered it.
    pub(super) caller_side: bool,
    /// Where its RTCP is expected if the other side declines.
    pub(super) otherwise: Endpoint,
}

/// Whether the port above RTP's is RTCP's unless RTCP is multiplexed: not when another one is named, and not for what is no RTP.
pub(super) fn rtcp_beside(m: &sdp::Media) -> bool {
    use sdp::Transport::{DtlsSctp, DtlsUdptl, Tcp, Udptl};
    m.rtcp.is_none() && !matches!(m.transport, Udptl | DtlsUdptl | DtlsSctp | Tcp)
}

impl CallTable {
    /// A new description of this m-line takes the place of the last one of that side.
    pub(super) fn forget_offered_mux(&mut self, r: CallRef, media: u8, caller_side: bool) {
        if let Some(call) = self.get_mut(r) {
            call.offered_mux.retain(|o| (o.media, o.caller_side) != (media, caller_side));
        }
    }

    /// Remembers an offer; one too many is counted with the claims it might have become.
    pub(super) fn note_offered_mux(&mut self, r: CallRef, offer: OfferedMux) {
        let Some(call) = self.get_mut(r) else { return };
        if call.offered_mux.len() < OFFERS {
            call.offered_mux.push(offer);
        } else {
            self.counters.claims_refused = self.counters.claims_refused.saturating_add(1);
        }
    }

    /// Where RTCP of this side goes now that the other one has described the m-line without `a=rtcp-mux`.
    pub(super) fn declined_mux(&self, r: CallRef, media: u8, caller_side: bool) -> SmallVec<[Endpoint; 2]> {
        let offers = self.get(r).map_or(&[][..], |call| call.offered_mux.as_slice());
        offers.iter().filter(|o| (o.media, o.caller_side) == (media, caller_side)).map(|o| o.otherwise).collect()
    }
}
