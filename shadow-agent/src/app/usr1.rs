//! SIGUSR1 throws the kill switch, as `ctl disable` does. A thread of its own waits for it, so that it works when the
//! runtime is stuck, and when nobody can reach the admin API.

use std::sync::Arc;
use std::thread;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

use crate::admin::KillSwitch;
use crate::audit::Actor;

/// The signal; every thread holds it back (`signals::hold`), so that it waits for this one.
pub(super) const DISABLE: Signal = Signal::SIGUSR1;

/// Starts the thread, which ends with the process.
pub(super) fn follow(switch: Arc<KillSwitch>) -> anyhow::Result<()> {
    let signals = SigSet::from_iter([DISABLE]);
    let wait = move || {
        while signals.wait().is_ok() {
            match switch.throw(Actor::Signal(DISABLE.as_str()), false) {
                Ok(changed) => {
                    tracing::warn!(
                        changed,
                        "capture was disabled by {DISABLE}; `shadow-agent ctl enable` enables it"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "capture was disabled by {DISABLE}, and that is not remembered")
                }
            }
        }
    };
    let thread = thread::Builder::new().name("disable".to_owned()).spawn(wait);
    thread.map(drop).context("the thread that waits for SIGUSR1 could not be started")
}
