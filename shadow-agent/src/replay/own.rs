//! Makes each connection known as the agent's own, so that its packets are not captured. Knows no kernel: whoever starts
//! the replayer says what registering means.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a failure is logged at most, whatever the number of connections.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

type Register = dyn Fn(SocketAddr) -> io::Result<Box<dyn Any + Send + Sync>> + Send + Sync;

/// Registers sockets by their local ends; clones share what they know.
#[derive(Clone)]
pub struct Registrar(Option<Arc<Inner>>);

struct Inner {
    register: Box<Register>,
    complaints: Mutex<Complaints>,
}

/// A socket that is known as ours until this is dropped, which must not be before the socket is closed.
#[must_use = "the socket is unknown again once this is dropped"]
pub struct Registration(
    #[expect(dead_code, reason = "held for its drop")] Option<Box<dyn Any + Send + Sync>>,
);

impl Registrar {
    /// For a replayer that nothing captures beside: registering does nothing.
    #[must_use]
    pub const fn none() -> Registrar {
        Registrar(None)
    }

    /// Registers with `register`, once for each connection, on the thread that connected. What it returns is dropped
    /// when the socket has been closed.
    #[must_use]
    pub fn new<R: Any + Send + Sync>(
        register: impl Fn(SocketAddr) -> io::Result<R> + Send + Sync + 'static,
    ) -> Registrar {
        let register = Box::new(move |local| Ok(Box::new(register(local)?) as Box<dyn Any + Send + Sync>));
        Registrar(Some(Arc::new(Inner { register, complaints: Mutex::default() })))
    }

    /// Registers the socket with this local end.
    ///
    /// # Errors
    /// When it cannot be registered: then nothing must be sent. It is logged, once a minute at most.
    pub(super) fn register(&self, local: SocketAddr) -> io::Result<Registration> {
        let Some(inner) = &self.0 else { return Ok(Registration(None)) };
        let registered = (inner.register)(local);
        if let Err(error) = &registered {
            let mut complaints = inner.complaints.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(unlogged) = complaints.enter(Instant::now()) {
                tracing::error!(
                    %error,
                    unlogged,
                    "a connection to a target is not used, because its packets could not be kept out of the capture",
                );
            }
        }
        Ok(Registration(Some(registered?)))
    }
}

/// When a failure was logged last, and how many came since then.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    since: u64,
}

impl Complaints {
    /// Notes a failure. If it is to be logged, says how many went unlogged before it.
    fn enter(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < COMPLAINT_INTERVAL) {
            self.since += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registrar").field(&self.0.is_some()).finish()
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registration")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_once_a_minute_with_how_many_were_not() {
        let start = Instant::now();
        let mut complaints = Complaints::default();
        let almost = COMPLAINT_INTERVAL - Duration::from_nanos(1);
        for (after, expected) in [
            (Duration::ZERO, Some(0)),
            (Duration::ZERO, None),
            (almost, None),
            (COMPLAINT_INTERVAL, Some(2)),
            (COMPLAINT_INTERVAL + almost, None),
        ] {
            assert_eq!(complaints.enter(start + after), expected, "{after:?} after the first");
        }
    }
}
