//! Whether the agent is ready: it is when nobody who has to start first is left, and what it cannot do without is there.
//!
//! Only `/readyz` and the status read it; nothing in the agent waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is still waited for; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<Vec<String>>>,
}

/// One thing waited for. Dropping it without [`Latch::release`] leaves the agent unready, as a failed start should.
#[derive(Debug)]
#[must_use = "the agent is not ready before the latch is released"]
pub struct Latch {
    name: &'static str,
    readiness: Readiness,
}

/// Something that the agent cannot do without, and that may come and go. Dropping it leaves the agent unready.
#[derive(Debug)]
pub struct Condition {
    name: String,
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
        self.wait_for(name);
        Latch { name, readiness: self.clone() }
    }

    /// Waits for something that may come and go, named as `/readyz` shall name it. It is not there yet.
    pub fn condition(&self, name: impl Into<String>) -> Condition {
        let name = name.into();
        self.wait_for(&name);
        Condition { name, readiness: self.clone() }
    }

    /// What is still waited for; empty when ready.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn wait_for(&self, name: &str) {
        let mut waiting = self.lock();
        if !waiting.iter().any(|waited| waited == name) {
            waiting.push(name.to_owned());
        }
    }

    fn have(&self, name: &str) {
        self.lock().retain(|waited| waited != name);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latch {
    /// It is there.
    pub fn release(self) {
        self.readiness.have(self.name);
    }
}

impl Condition {
    /// It is there, or it is not.
    pub fn set(&self, there: bool) {
        match there {
            true => self.readiness.have(&self.name),
            false => self.readiness.wait_for(&self.name),
        }
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.set(false);
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

    #[test]
    fn a_condition_comes_and_goes() {
        let readiness = Readiness::new();
        let condition = readiness.condition("an interface");
        assert_eq!(readiness.waiting(), ["an interface"]);
        for there in [true, true, false, false, true] {
            condition.set(there);
            assert_eq!(readiness.waiting().is_empty(), there);
        }
        drop(condition);
        assert_eq!(readiness.waiting(), ["an interface"]);
    }
}
