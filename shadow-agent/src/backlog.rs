//! The bounded queue between the shard threads and the runtime, and the bound on the bytes of all exchanges that are
//! past reassembly and not yet judged.
//!
//! An exchange holds its share of the bound from the moment it is offered until its [`Admitted`] is dropped, that is,
//! until it was compared. It never blocks the shard: what does not fit is given back.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::exchange::Exchange;

/// Exchanges that may wait for a decision at once.
pub const MAX_QUEUED: usize = 8192;

/// The bound is kept in units of this many bytes.
const UNIT: usize = 1024;

/// What an exchange costs beyond its bodies and headers: structures, and the tables made from it.
const OVERHEAD: usize = 1024;

/// An exchange that holds its share of the bound.
#[derive(Debug)]
pub struct Admitted {
    /// The exchange.
    pub exchange: Exchange,
    _room: OwnedSemaphorePermit,
}

/// The shard's end; clones feed the same queue.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<Admitted>,
    room: Arc<Semaphore>,
    /// All of the room, in units.
    units: u32,
}

/// The runtime's end.
#[derive(Debug)]
pub struct Receiver {
    queue: mpsc::Receiver<Admitted>,
}

/// A queue for at most `exchanges`, which together with those being replayed hold at most `bytes`.
#[must_use]
pub fn backlog(exchanges: usize, bytes: usize) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(exchanges.max(1));
    let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new((units as usize).min(Semaphore::MAX_PERMITS)));
    (Sender { queue: sender, room, units }, Receiver { queue: receiver })
}

impl Sender {
    /// Reserves room for `exchange`, without making it visible to the other end yet. One that is larger than all of the
    /// room has it for itself alone, so that no size is always lost.
    ///
    /// # Errors
    /// The exchange, when there is no room.
    pub fn reserve(&self, exchange: Exchange) -> Result<Place<'_>, Box<Exchange>> {
        let units = u32::try_from(weight(&exchange).div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        let room = Arc::clone(&self.room).try_acquire_many_owned(units).ok();
        match room.and_then(|room| Some((room, self.queue.try_reserve().ok()?))) {
            Some((room, slot)) => Ok(Place { slot, admitted: Admitted { exchange, _room: room } }),
            None => Err(Box::new(exchange)),
        }
    }

    /// Whether the other end is gone, so that there will be no room again.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

/// Room that is reserved for one exchange.
#[derive(Debug)]
pub struct Place<'a> {
    slot: mpsc::Permit<'a, Admitted>,
    admitted: Admitted,
}

impl Place<'_> {
    /// Makes the exchange visible to the other end. Enter it in the ledger before.
    pub fn send(self) {
        self.slot.send(self.admitted);
    }
}

impl Receiver {
    /// The next exchange; `None` once every sender is gone and the queue is empty.
    pub async fn next(&mut self) -> Option<Admitted> {
        self.queue.recv().await
    }

    /// Takes no more; what is queued is still to be had.
    pub fn close(&mut self) {
        self.queue.close();
    }
}

fn weight(exchange: &Exchange) -> usize {
    let headers = |headers: &crate::exchange::Headers| -> usize {
        headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum()
    };
    let (request, response) = (&exchange.request, &exchange.response);
    OVERHEAD
        + request.target.len()
        + request.body.len()
        + response.body.len()
        + headers(&request.headers)
        + headers(&response.headers)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Version};

    use super::*;
    use crate::exchange::{ConnectionId, ExchangeId, Headers, Request, Response, Times};

    fn exchange(body: usize) -> Exchange {
        let body = Bytes::from(vec![0; body]);
        let (version, headers, trailers) = (Version::HTTP_11, Headers::default(), Headers::default());
        Exchange {
            id: ExchangeId(1),
            connection: ConnectionId(1),
            client: ([127, 0, 0, 1], 1).into(),
            server: ([127, 0, 0, 1], 2).into(),
            request: Request {
                method: Method::GET,
                target: Bytes::from_static(b"/"),
                version,
                headers: headers.clone(),
                body: Bytes::new(),
                trailers: trailers.clone(),
            },
            response: Response { status: 200, version, headers, body, trailers },
            times: Times::default(),
        }
    }

    #[test]
    fn as_many_exchanges_as_allowed_and_not_one_more() {
        let (sender, _receiver) = backlog(3, 1 << 20);
        for _ in 0..3 {
            sender.reserve(exchange(0)).unwrap().send();
        }
        assert!(sender.reserve(exchange(0)).is_err());
    }

    #[tokio::test]
    async fn bytes_stay_taken_until_the_exchange_is_done_with() {
        let (sender, mut receiver) = backlog(8, 64 * 1024);
        sender.reserve(exchange(40 * 1024)).unwrap().send();
        assert!(sender.reserve(exchange(40 * 1024)).is_err(), "over the bound while queued");
        let admitted = receiver.next().await.unwrap();
        assert!(sender.reserve(exchange(40 * 1024)).is_err(), "over the bound while replayed");
        drop(admitted);
        assert!(sender.reserve(exchange(40 * 1024)).is_ok());
    }

    #[tokio::test]
    async fn an_exchange_larger_than_the_bound_is_admitted_alone() {
        let (sender, mut receiver) = backlog(8, 64 * 1024);
        sender.reserve(exchange(0)).unwrap().send();
        assert!(sender.reserve(exchange(100 * 1024)).is_err(), "it would not be alone");
        drop(receiver.next().await);
        sender.reserve(exchange(100 * 1024)).unwrap().send();
        assert!(sender.reserve(exchange(0)).is_err(), "it is alone");
    }

    #[tokio::test]
    async fn the_queue_ends_when_its_senders_do() {
        let (sender, mut receiver) = backlog(8, 1 << 20);
        sender.reserve(exchange(0)).unwrap().send();
        drop(sender);
        assert!(receiver.next().await.is_some());
        assert!(receiver.next().await.is_none());
    }
}
