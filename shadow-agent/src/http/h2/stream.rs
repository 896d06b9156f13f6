//! A stream that is an exchange under way. Holds what is known of it, and puts its bodies together.

use bytes::{Bytes, BytesMut};

use super::Fate;
use crate::exchange::{ExchangeId, Headers, LostReason, Request, Response, SkipReason, Times};

/// How far one message of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its head is still to come.
    Head,
    /// Its body is under way.
    Body,
    /// It ended.
    Done,
}

/// One message of a stream.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) phase: Phase,
    body: BytesMut,
    /// The bytes that the body must have, if that is known.
    length: Option<u64>,
}

/// An exchange between its request's head and the end of both messages.
#[derive(Debug)]
pub(super) struct Stream {
    /// The identifier on the wire.
    pub(super) number: u32,
    /// Its name.
    pub(super) id: ExchangeId,
    /// The request; the body is added at its end.
    pub(super) request: Request,
    /// The response, likewise, from its head on.
    pub(super) response: Option<Response>,
    pub(super) up: Half,
    pub(super) down: Half,
    /// When its parts were seen.
    pub(super) times: Times,
    /// Bytes kept here.
    pub(super) cost: usize,
    /// Whether the server's frames were not followed when it began, so that parts of the response may be unseen.
    pub(super) is_blind: bool,
}

impl Half {
    /// A message whose head is still to come.
    pub(super) fn expected() -> Half {
        Half { phase: Phase::Head, body: BytesMut::new(), length: None }
    }

    /// A message that ended before.
    pub(super) fn done() -> Half {
        Half { phase: Phase::Done, ..Half::expected() }
    }

    /// The head is there; it says that the body has so many bytes.
    ///
    /// # Errors
    /// The exchange's fate, when the body will be larger than `limit`.
    pub(super) fn begin(&mut self, length: Option<u64>, limit: usize) -> Result<(), Fate> {
        if length.is_some_and(|length| length > limit as u64) {
            return Err(Fate::Skipped(SkipReason::BodyTooLarge));
        }
        (self.phase, self.length) = (Phase::Body, length);
        Ok(())
    }

    /// Adds bytes to the body, and says how many were allocated for them.
    ///
    /// # Errors
    /// The exchange's fate, when they do not belong there, or the body becomes larger than `limit`.
    pub(super) fn add(&mut self, bytes: &[u8], limit: usize) -> Result<usize, Fate> {
        let length = self.body.len() + bytes.len();
        if self.phase != Phase::Body || self.length.is_some_and(|whole| length as u64 > whole) {
            return Err(Fate::Lost(LostReason::Malformed));
        }
        if length > limit {
            return Err(Fate::Skipped(SkipReason::BodyTooLarge));
        }
        let before = self.body.capacity();
        self.body.extend_from_slice(bytes);
        Ok(self.body.capacity().saturating_sub(before))
    }

    /// The message ends, and gives its body.
    ///
    /// # Errors
    /// The exchange's fate, when the body has fewer bytes than it should (RFC 9113, section 8.1.1).
    pub(super) fn finish(&mut self) -> Result<Bytes, Fate> {
        let whole = self.length.is_none_or(|length| length == self.body.len() as u64);
        if self.phase != Phase::Body || !whole {
            return Err(Fate::Lost(LostReason::Malformed));
        }
        self.phase = Phase::Done;
        Ok(std::mem::take(&mut self.body).freeze())
    }
}

impl Stream {
    /// Whether both messages ended.
    pub(super) fn is_done(&self) -> bool {
        self.up.phase == Phase::Done && self.down.phase == Phase::Done
    }

    /// The request ends.
    pub(super) fn finish_request(&mut self, trailers: Headers) -> Result<(), Fate> {
        self.request.body = self.up.finish()?;
        self.request.trailers = trailers;
        Ok(())
    }

    /// The response ends.
    pub(super) fn finish_response(&mut self, trailers: Headers) -> Result<(), Fate> {
        let body = self.down.finish()?;
        if let Some(response) = &mut self.response {
            (response.body, response.trailers) = (body, trailers);
        }
        Ok(())
    }

    /// What becomes of the exchange when the server's frames make no sense: they do if a part of the response was not
    /// seen.
    pub(super) fn misled(&self, fate: Fate) -> Fate {
        if self.is_blind && fate == Fate::Lost(LostReason::Malformed) {
            Fate::Lost(LostReason::Gap)
        } else {
            fate
        }
    }
}
