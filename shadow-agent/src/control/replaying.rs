//! What of the selected exchanges is wished to be replayed: the ramp's share, and what each target is given.
//!
//! Atomics that anyone may read for the price of a load; only the guards write them. They say what is wished, never why.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::config::Share;
use crate::exchange::Timestamp;

/// Targets that can be paused; no configuration has more.
pub const TARGETS: usize = 16;

/// What a target is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Every request that is meant for it.
    Everything,
    /// So many more requests, to see whether it is well again.
    Probes(u32),
    /// Nothing.
    Nothing,
}

/// Where the ramp stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rung {
    /// The share of connections whose selected exchanges are replayed.
    pub share: Share,
    /// The stage, from 1; 0 while nothing is replayed.
    pub stage: u64,
    /// How many stages there are.
    pub stages: u64,
    /// When the next step forward is due, if one is.
    pub next: Option<Timestamp>,
}

/// A handle to what is wished; clones share it.
#[derive(Clone, Debug)]
pub struct Replaying(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The bits of a share.
    share: AtomicU64,
    stage: AtomicU64,
    stages: AtomicU64,
    /// Nanoseconds since the epoch; 0 is never.
    next: AtomicU64,
    /// Requests that each target may be given: [`EVERYTHING`], or so many.
    leave: [AtomicI64; TARGETS],
    /// Whether each target is paused, probes included.
    paused: AtomicU64,
}

const EVERYTHING: i64 = -1;

impl Default for Replaying {
    /// Everything is replayed to everyone.
    fn default() -> Replaying {
        Replaying(Arc::new(Inner {
            share: AtomicU64::new(Share::ALL.0.to_bits()),
            stage: AtomicU64::new(1),
            stages: AtomicU64::new(1),
            next: AtomicU64::new(0),
            leave: [const { AtomicI64::new(EVERYTHING) }; TARGETS],
            paused: AtomicU64::new(0),
        }))
    }
}

impl Replaying {
    /// The share of connections whose selected exchanges are replayed at present.
    #[must_use]
    pub fn share(&self) -> Share {
        Share(f64::from_bits(self.0.share.load(Ordering::Relaxed)))
    }

    /// Where the ramp stands.
    #[must_use]
    pub fn rung(&self) -> Rung {
        let next = self.0.next.load(Ordering::Relaxed);
        Rung {
            share: self.share(),
            stage: self.0.stage.load(Ordering::Relaxed),
            stages: self.0.stages.load(Ordering::Relaxed),
            next: (next > 0).then_some(Timestamp(next)),
        }
    }

    /// Sets where the ramp stands.
    pub fn set_rung(&self, rung: Rung) {
        self.0.share.store(rung.share.0.to_bits(), Ordering::Relaxed);
        self.0.stage.store(rung.stage, Ordering::Relaxed);
        self.0.stages.store(rung.stages, Ordering::Relaxed);
        self.0.next.store(rung.next.map_or(0, |next| next.0), Ordering::Relaxed);
    }

    /// Whether the target of that position may be given another request; of probes, that uses up one.
    #[must_use]
    pub fn takes(&self, target: usize) -> bool {
        let Some(leave) = self.0.leave.get(target) else { return true };
        match leave.load(Ordering::Relaxed) {
            EVERYTHING => true,
            0 => false,
            _ => {
                let one_less = |left: i64| (left > 0).then(|| left - 1);
                let used = leave.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
                used.map_or_else(|left| left == EVERYTHING, |_| true)
            }
        }
    }

    /// Whether the target of that position is paused, which it is while it is given probes, too.
    #[must_use]
    pub fn paused(&self, target: usize) -> bool {
        target < TARGETS && self.0.paused.load(Ordering::Relaxed) & 1 << target != 0
    }

    /// Sets what the target of that position is given.
    pub fn give(&self, target: usize, leave: Leave) {
        let Some(slot) = self.0.leave.get(target) else { return };
        let left = match leave {
            Leave::Everything => EVERYTHING,
            Leave::Probes(count) => i64::from(count),
            Leave::Nothing => 0,
        };
        slot.store(left, Ordering::Relaxed);
        match leave {
            Leave::Everything => self.0.paused.fetch_and(!(1 << target), Ordering::Relaxed),
            Leave::Probes(_) | Leave::Nothing => self.0.paused.fetch_or(1 << target, Ordering::Relaxed),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_gets_what_it_is_given_and_no_other_is_concerned() {
        let replaying = Replaying::default();
        let taken = |target: usize| (0..100).filter(|_| replaying.takes(target)).count();
        assert_eq!((taken(0), taken(1)), (100, 100));
        for (leave, expected) in [(Leave::Nothing, 0), (Leave::Probes(7), 7), (Leave::Everything, 100)] {
            replaying.give(1, leave);
            assert_eq!((taken(0), taken(1)), (100, expected), "{leave:?}");
            assert_eq!((replaying.paused(0), replaying.paused(1)), (false, leave != Leave::Everything));
        }
    }

    #[test]
    fn the_last_target_can_be_paused_and_there_is_none_behind_it() {
        let replaying = Replaying::default();
        replaying.give(TARGETS - 1, Leave::Nothing);
        replaying.give(TARGETS, Leave::Nothing);
        assert!(!replaying.takes(TARGETS - 1) && replaying.takes(TARGETS) && !replaying.paused(TARGETS));
    }

    #[test]
    fn clones_agree_on_the_rung() {
        let replaying = Replaying::default();
        assert_eq!(replaying.rung(), Rung { share: Share::ALL, stage: 1, stages: 1, next: None });
        let rung = Rung { share: Share(0.1), stage: 2, stages: 3, next: Some(Timestamp(7)) };
        replaying.clone().set_rung(rung);
        assert_eq!(replaying.rung(), rung);
    }
}
