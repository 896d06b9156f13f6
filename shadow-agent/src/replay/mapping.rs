//! Which value of a target's stands for which of production's: learned from the answers to the same exchange, held in
//! memory only. Of production's values only a keyed hash is kept.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::exchange::{DropReason, Response};
use crate::policy::mask::Sendable;
use crate::policy::tokens::{Issued, Own, Tokens};
use crate::recent::Recent;

/// Values of production's that are known at most; the one that was used longest ago is forgotten first.
pub(super) const MAX_KNOWN: usize = 65_536;

/// Bytes of all values of all targets that are kept at most.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// How long a value is known that nobody uses.
pub(super) const MAX_AGE: Duration = Duration::from_secs(3600);

/// What opens the compartment of credentials.
const UNSEAL: super::Key = super::Key::new();

/// A rule, and the hash of a value of production's.
type Key = (usize, u64);

/// The values of all targets. `Debug` shows none.
pub(super) struct Mapping {
    tokens: Arc<Tokens>,
    targets: usize,
    hasher: RandomState,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    known: Recent<Key, Entry>,
    bytes: usize,
}

/// What targets have for one value.
struct Entry {
    own: Vec<Option<Bytes>>,
    used: Instant,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.own.iter().flatten().map(Bytes::len).sum()
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({:?})", self.lock().known)
    }
}

impl Mapping {
    pub(super) fn new(tokens: Arc<Tokens>, targets: usize) -> Mapping {
        let book = Mutex::new(Book { known: Recent::new(MAX_KNOWN), bytes: 0 });
        Mapping { tokens, targets, hasher: RandomState::new(), book }
    }

    /// Notes that production issued these values: from now on they are known, and no target has one of its own yet.
    pub(super) fn expect(&self, issued: &[Issued], now: Instant) {
        if issued.is_empty() {
            return;
        }
        let mut book = self.lock();
        book.forget_old(now);
        for issued in issued {
            let key = self.key(issued.rule, &issued.value);
            match book.known.get(&key) {
                Some(entry) => entry.used = now,
                None => book.insert(key, Entry { own: vec![None; self.targets], used: now }),
            }
        }
    }

    /// The request with a target's own values; `None` when there is nothing to replace in it.
    ///
    /// # Errors
    /// When the target has none of its own.
    pub(super) fn carried(
        &self,
        target: usize,
        request: &Sendable,
        now: Instant,
    ) -> Result<Option<Sendable>, DropReason> {
        let own = |rule: usize, value: &[u8]| {
            let mut book = self.lock();
            book.forget_old(now);
            let Some(entry) = book.known.get(&self.key(rule, value)) else { return Own::Unknown };
            entry.used = now;
            entry.own.get(target).cloned().flatten().map_or(Own::Missing, Own::Value)
        };
        // Session ids are credentials.
        let request = request.whole(&UNSEAL);
        self.tokens.carried(&request, own).map_err(|_| DropReason::Token)
    }

    /// Learns what a target issued in its answer, and puts production's values there, so that they do not count as a
    /// difference. Where a target issues another value than before for one that production repeats, that does count.
    pub(super) fn learn(&self, target: usize, issued: &[Issued], response: &mut Response, now: Instant) {
        let own = Tokens::counterparts(issued, response);
        let mut equal = Vec::new();
        {
            let mut book = self.lock();
            for (issued, own) in issued.iter().zip(own) {
                let Some(own) = own else { continue };
                if book.learn(self.key(issued.rule, &issued.value), target, own, now) {
                    equal.push(issued);
                }
            }
        }
        Tokens::equalise(equal.into_iter(), response);
    }

    fn key(&self, rule: usize, value: &[u8]) -> Key {
        (rule, self.hasher.hash_one(value))
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // A panic elsewhere leaves values that are still values.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn insert(&mut self, key: Key, entry: Entry) {
        if self.known.is_full()
            && let Some(forgotten) = self.known.forget()
        {
            self.bytes -= forgotten.bytes();
        }
        self.bytes += entry.bytes();
        self.known.insert(key, entry);
    }

    /// Whether a target's value may stand for production's.
    fn learn(&mut self, key: Key, target: usize, value: Bytes, now: Instant) -> bool {
        let Some(entry) = self.known.get(&key) else { return true };
        entry.used = now;
        let Some(own) = entry.own.get_mut(target) else { return false };
        let before = own.replace(value.clone());
        self.bytes += value.len();
        self.bytes -= before.as_ref().map_or(0, Bytes::len);
        while self.bytes > MAX_BYTES
            && let Some(forgotten) = self.known.forget()
        {
            self.bytes -= forgotten.bytes();
        }
        before.is_none_or(|before| before == value)
    }

    fn forget_old(&mut self, now: Instant) {
        let is_old = |entry: &Entry| now.saturating_duration_since(entry.used) >= MAX_AGE;
        while self.known.oldest().is_some_and(is_old) {
            if let Some(forgotten) = self.known.forget() {
                self.bytes -= forgotten.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests;
