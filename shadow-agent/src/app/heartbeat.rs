//! Tells the kernel, a few times a second, that every shard thread is alive; silence disables the kernel programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::wreck::Witness;

/// How often the pulse is taken. The kernel gives up on us after 2 s.
const INTERVAL: Duration = Duration::from_millis(250);

/// Counts the turns of every shard thread.
#[derive(Clone, Debug)]
pub(super) struct Pulse(Arc<[AtomicU64]>);

impl Pulse {
    pub(super) fn new(shards: usize) -> Pulse {
        Pulse((0..shards).map(|_| AtomicU64::new(0)).collect())
    }

    /// Shard `shard` took another turn.
    pub(super) fn tick(&self, shard: usize) {
        if let Some(turns) = self.0.get(shard) {
            turns.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn turns(&self) -> Vec<u64> {
        self.0.iter().map(|turns| turns.load(Ordering::Relaxed)).collect()
    }
}

/// Calls `beat` at every interval in which all shards turned at least once, until `stop` is set; and `always` at every
/// interval, whatever the shards do, so that what must be looked at now and then needs no thread of its own.
pub(super) fn spawn(
    pulse: Pulse,
    stop: Arc<AtomicBool>,
    witness: Witness,
    beat: impl Fn() + Send + 'static,
    mut always: impl FnMut() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
        let _witness = witness;
        let mut before = pulse.turns();
        beat();
        while !stop.load(Ordering::Acquire) {
            thread::sleep(INTERVAL);
            let now = pulse.turns();
            if all_turned(&before, &now) {
                beat();
                before = now;
            }
            always();
        }
    })
}

fn all_turned(before: &[u64], now: &[u64]) -> bool {
    before.iter().zip(now).all(|(before, now)| before != now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_that_hangs_is_enough_for_silence() {
        let pulse = Pulse::new(2);
        let before = pulse.turns();
        pulse.tick(0);
        assert!(!all_turned(&before, &pulse.turns()));
        pulse.tick(1);
        assert!(all_turned(&before, &pulse.turns()));
        pulse.tick(7);
    }
}
