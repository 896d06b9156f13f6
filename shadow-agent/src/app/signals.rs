//! The signals that end the agent: SIGINT and SIGTERM, and SIGHUP unless whoever started it asked to have that ignored.

use std::fs;

use super::usr1::DISABLE;
use anyhow::Context;
use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that can end the agent.
const ENDING: [Number; 3] = [Number::SIGINT, Number::SIGTERM, Number::SIGHUP];

/// Keeps them from ending the process before they are followed, so that nothing stays attached. Threads made in the
/// meantime never get them. No thread gets the one that disables, but the one that waits for it (`usr1`).
pub(super) fn hold() -> anyhow::Result<()> {
    SigSet::from_iter(ENDING.into_iter().chain([DISABLE]))
        .thread_block()
        .context("signals could not be held back")
}

/// Followed from the moment it is made; a signal that comes before anyone waits is kept, and so is one that came since
/// [`hold`].
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under nohup(1): the agent outlives the terminal then.
    hangup: Option<Signal>,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Signals> {
        let follow = |kind| signal(kind).context("signals could not be followed");
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let signals = Signals {
            interrupt: follow(SignalKind::interrupt())?,
            terminate: follow(SignalKind::terminate())?,
            hangup: if ignores_hangup(&status) { None } else { Some(follow(SignalKind::hangup())?) },
        };
        SigSet::from_iter(ENDING).thread_unblock().context("signals could not be followed")?;
        Ok(signals)
    }

    /// Waits for the next of them.
    pub(super) async fn stop(&mut self) {
        let Signals { interrupt, terminate, hangup } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
            _ = hung_up => (),
        }
    }
}

/// Whether a process with this status (proc(5)) ignores SIGHUP, which is signal 1.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_that_is_ignored_stays_so() {
        for (status, expected) in [
            ("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0", true),
            ("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001", false),
            ("SigIgn:\t?", false),
            ("", false),
        ] {
            assert_eq!(ignores_hangup(status), expected, "{status}");
        }
    }
}
