//! Idle connections to one target, the one used last on top. It never waits and never connects.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::exchange::SessionId;

/// Idle connections kept at most, whatever the concurrency limit.
pub(super) const MAX_IDLE: usize = 256;
/// How long an idle connection is kept.
pub(super) const IDLE_EXPIRY: Duration = Duration::from_secs(30);

/// Idle connections kept at most for a target with so many requests under way at once.
pub(super) fn max_idle(concurrency: usize) -> usize {
    concurrency.min(MAX_IDLE)
}

/// A connection that can wait for its next request.
pub(super) trait Reusable {
    /// Whether it can still carry a request; looks at the socket without waiting.
    fn is_reusable(&mut self) -> bool;
}

/// A bounded stack of idle connections.
#[derive(Debug)]
pub(super) struct Pool<C> {
    max_idle: usize,
    idle: Mutex<Idle<C>>,
}

#[derive(Debug)]
struct Idle<C> {
    /// From the one that is idle longest to the one used last.
    connections: Vec<Waiting<C>>,
    closed: bool,
}

/// An idle connection.
#[derive(Debug)]
struct Waiting<C> {
    connection: C,
    since: Instant,
    /// The session that it is for; `None` is for all requests without one.
    owner: Option<SessionId>,
}

impl<C: Reusable> Pool<C> {
    /// For a target with so many requests under way at once.
    pub(super) fn new(concurrency: usize) -> Pool<C> {
        let idle = Idle { connections: Vec::new(), closed: false };
        Pool { max_idle: max_idle(concurrency), idle: Mutex::new(idle) }
    }

    /// The connection used last of those that are for this session, or for none, unless it has expired.
    pub(super) fn take(&self, owner: Option<SessionId>, now: Instant) -> Option<C> {
        let mut idle = self.lock();
        let at = idle.connections.iter().rposition(|waiting| waiting.owner == owner)?;
        let Waiting { connection, since, .. } = idle.connections.remove(at);
        // The others are idle for longer; `sweep` finds them.
        (now.saturating_duration_since(since) < IDLE_EXPIRY).then_some(connection)
    }

    /// Keeps a connection for later, if it is reusable and there is room. One of a session has the room of the one that is
    /// idle longest, whose session then needs another.
    pub(super) fn put(&self, mut connection: C, owner: Option<SessionId>, now: Instant) {
        if !connection.is_reusable() {
            return;
        }
        let mut idle = self.lock();
        if idle.closed {
            return;
        }
        if idle.connections.len() >= self.max_idle {
            if owner.is_none() {
                return;
            }
            idle.connections.remove(0);
        }
        idle.connections.push(Waiting { connection, since: now, owner });
    }

    /// Closes what has expired, was closed by the peer, or is not wanted any more.
    pub(super) fn sweep(&self, now: Instant, wanted: impl Fn(&C) -> bool) {
        self.lock().connections.retain_mut(|waiting| {
            now.saturating_duration_since(waiting.since) < IDLE_EXPIRY
                && wanted(&waiting.connection)
                && waiting.connection.is_reusable()
        });
    }

    /// Closes all idle connections, and from now on every one that comes back.
    pub(super) fn close(&self) {
        let mut idle = self.lock();
        idle.closed = true;
        idle.connections.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Idle<C>> {
        // A panic elsewhere leaves a stack that is still a stack.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Numbered(usize, bool);

    impl Reusable for Numbered {
        fn is_reusable(&mut self) -> bool {
            self.1
        }
    }

    fn numbers(pool: &Pool<Numbered>, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| pool.take(None, now)).map(|connection| connection.0).collect()
    }

    #[test]
    fn the_last_used_comes_first_and_the_bound_holds() {
        for (concurrency, bound) in [(2, 2), (MAX_IDLE + 1, MAX_IDLE)] {
            let now = Instant::now();
            let pool = Pool::new(concurrency);
            (0..=bound).for_each(|number| pool.put(Numbered(number, true), None, now));
            assert_eq!(numbers(&pool, now), (0..bound).rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_cannot_be_reused_is_not_kept() {
        let now = Instant::now();
        let pool = Pool::new(4);
        pool.put(Numbered(0, false), None, now);
        assert_eq!(pool.take(None, now), None);
        pool.close();
        pool.put(Numbered(1, true), None, now);
        assert_eq!(pool.take(None, now), None);
    }

    #[test]
    fn a_session_gets_its_own_connection_again_and_no_other() {
        let (now, one, two) = (Instant::now(), Some(SessionId(1)), Some(SessionId(2)));
        let pool = Pool::new(2);
        pool.put(Numbered(1, true), one, now);
        pool.put(Numbered(2, true), two, now);
        assert_eq!(pool.take(None, now), None);
        assert_eq!(pool.take(one, now), Some(Numbered(1, true)));
        assert_eq!(pool.take(one, now), None);
        pool.put(Numbered(1, true), one, now);
        pool.put(Numbered(3, true), Some(SessionId(3)), now);
        assert_eq!(pool.take(two, now), None, "it was idle longest when there was no room");
        assert_eq!(pool.take(one, now), Some(Numbered(1, true)));
    }

    #[test]
    fn an_idle_connection_expires_at_its_limit() {
        let start = Instant::now();
        let almost = start + IDLE_EXPIRY - Duration::from_nanos(1);
        for (now, kept) in [(almost, true), (start + IDLE_EXPIRY, false)] {
            let pool = Pool::new(4);
            pool.put(Numbered(0, true), None, start);
            assert_eq!(pool.take(None, now).is_some(), kept);
            pool.put(Numbered(1, true), None, start);
            pool.sweep(now, |_| true);
            assert_eq!(pool.take(None, start).is_some(), kept);
        }
    }

    #[test]
    fn a_sweep_finds_what_the_peer_closed() {
        let now = Instant::now();
        let pool = Pool::new(4);
        (0..3).for_each(|number| pool.put(Numbered(number, true), None, now));
        pool.lock().connections[1].connection.1 = false;
        pool.sweep(now, |_| true);
        assert_eq!(numbers(&pool, now), [2, 0]);
    }
}
