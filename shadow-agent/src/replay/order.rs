//! Whose turn it is at one target: requests of one session go one after the other, in the order in which production got
//! them. Sessions do not wait for each other, and neither do targets.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::gate::Gate;
use crate::exchange::{DropReason, SessionId, Timestamp};

/// Requests of one session that wait for their turn at one target at most.
pub(super) const MAX_WAITING: usize = 64;

/// Sessions with a request that waits or is under way at one target at most.
pub(super) const MAX_SESSIONS: usize = 16_384;

/// The place of a request in its session: when production's began, and a number for those that began at once.
type Place = (Timestamp, u64);

/// The sessions of one target that have something to send.
#[derive(Debug)]
pub(super) struct Order {
    /// How long a request waits for others that began earlier and were seen later.
    settle: Duration,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    active: HashMap<SessionId, Session>,
    next: u64,
}

#[derive(Debug, Default)]
struct Session {
    under_way: bool,
    waiting: BTreeMap<Place, Arc<Notify>>,
}

/// A request's place in its session, from when it waits until it has ended. The next goes when this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    order: &'a Order,
    session: SessionId,
    place: Place,
    notify: Arc<Notify>,
    is_up: bool,
}

impl Order {
    pub(super) fn new(settle: Duration) -> Order {
        Order { settle, sessions: Mutex::default() }
    }

    /// Waits until it is the turn of a request that began at `seen`, for `patience` at most.
    ///
    /// # Errors
    /// The reason why its turn never comes: too many wait, it did not come in time, or `gate` closed meanwhile.
    pub(super) async fn turn(
        &self,
        session: SessionId,
        seen: Timestamp,
        patience: Duration,
        gate: &Gate,
    ) -> Result<Turn<'_>, DropReason> {
        let settled = Instant::now() + self.settle;
        let deadline = settled + patience;
        let mut turn = self.queue(session, seen).ok_or(DropReason::Order)?;
        loop {
            let now = Instant::now();
            let until = if now < settled { settled } else { deadline };
            if now >= settled && turn.take() {
                return Ok(turn);
            }
            if now >= deadline {
                return Err(DropReason::Order);
            }
            tokio::select! {
                biased;
                reason = gate.closed() => return Err(reason),
                () = turn.notify.notified() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    fn queue(&self, session: SessionId, seen: Timestamp) -> Option<Turn<'_>> {
        let mut sessions = self.lock();
        if !sessions.active.contains_key(&session) && sessions.active.len() >= MAX_SESSIONS {
            return None;
        }
        sessions.next += 1;
        let place = (seen, sessions.next);
        let waiting = &mut sessions.active.entry(session).or_default().waiting;
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        let notify = Arc::new(Notify::new());
        waiting.insert(place, Arc::clone(&notify));
        Some(Turn { order: self, session, place, notify, is_up: false })
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // A panic elsewhere leaves places that are still places.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Takes the turn, if nobody of the session is before it.
    fn take(&mut self) -> bool {
        let mut sessions = self.order.lock();
        let Some(session) = sessions.active.get_mut(&self.session) else { return false };
        let is_first = session.waiting.first_key_value().is_some_and(|(place, _)| *place == self.place);
        if session.under_way || !is_first {
            return false;
        }
        session.waiting.remove(&self.place);
        session.under_way = true;
        self.is_up = true;
        true
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut sessions = self.order.lock();
        let Some(session) = sessions.active.get_mut(&self.session) else { return };
        match self.is_up {
            true => session.under_way = false,
            false => drop(session.waiting.remove(&self.place)),
        }
        match session.waiting.first_key_value() {
            Some((_, next)) => next.notify_one(),
            None if !session.under_way => drop(sessions.active.remove(&self.session)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
