//! Whether the agent is ready: it is when nobody who has to start first is left.
//!
//! Only `/readyz` and the status read it; nothing in the agent waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is still waited for; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<Vec<&'static str>>>,
}

/// One thing waited for. Dropping it without [`Latch::release`] leaves the agent unready, as a failed start should.
#[derive(Debug)]
#[must_use = "the agent is not ready before the latch is released"]
pub struct Latch {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Nothing is waited for.
    #[must_use]
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Waits for something, named as `/readyz` shall name it.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.lock().push(name);
        Latch { name, readiness: self.clone() }
    }

    /// What is still waited for; empty when ready.
    #[must_use]
    pub fn waiting(&self) -> Vec<&'static str> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latch {
    /// It is there.
    pub fn release(self) {
        let mut waiting = self.readiness.lock();
        if let Some(position) = waiting.iter().position(|name| *name == self.name) {
            waiting.remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_latch_is_released() {
        let readiness = Readiness::new();
        assert!(readiness.waiting().is_empty());
        let (capture, replay) = (readiness.latch("capture"), readiness.latch("replay"));
        assert_eq!(readiness.clone().waiting(), ["capture", "replay"]);
        capture.release();
        assert_eq!(readiness.waiting(), ["replay"]);
        drop(replay);
        assert_eq!(readiness.waiting(), ["replay"], "a start that failed is not a start");
    }
}
