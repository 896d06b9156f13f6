//! The only thing that reaches across stages: the kill switch.
//!
//! Anyone may read it at any time for the price of an atomic load; the admin API and signals write it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

/// What is wished of the running agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether requests are captured and replayed at all.
    pub enabled: bool,
}

/// Takes the position of the kill switch to where no userspace check is asked: the kernel.
type Carrier = Box<dyn Fn(bool) + Send + Sync>;

/// A handle to the one [`State`]; clones share it.
#[derive(Clone)]
pub struct Control {
    enabled: Arc<AtomicBool>,
    state: Arc<watch::Sender<State>>,
    carrier: Arc<OnceLock<Carrier>>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("enabled", &self.enabled()).finish_non_exhaustive()
    }
}

impl Control {
    /// A control in the given position.
    #[must_use]
    pub fn new(enabled: bool) -> Control {
        Control {
            enabled: Arc::new(AtomicBool::new(enabled)),
            state: Arc::new(watch::Sender::new(State { enabled })),
            carrier: Arc::default(),
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
            if let Some(carry) = self.carrier.get() {
                carry(enabled);
            }
            let changed = state.enabled != enabled;
            state.enabled = enabled;
            changed
        })
    }

    /// From now on takes every position to `carrier` too, the present one first, on the thread that throws the switch.
    /// It must not block. Only the first carrier counts.
    pub fn carry(&self, carrier: impl Fn(bool) + Send + Sync + 'static) {
        self.state.send_if_modified(|state| {
            let carrier = self.carrier.get_or_init(|| Box::new(carrier));
            carrier(state.enabled);
            false
        });
    }

    /// Follows changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_carrier_learns_every_position_at_once() {
        let control = Control::new(false);
        let positions = Arc::new(std::sync::Mutex::new(Vec::new()));
        let carried = Arc::clone(&positions);
        control.carry(move |enabled| carried.lock().unwrap().push(enabled));
        control.set_enabled(true);
        control.clone().set_enabled(false);
        assert_eq!(*positions.lock().unwrap(), [false, true, false]);
    }

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
