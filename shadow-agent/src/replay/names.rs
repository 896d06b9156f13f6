//! The addresses of a target that is given by name: looked up when first needed, then again and again in the background.
//!
//! Connecting never waits for a name that was found once. One look-up runs at a time for each target, because the system's
//! cannot be cancelled and may take long. What fails or finds nothing leaves the addresses that were found before.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::gate::Gate;

/// Addresses of one name that are used at most.
pub(super) const MAX_ADDRESSES: usize = 32;

type Look = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// How names become addresses; clones share it.
#[derive(Clone)]
pub struct Lookup(Option<Arc<Look>>);

impl Lookup {
    /// As this host does it: `/etc/hosts`, DNS and whatever else it is set up for.
    #[must_use]
    pub const fn system() -> Lookup {
        Lookup(None)
    }

    /// By `look`, which is called on a thread that may block.
    #[must_use]
    pub fn by(look: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Lookup {
        Lookup(Some(Arc::new(look)))
    }

    fn look(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut found = match &self.0 {
            Some(look) => look(name, port)?,
            None => (name, port).to_socket_addrs()?.collect(),
        };
        found.truncate(MAX_ADDRESSES);
        Ok(found)
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(&self.0.is_some()).finish()
    }
}

/// One name, and what is known of it.
#[derive(Debug)]
pub(super) struct Names {
    name: Arc<str>,
    port: u16,
    refresh: Duration,
    lookup: Lookup,
    known: Arc<watch::Sender<Known>>,
    running: Arc<AtomicBool>,
    tasks: TaskTracker,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    /// When a look-up ended last.
    looked: Option<Instant>,
    /// Look-ups that have ended.
    ended: u64,
    /// The last one found nothing.
    failing: bool,
}

impl Names {
    pub(super) fn new(
        name: &str,
        port: u16,
        refresh: Duration,
        lookup: Lookup,
        tasks: TaskTracker,
        gate: Arc<Gate>,
    ) -> Names {
        let (known, running) = (Arc::new(watch::Sender::new(Known::default())), Arc::default());
        Names { name: name.into(), port, refresh, lookup, known, running, tasks, gate }
    }

    /// The addresses, those to be tried first in front; waits only while there are none.
    ///
    /// # Errors
    /// When the name was never found and cannot be found now.
    pub(super) async fn addresses(&self) -> io::Result<Arc<[SocketAddr]>> {
        let mut watcher = self.known.subscribe();
        let ended = {
            let known = watcher.borrow();
            if !known.addresses.is_empty() {
                return Ok(Arc::clone(&known.addresses));
            }
            known.ended
        };
        self.look_up();
        let found = watcher.wait_for(|known| known.ended != ended).await;
        let found = found.map(|known| Arc::clone(&known.addresses)).unwrap_or_default();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }

    /// Whether connections to that address may still be used.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        let known = self.known.borrow();
        known.addresses.is_empty() || known.addresses.contains(&address)
    }

    /// Begins to look the name up again if it is time.
    pub(super) fn sweep(&self, now: Instant) {
        let due = {
            let known = self.known.borrow();
            let age = known.looked.map(|looked| now.saturating_duration_since(looked));
            !known.addresses.is_empty() && age.is_some_and(|age| age >= self.refresh)
        };
        if due {
            self.look_up();
        }
    }

    fn look_up(&self) {
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = Running(Arc::clone(&self.running));
        let (lookup, name, port) = (self.lookup.clone(), Arc::clone(&self.name), self.port);
        let (known, gate) = (Arc::clone(&self.known), Arc::clone(&self.gate));
        let looking = {
            let name = Arc::clone(&name);
            tokio::task::spawn_blocking(move || lookup.look(&name, port))
        };
        self.tasks.spawn(async move {
            let looked = tokio::select! {
                biased;
                () = gate.closing() => return,
                looked = looking => looked,
            };
            // A panic in there finds nothing either.
            let found = looked.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
            drop(running);
            known.send_modify(|known| known.learn(found, &name, Instant::now()));
        });
    }
}

/// Another look-up may run once this is dropped.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Known {
    fn learn(&mut self, found: io::Result<Vec<SocketAddr>>, name: &str, now: Instant) {
        self.looked = Some(now);
        self.ended += 1;
        match found {
            Ok(found) if !found.is_empty() => {
                self.failing = false;
                self.addresses = found.into();
            }
            found => {
                if !self.addresses.is_empty() && !self.failing {
                    let error = found.err().map(|error| error.to_string()).unwrap_or_default();
                    tracing::warn!(
                        name,
                        error,
                        "the name of a target is not found any more; the addresses found before are used on",
                    );
                }
                self.failing = true;
            }
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}
