//! What a monitor asks for, checked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tonic::Status;

use super::Monitors;
use crate::batch::PacketView;
use crate::capture::{BpfFilter, Libpcap};
use crate::packet::{Frame, InterfaceId, LinkType};
use crate::processor::filters::listed;
use crate::processor::roster::ID_MAX;
use crate::processor::topology::aside;
use crate::wire::data::SubscribeRequest;

/// Bytes of all ids asked for: as many hunters as a processor usually takes, with the longest ids.
const IDS_MAX: usize = 256 << 10;
/// Who waits to compile asks again after this.
const TURN: Duration = Duration::from_millis(10);
/// A filter is compiled for each of these; packets of others do not pass it.
const LINKS: [LinkType; 8] = [
    LinkType::ETHERNET,
    LinkType::LINUX_SLL,
    LinkType::LINUX_SLL2,
    LinkType::RAW,
    LinkType::IPV4,
    LinkType::IPV6,
    LinkType::NULL,
    LinkType::LOOP,
];

/// What a monitor asks for.
#[derive(Debug)]
pub(super) struct Wish {
    /// What it calls itself; for the log.
    pub(super) client: String,
    /// Whose packets; none: everybody's.
    hunters: Option<HashSet<String>>,
    /// As it was written; empty: there is none.
    pub(super) expression: String,
    filter: Option<BpfFilter>,
    /// Whether it reads contexts.
    pub(super) contexts: bool,
}

impl Wish {
    /// Checks a request.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: what is wrong with it.
    pub(super) async fn of(request: SubscribeRequest, monitors: &Monitors) -> Result<Self, Status> {
        let SubscribeRequest { hunter_ids, bpf_filter, client_id, has_hunter_filter, contexts } = request;
        if client_id.len() > ID_MAX {
            return Err(Status::invalid_argument(format!("a client_id of {} bytes; the limit is {ID_MAX}", client_id.len())));
        }
        let bytes = hunter_ids.iter().map(String::len).fold(0, usize::saturating_add);
        if bytes > IDS_MAX {
            return Err(Status::invalid_argument(format!("{bytes} bytes of hunter_ids; the limit is {IDS_MAX}")));
        }
        let expression = bpf_filter.trim().to_owned();
        let filter = if expression.is_empty() { None } else { Some(compile(&expression, monitors).await?) };
        let hunters = has_hunter_filter.then(|| hunter_ids.into_iter().collect());
        Ok(Self { client: client_id, hunters, expression, filter, contexts })
    }

    /// One of the hunters it names of which nothing is `seen`.
    pub(super) fn beyond(&self, seen: impl Fn(&str) -> bool) -> Option<&String> {
        self.hunters.as_ref()?.iter().find(|id| !seen(id))
    }

    /// Whether packets of this hunter are wanted.
    pub(super) fn wants(&self, hunter: &str) -> bool {
        self.hunters.as_ref().is_none_or(|all| all.contains(hunter))
    }

    /// Whether every packet is wanted.
    pub(super) const fn is_open(&self) -> bool {
        self.filter.is_none()
    }

    /// Whether this packet is wanted.
    pub(super) fn passes(&self, p: &PacketView<'_>) -> bool {
        let frame = Frame { ts: p.ts(), wire_len: p.wire_len(), link: p.link(), interface: InterfaceId(0), data: p.data() };
        self.filter.as_ref().is_none_or(|filter| filter.test(&frame))
    }

    /// Whose packets, for the log.
    pub(super) fn hunters(&self) -> String {
        let Some(hunters) = &self.hunters else { return "all".to_owned() };
        let mut ids: Vec<String> = hunters.iter().cloned().collect();
        ids.sort_unstable();
        if ids.is_empty() { "none".to_owned() } else { listed(&ids) }
    }
}

/// Filters of monitors have the bounds of those of hunters, so a turn comes soon.
async fn compile(expression: &str, monitors: &Monitors) -> Result<BpfFilter, Status> {
    // asked for again and again, not waited for in a queue: a place there may fall to somebody who is not asked to go on for long
    let turn = loop {
        match Arc::clone(&monitors.compiling).try_acquire_owned() {
            Ok(turn) => break turn,
            Err(_taken) => sleep(TURN).await,
        }
    };
    let text = expression.to_owned();
    let compiled = aside(move || {
        let compiled = Libpcap.filter(&text, &LINKS);
        drop(turn);
        compiled
    });
    let compiled =
        compiled.await.ok_or_else(|| Status::internal("compiling the filter failed; this is a bug, please report it"))?;
    compiled.map_err(|e| Status::invalid_argument(format!("{e}; bpf_filter takes what pcap-filter(7) describes")))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_monitor_whose_connection_takes_nothing_keeps_nobody_from_compiling() {
        let monitors = Monitors::default();
        let taken = Arc::clone(&monitors.compiling).try_acquire_owned().unwrap();
        let mut stalled = pin!(compile("udp", &monitors));
        assert!(stalled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(taken);

        let next = tokio::time::timeout(Duration::from_mins(1), compile("tcp", &monitors)).await;
        assert!(next.is_ok_and(|filter| filter.is_ok()));
    }
}
