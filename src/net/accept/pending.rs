//! TLS handshakes: so many at once, and of these so many of one address; whoever came meanwhile waits, and begins in its address's turn.
//!
//! A peer that says nothing holds its place until its time is over. So that it delays nobody else, the places of one address are fewer than all.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Those that wait are `W`, a handshake ends as `E`.
pub(super) struct Pending<W, E> {
    most: usize,
    /// Bounded by the connections that may be open.
    waiting: VecDeque<(IpAddr, W)>,
    running: FuturesUnordered<Later<(IpAddr, E)>>,
    /// Whose they are; one for each.
    addresses: Vec<IpAddr>,
}

impl<W, E> Pending<W, E> {
    /// At most `most` at once, one at least.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), waiting: VecDeque::new(), running: FuturesUnordered::new(), addresses: Vec::new() }
    }

    /// How many have begun.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    pub(super) fn wait(&mut self, address: IpAddr, who: W) {
        self.waiting.push_back((address, who));
    }

    /// Who may begin: of the address that has the fewest, the one that came first.
    fn next(&mut self) -> Option<(IpAddr, W)> {
        if self.running.len() >= self.most {
            return None;
        }
        // three quarters: with a few addresses of hostile peers there is still room
        let of_one = self.most.saturating_sub(self.most / 4);
        let has = |address: &IpAddr| self.addresses.iter().filter(|a| *a == address).count();
        let counted = self.waiting.iter().enumerate().map(|(at, (address, _))| (has(address), at));
        let (_, at) = counted.filter(|(has, _)| *has < of_one).min()?;
        self.waiting.remove(at)
    }

    /// Begins what may begin, and yields what has ended.
    pub(super) fn poll_ended<F>(&mut self, cx: &mut Context<'_>, begin: impl Fn(W) -> F) -> Poll<E>
    where
        F: Future<Output = E> + Send + 'static,
    {
        while let Some((address, who)) = self.next() {
            let handshake = begin(who);
            self.addresses.push(address);
            self.running.push(Box::pin(async move { (address, handshake.await) }));
        }
        let Some((address, ended)) = ready!(Pin::new(&mut self.running).poll_next(cx)) else { return Poll::Pending };
        if let Some(at) = self.addresses.iter().position(|a| *a == address) {
            self.addresses.swap_remove(at);
        }
        Poll::Ready(ended)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Who has begun, while none ends.
    fn begun(pending: &mut Pending<u8, ()>) -> Vec<u8> {
        let began = std::cell::RefCell::default();
        let shake = |who| {
            Vec::push(&mut began.borrow_mut(), who);
            std::future::pending()
        };
        assert!(pending.poll_ended(&mut Context::from_waker(Waker::noop()), shake).is_pending());
        began.into_inner()
    }

    #[test]
    fn one_address_leaves_a_quarter_to_others_and_whose_are_fewest_is_next() {
        let mut pending = Pending::new(8);
        (0..10).for_each(|who| pending.wait(address(1), who));
        assert_eq!(begun(&mut pending), [0, 1, 2, 3, 4, 5]);

        for who in [20, 21, 22] {
            pending.wait(address(2), who);
        }
        pending.wait(address(3), 30);
        assert_eq!(begun(&mut pending), [20, 30]);
        assert_eq!((pending.len(), begun(&mut pending)), (8, vec![]), "all places are taken");
    }

    #[test]
    fn who_ends_makes_room_for_the_next() {
        let mut pending = Pending::new(1);
        pending.wait(address(1), 1);
        pending.wait(address(1), 2);
        let mut cx = Context::from_waker(Waker::noop());
        let mut ended = || pending.poll_ended(&mut cx, std::future::ready);

        assert_eq!((ended(), ended(), ended()), (Poll::Ready(1), Poll::Ready(2), Poll::Pending));
    }
}
