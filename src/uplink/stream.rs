//! The data stream: sealed batches go out as they are, under the same gRPC method as any other peer's.
//!
//! ```text
//! Backlog ─poll_send─▶ SendBody (http body) ─▶ HTTP/2 ─▶ processor
//!    ▲                                                       │
//!    └─ ack · credit · pause ◀─ Deframer ◀─ response body ◀──┘
//! ```

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use prost::Message;
use tonic::Status;
use tower::{Service, ServiceExt};

use super::backlog::{Backlog, Connection, Credit, Outgoing, PeerKind};
use super::channel::Link;
use super::legacy::Legacy;
use crate::batch::{BatchKey, BatchSeq, Epoch, with_ranges};
use crate::telemetry::Said;
use crate::wire::data::{FlowControl, StreamControl};
use crate::wire::frame::Deframer;

/// The gRPC method.
const PATH: &str = "/lippycat.data.DataService/StreamPackets";
/// A `StreamControl` is a handful of numbers and perhaps a sentence.
const CONTROL_MAX: usize = 64 << 10;

/// What goes out: batches as the backlog gives them.
pub(super) struct SendBody {
    backlog: Arc<Backlog>,
    connection: Connection,
    legacy: Option<Legacy>,
    pieces: VecDeque<Bytes>,
}

impl SendBody {
    fn encode(&mut self, out: &Outgoing) {
        match &self.legacy {
            Some(legacy) => self.pieces.push_back(legacy.encode(out)),
            None => self.pieces.extend(with_ranges(&out.batch, &out.ranges, out.elsewhere).into_iter().filter(|p| !p.is_empty())),
        }
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match this.backlog.poll_send(this.connection, cx) {
                Poll::Ready(Some(out)) => this.encode(&out),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Streams until the peer ends it or `hang_up` has emptied it.
///
/// # Errors
/// What the peer or the network said.
pub(super) async fn run(
    mut channel: Link,
    backlog: Arc<Backlog>,
    connection: Connection,
    kind: PeerKind,
    legacy: Option<Legacy>,
) -> Result<(), Status> {
    let body = SendBody { backlog: Arc::clone(&backlog), connection, legacy, pieces: VecDeque::new() };
    let request = http::Request::builder()
        .method(http::Method::POST)
        .version(http::Version::HTTP_2)
        .uri(PATH)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(tonic::body::Body::new(body))
        .map_err(|e| Status::internal(e.to_string()))?;
    let ready = channel.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let response = ready.call(request).await.map_err(|e| Status::unavailable(e.to_string()))?;
    let (parts, body) = response.into_parts();
    check_head(parts.status, &parts.headers)?;
    read(body, &backlog, connection, kind).await
}

/// A peer that is no gRPC server says so here.
fn check_head(status: http::StatusCode, headers: &HeaderMap) -> Result<(), Status> {
    if let Some(status) = Status::from_header_map(headers)
        && status.code() != tonic::Code::Ok
    {
        return Err(status);
    }
    if status != http::StatusCode::OK {
        return Err(Status::unavailable(format!("HTTP status {status} instead of a gRPC answer: is this a processor?")));
    }
    let encoding = headers.get("grpc-encoding").map(http::HeaderValue::as_bytes);
    if encoding.is_some_and(|e| e != b"identity") {
        return Err(Status::unimplemented("the processor compresses its answers, which was not agreed"));
    }
    Ok(())
}

async fn read(body: tonic::body::Body, backlog: &Backlog, connection: Connection, kind: PeerKind) -> Result<(), Status> {
    let mut body = std::pin::pin!(body);
    let mut frames = Deframer::new(CONTROL_MAX);
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame?;
        match frame.into_data() {
            Ok(data) => {
                frames.push(data);
                while let Some(message) = frames.next().map_err(|e| Status::internal(e.to_string()))? {
                    let control = StreamControl::decode(message).map_err(|e| Status::internal(e.to_string()))?;
                    apply(&control, backlog, connection, kind);
                }
            }
            Err(frame) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map)
                    && status.code() != tonic::Code::Ok
                {
                    return Err(status);
                }
            }
        }
    }
    Ok(())
}

fn apply(control: &StreamControl, backlog: &Backlog, connection: Connection, kind: PeerKind) {
    match kind {
        PeerKind::Extended if control.epoch != 0 => {
            let (epoch, seq) = (Epoch(control.epoch), BatchSeq(control.ack_sequence));
            if control.hunter_id.is_empty() {
                backlog.ack(connection, epoch, seq);
            } else {
                let key = BatchKey { hunter: control.hunter_id.as_str().into(), epoch, seq };
                backlog.ack_key(connection, &key, BatchSeq(control.ack_from));
            }
        }
        PeerKind::Plain if control.ack_sequence != 0 => backlog.ack_plain(connection, BatchSeq(control.ack_sequence)),
        PeerKind::Extended | PeerKind::Plain => {}
    }
    if control.credit_batches != 0 || control.credit_bytes != 0 {
        let usual = Credit::default();
        let batches = if control.credit_batches == 0 { usual.batches } else { control.credit_batches };
        let bytes = if control.credit_bytes == 0 { usual.bytes } else { control.credit_bytes };
        backlog.set_credit(Credit { batches, bytes });
    }
    match control.flow_control() {
        // the sending, never the capture
        FlowControl::FlowPause => backlog.pause(true),
        FlowControl::FlowResume => {
            backlog.slow(false);
            backlog.pause(false);
        }
        flow @ (FlowControl::FlowContinue | FlowControl::FlowSlow) => {
            backlog.slow(flow == FlowControl::FlowSlow);
            backlog.go_on();
        }
    }
    if !control.error.is_empty() {
        tracing::warn!(error = %Said(&control.error), "the processor reports an error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::BacklogConfig;

    #[test]
    fn flow_control_is_obeyed() {
        let backlog = Backlog::new(BacklogConfig::default());
        let connection = backlog.begin(PeerKind::Extended, &[]);
        let mut states = Vec::new();
        for flow in ["SLOW", "CONTINUE", "PAUSE", "CONTINUE", "SLOW", "RESUME", "PAUSE"] {
            let flow = FlowControl::from_str_name(&format!("FLOW_{flow}")).unwrap();
            let control = StreamControl { flow_control: flow.into(), ..StreamControl::default() };
            apply(&control, &backlog, connection, PeerKind::Extended);
            let s = backlog.snapshot();
            states.push((s.slow, s.paused));
        }
        backlog.begin(PeerKind::Extended, &[]);
        let s = backlog.snapshot();

        let (t, f) = (true, false);
        assert_eq!(states, [(t, f), (f, f), (f, t), (f, t), (t, t), (f, f), (f, t)]);
        assert_eq!((s.slow, s.paused), (f, f), "another connection begins anew");
    }
}
