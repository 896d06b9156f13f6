//! An exchange that is under way. Holds what is known of it; decides nothing.

use super::head::Kind;
use crate::exchange::{ExchangeId, Request, Response, Times, Timestamp};

/// An exchange between the first byte of its request and the last of its response.
#[derive(Debug)]
pub(super) struct Open {
    /// Its name.
    pub(super) id: ExchangeId,
    /// Whether its event was given already; it then stays in the queue for the sake of pairing only.
    pub(super) closed: bool,
    /// Whether its response has to prove that it belongs to it, because the order of pairs was lost before.
    pub(super) proof: bool,
    /// The offset of the request's first byte.
    pub(super) start: u64,
    /// The offset behind the request's last byte, once that was seen.
    pub(super) end: Option<u64>,
    /// Whether the last byte of the response was seen.
    pub(super) answered: bool,
    /// What of the request decides on the framing of the response.
    pub(super) kind: Kind,
    /// The request, from its head on; the body is added at its end.
    pub(super) request: Option<Request>,
    /// The response, likewise.
    pub(super) response: Option<Response>,
    /// When its parts were seen.
    pub(super) times: Times,
    /// Bytes kept here.
    pub(super) cost: usize,
}

impl Open {
    pub(super) fn new(id: ExchangeId, start: u64, started: Timestamp, proof: bool) -> Open {
        Open {
            id,
            closed: false,
            proof,
            start,
            end: None,
            answered: false,
            kind: Kind::Other,
            request: None,
            response: None,
            times: Times { started, ..Times::default() },
            cost: 0,
        }
    }

    /// Whether both messages were followed to their ends.
    pub(super) fn is_done(&self) -> bool {
        self.answered && self.end.is_some()
    }
}
