//! Finds exchanges that a rule with the action `drop-exchange` forbids to leave at either exit.
//!
//! They are looked for as they would be masked, with those rules alone: what would be changed is there.

use super::Masker;
use super::send::Message;
use crate::exchange::{Exchange, SkipReason};

impl Masker {
    /// Looks at the request by the rules for the shadow, and at both messages by those for people and disks.
    ///
    /// # Errors
    /// [`SkipReason::DropExchange`] when such a rule finds something; [`SkipReason::Unmaskable`] when nobody can tell.
    pub(super) fn refuse_dropped(&self, exchange: &Exchange) -> Result<(), SkipReason> {
        let Some(only) = &self.dropping else { return Ok(()) };
        let sent = !only.send.is_empty() && only.send.mask(&mut Message::of(&exchange.request))?;
        if sent || (!only.keep.is_empty() && only.pass(exchange)? != *exchange) {
            return Err(SkipReason::DropExchange);
        }
        Ok(())
    }
}
