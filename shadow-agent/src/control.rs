//! The only thing that reaches across stages: the kill switch.
//!
//! Anyone may read it at any time for the price of an atomic load; the admin API and signals write it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// What is wished of the running agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether requests are captured and replayed at all.
    pub enabled: bool,
}

/// A handle to the one [`State`]; clones share it.
#[derive(Clone, Debug)]
pub struct Control {
    enabled: Arc<AtomicBool>,
    state: Arc<watch::Sender<State>>,
}

impl Control {
    /// A control in the given position.
    #[must_use]
    pub fn new(enabled: bool) -> Control {
        Control {
            enabled: Arc::new(AtomicBool::new(enabled)),
            state: Arc::new(watch::Sender::new(State { enabled })),
        }
    }

    /// The kill switch. Checked before masking and before sending.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Throws the kill switch either way; returns whether that changed anything.
    pub fn set_enabled(&self, enabled: bool) -> bool {
        self.state.send_if_modified(|state| {
            // Under the channel's lock, so that both always agree, whoever else is throwing the switch.
            self.enabled.store(enabled, Ordering::Release);
            let changed = state.enabled != enabled;
            state.enabled = enabled;
            changed
        })
    }

    /// Follows changes; the kernel side is told through this.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_every_clone_and_subscriber_once() {
        let control = Control::new(true);
        let clone = control.clone();
        let mut watcher = control.subscribe();
        assert!(clone.set_enabled(false));
        assert!(!clone.set_enabled(false), "nothing changed the second time");
        assert!(!control.enabled());
        assert!(watcher.has_changed().unwrap());
        assert_eq!(*watcher.borrow_and_update(), State { enabled: false });
    }
}
