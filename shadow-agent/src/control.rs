//! The only thing that reaches across stages: the kill switch, the share of flows captured, what of the selected exchanges
//! is replayed, and whether the agent stood still.
//!
//! Anyone may read them at any time for the price of an atomic load; the admin API throws the switch, the CPU guard sets
//! the share, the other guards what is replayed, and the heartbeat says that the agent moves.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::config::Share;
use crate::standstill::Standstill;

mod replaying;

pub use replaying::{Leave, Replaying, Rung, TARGETS};

/// What is wished of the running agent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Whether requests are captured and replayed at all.
    pub enabled: bool,
    /// The share of flows captured.
    pub sample: Share,
    /// The share that an operator asks for; guards may lower what is captured below it.
    pub configured: Share,
}

/// Takes what is wished to where no userspace check is asked: the kernel.
type Carrier = Box<dyn Fn(State) + Send + Sync>;

/// A handle to the one [`State`]; clones share it.
#[derive(Clone)]
pub struct Control {
    enabled: Arc<AtomicBool>,
    /// The bits of a share.
    sample: Arc<AtomicU64>,
    state: Arc<watch::Sender<State>>,
    carrier: Arc<OnceLock<Carrier>>,
    standstill: Standstill,
    replaying: Replaying,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { enabled, sample, .. } = *self.state.borrow();
        f.debug_struct("Control").field("enabled", &enabled).field("sample", &sample).finish_non_exhaustive()
    }
}

impl Control {
    /// A control in the given position, with every flow captured.
    #[must_use]
    pub fn new(enabled: bool) -> Control {
        let sample = Share::ALL;
        Control {
            enabled: Arc::new(AtomicBool::new(enabled)),
            sample: Arc::new(AtomicU64::new(sample.0.to_bits())),
            state: Arc::new(watch::Sender::new(State { enabled, sample, configured: sample })),
            carrier: Arc::default(),
            standstill: Standstill::default(),
            replaying: Replaying::default(),
        }
    }

    /// The kill switch. Checked before masking and before sending.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// The share of flows captured at present.
    #[must_use]
    pub fn sample(&self) -> Share {
        Share(f64::from_bits(self.sample.load(Ordering::Acquire)))
    }

    /// Throws the kill switch either way; returns whether that changed anything.
    pub fn set_enabled(&self, enabled: bool) -> bool {
        self.set(|state| State { enabled, ..state })
    }

    /// Sets the share of flows captured; returns whether that changed anything.
    pub fn set_sample(&self, sample: Share) -> bool {
        self.set(|state| State { sample, ..state })
    }

    /// The share of flows that an operator asks for.
    #[must_use]
    pub fn configured_sample(&self) -> Share {
        self.state.borrow().configured
    }

    /// Sets the share that an operator asks for, and gives the one before. What is captured stays lowered by as much as
    /// it is.
    pub fn configure_sample(&self, configured: Share) -> Share {
        let mut before = configured;
        self.set(|state| {
            before = state.configured;
            let lowered = if before.0 > 0.0 { state.sample.0 / before.0 } else { 1.0 };
            State { sample: Share(configured.0 * lowered), configured, ..state }
        });
        before
    }

    /// Lowers the share captured below the one that an operator asks for; returns what is captured now.
    pub fn lower_sample(&self, lowered: impl FnOnce(Share) -> Share) -> Share {
        self.set(|state| State { sample: lowered(state.configured), ..state });
        self.sample()
    }

    fn set(&self, change: impl FnOnce(State) -> State) -> bool {
        self.state.send_if_modified(|state| {
            let before = std::mem::replace(state, change(*state));
            // Under the channel's lock, so that all of them always agree, whoever else is making a change.
            self.enabled.store(state.enabled, Ordering::Release);
            self.sample.store(state.sample.0.to_bits(), Ordering::Release);
            if let Some(carry) = self.carrier.get() {
                carry(*state);
            }
            before != *state
        })
    }

    /// From now on takes every state to `carrier` too, the present one first, on the thread that makes the change. It
    /// must not block. Only the first carrier counts.
    pub fn carry(&self, carrier: impl Fn(State) + Send + Sync + 'static) {
        self.state.send_if_modified(|state| {
            let carrier = self.carrier.get_or_init(|| Box::new(carrier));
            carrier(*state);
            false
        });
    }

    /// Whether the agent stood still.
    #[must_use]
    pub fn standstill(&self) -> &Standstill {
        &self.standstill
    }

    /// What of the selected exchanges is replayed, and to whom.
    #[must_use]
    pub fn replaying(&self) -> &Replaying {
        &self.replaying
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
    fn the_carrier_learns_every_state_at_once() {
        let control = Control::new(false);
        let states = Arc::new(std::sync::Mutex::new(Vec::new()));
        let carried = Arc::clone(&states);
        control.carry(move |state| carried.lock().unwrap().push((state.enabled, state.sample.0)));
        control.set_enabled(true);
        assert!(control.set_sample(Share(0.5)));
        assert!(!control.set_sample(Share(0.5)), "nothing changed the second time");
        control.clone().set_enabled(false);
        assert_eq!(
            *states.lock().unwrap(),
            [(false, 1.0), (true, 1.0), (true, 0.5), (true, 0.5), (false, 0.5)]
        );
        assert_eq!(control.sample(), Share(0.5));
    }

    #[test]
    fn what_a_guard_lowered_stays_lowered_by_as_much_when_an_operator_asks_for_another_share() {
        let control = Control::new(true);
        assert_eq!(control.configure_sample(Share(0.5)), Share::ALL);
        assert_eq!(control.sample(), Share(0.5));
        assert_eq!(control.lower_sample(|configured| Share(configured.0 / 4.0)), Share(0.125));
        assert_eq!(control.configure_sample(Share(0.25)), Share(0.5));
        assert_eq!((control.sample(), control.configured_sample()), (Share(0.0625), Share(0.25)));
        control.configure_sample(Share(0.0));
        assert_eq!(control.sample(), Share(0.0));
        control.configure_sample(Share(0.25));
        assert_eq!(control.sample(), Share(0.25), "of nothing, nothing says how far it was lowered");
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
        assert_eq!(
            *watcher.borrow_and_update(),
            State { enabled: false, sample: Share::ALL, configured: Share::ALL }
        );
    }
}
