//! The HTTP/2 connections of one target, and how many requests use each. It never waits and never connects.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::MutexGuard as Turn;
use tokio::time::Instant;

use super::connection::Connection;
use crate::replay::pool::IDLE_EXPIRY;

/// Requests on one connection at once, even where the target would take more.
pub(in crate::replay) const STREAMS: usize = 100;
/// Connections without a request that are kept at most.
pub(in crate::replay) const MAX_IDLE: usize = 4;

/// A connection that may be shared.
pub(in crate::replay) trait Shareable {
    /// Whether another request may use it.
    fn is_usable(&self) -> bool;

    /// The requests that the target takes on it at once.
    fn most(&self) -> usize;
}

impl Shareable for Connection {
    fn is_usable(&self) -> bool {
        Connection::is_usable(self)
    }

    fn most(&self) -> usize {
        self.most_streams()
    }
}

/// The connections of one target.
#[derive(Debug)]
pub(in crate::replay) struct Pool<C: Shareable> {
    state: Mutex<State<C>>,
    /// Whoever connects holds it, so that all who wait meanwhile use that connection.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State<C> {
    connections: Vec<Entry<C>>,
    closed: bool,
}

#[derive(Debug)]
struct Entry<C> {
    connection: Arc<C>,
    requests: usize,
    idle_since: Instant,
}

/// A place on a connection, given back when dropped.
#[derive(Debug)]
pub(in crate::replay) struct Lease<'a, C: Shareable> {
    pool: &'a Pool<C>,
    pub(in crate::replay) connection: Arc<C>,
}

impl<C: Shareable> Pool<C> {
    pub(in crate::replay) fn new() -> Pool<C> {
        let state = State { connections: Vec::new(), closed: false };
        Pool { state: Mutex::new(state), turn: tokio::sync::Mutex::new(()) }
    }

    /// A place on the first connection that has room, `except` one that has just failed.
    pub(in crate::replay) fn take(&self, now: Instant, except: Option<&Arc<C>>) -> Option<Lease<'_, C>> {
        let mut state = self.lock();
        let entry = state.connections.iter_mut().find(|entry| {
            entry.has_room() && !entry.has_expired(now) && except.is_none_or(|except| !entry.holds(except))
        })?;
        entry.requests += 1;
        Some(Lease { pool: self, connection: Arc::clone(&entry.connection) })
    }

    /// The right to connect; looking for a place again comes first.
    pub(in crate::replay) async fn turn(&self) -> Turn<'_, ()> {
        self.turn.lock().await
    }

    /// Takes in a new connection and gives the first place on it.
    pub(in crate::replay) fn put(&self, connection: C, now: Instant) -> Lease<'_, C> {
        let connection = Arc::new(connection);
        let entry = Entry { connection: Arc::clone(&connection), requests: 1, idle_since: now };
        self.lock().connections.push(entry);
        Lease { pool: self, connection }
    }

    /// Closes what has been idle for too long or can no longer be used; `look` is shown each connection before.
    pub(in crate::replay) fn sweep(&self, now: Instant, look: impl Fn(&C)) {
        self.lock().connections.retain(|entry| {
            look(&entry.connection);
            entry.requests > 0 || (entry.connection.is_usable() && !entry.has_expired(now))
        });
    }

    /// Closes all idle connections, and from now on every one whose last request ends.
    pub(in crate::replay) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.connections.retain(|entry| entry.requests > 0);
    }

    fn give_back(&self, connection: &Arc<C>, now: Instant) {
        let mut state = self.lock();
        let Some(at) = state.connections.iter().position(|entry| entry.holds(connection)) else { return };
        let others = state.connections.iter().filter(|entry| entry.requests == 0).count();
        let closed = state.closed;
        let Some(entry) = state.connections.get_mut(at) else { return };
        entry.requests -= 1;
        entry.idle_since = now;
        if entry.requests == 0 && (closed || others >= MAX_IDLE || !entry.connection.is_usable()) {
            state.connections.swap_remove(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        // A panic elsewhere leaves a list that is still a list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Shareable> Entry<C> {
    fn has_room(&self) -> bool {
        self.requests < STREAMS.min(self.connection.most()) && self.connection.is_usable()
    }

    fn has_expired(&self, now: Instant) -> bool {
        self.requests == 0 && now.saturating_duration_since(self.idle_since) >= IDLE_EXPIRY
    }

    fn holds(&self, connection: &Arc<C>) -> bool {
        Arc::ptr_eq(&self.connection, connection)
    }
}

impl<C: Shareable> Drop for Lease<'_, C> {
    fn drop(&mut self) {
        self.pool.give_back(&self.connection, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    struct Numbered {
        number: usize,
        most: usize,
        usable: AtomicBool,
    }

    impl Shareable for Numbered {
        fn is_usable(&self) -> bool {
            self.usable.load(Ordering::Relaxed)
        }

        fn most(&self) -> usize {
            self.most
        }
    }

    fn numbered(number: usize, most: usize) -> Numbered {
        Numbered { number, most, usable: AtomicBool::new(true) }
    }

    fn number(lease: Option<&Lease<'_, Numbered>>) -> Option<usize> {
        lease.map(|lease| lease.connection.number)
    }

    #[test]
    fn a_connection_is_filled_to_its_limit_before_the_next_is_used() {
        for (most, limit) in [(1, 1), (7, 7), (usize::MAX, STREAMS), (STREAMS, STREAMS)] {
            let now = Instant::now();
            let pool = Pool::new();
            let mut leases = vec![pool.put(numbered(0, most), now)];
            while let Some(lease) = pool.take(now, None) {
                leases.push(lease);
            }
            assert_eq!(leases.len(), limit);
            leases.push(pool.put(numbered(1, 2), now));
            assert_eq!(number(pool.take(now, None).as_ref()), Some(1));
            leases.remove(0);
            assert_eq!(number(pool.take(now, None).as_ref()), Some(0));
        }
    }

    #[test]
    fn neither_a_failed_nor_an_unusable_nor_an_expired_connection_is_given_out() {
        let now = Instant::now();
        let pool = Pool::new();
        let first = pool.put(numbered(0, 9), now);
        assert!(pool.take(now, Some(&first.connection)).is_none());
        first.connection.usable.store(false, Ordering::Relaxed);
        assert!(pool.take(now, None).is_none());
        drop(first);
        assert!(pool.lock().connections.is_empty(), "closed with its last request");
        drop(pool.put(numbered(1, 9), now));
        let since = pool.lock().connections[0].idle_since;
        let almost = since + IDLE_EXPIRY - Duration::from_nanos(1);
        assert_eq!(number(pool.take(almost, None).as_ref()), Some(1));
        let since = pool.lock().connections[0].idle_since;
        assert!(pool.take(since + IDLE_EXPIRY, None).is_none());
        pool.sweep(since + IDLE_EXPIRY, |_| ());
        assert!(pool.lock().connections.is_empty());
    }

    #[test]
    fn idle_connections_are_bounded_and_none_is_kept_once_closed() {
        let now = Instant::now();
        for (count, kept) in [(MAX_IDLE, MAX_IDLE), (MAX_IDLE + 1, MAX_IDLE)] {
            let pool = Pool::new();
            let mut leases: Vec<_> = (0..count).map(|number| pool.put(numbered(number, 1), now)).collect();
            let last = leases.pop();
            drop(leases);
            drop(last);
            assert_eq!(pool.lock().connections.len(), kept);
            let used = pool.put(numbered(9, 1), now);
            pool.close();
            assert_eq!(pool.lock().connections.len(), 1);
            drop(used);
            assert!(pool.lock().connections.is_empty());
        }
    }
}
