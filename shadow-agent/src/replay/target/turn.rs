//! What a request waits for before everything else: its turn in its session, and the target's own tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Target;
use crate::policy::mask::Sendable;
use crate::replay::Outcome;
use crate::replay::mapping::Mapping;
use crate::replay::order::Order;

impl Target {
    /// Has requests of a session wait so long for others that began earlier.
    pub(in crate::replay) fn keep_order(&mut self, settle: Duration) {
        self.order = Order::new(settle);
    }

    /// Has tokens of production's replaced by those of this target, which is the one of that position.
    pub(in crate::replay) fn map_tokens(&mut self, mapping: Option<&Arc<Mapping>>, position: usize) {
        self.tokens = mapping.map(|mapping| (Arc::clone(mapping), position));
    }

    /// Sends a request when it is its turn in its session, with the target's own tokens. It takes up no slot before.
    pub(in crate::replay) async fn send_in_turn(&self, request: &Sendable) -> Outcome {
        if request.session().is_none() && self.tokens.is_none() {
            return self.send(request).await;
        }
        // Boxed, because every request would pay for what only some need.
        Box::pin(self.wait_and_send(request)).await
    }

    async fn wait_and_send(&self, request: &Sendable) -> Outcome {
        let _turn = match request.session() {
            None => None,
            Some(session) => match self.order.turn(session, request.seen(), self.timeout, &self.gate).await {
                Ok(turn) => Some(turn),
                Err(reason) => return Outcome::Dropped(reason),
            },
        };
        let Some((mapping, position)) = &self.tokens else { return self.send(request).await };
        let mut outcome = match mapping.carried(*position, request, Instant::now()) {
            Ok(Some(own)) => self.send(&own).await,
            Ok(None) => self.send(request).await,
            Err(reason) => Outcome::Dropped(reason),
        };
        // Before the next one of the session goes.
        if let Outcome::Answered(answer) = &mut outcome
            && !request.issued().is_empty()
        {
            let before = answer.response.body.clone();
            mapping.learn(*position, request.issued(), &mut answer.response, Instant::now());
            if answer.response.body != before {
                answer.response.body = self.room.hold(answer.response.body.clone());
            }
        }
        outcome
    }
}
