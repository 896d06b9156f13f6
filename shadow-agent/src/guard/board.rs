//! What the guards did, for whoever shows it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Direction;
use super::watch::Name;

/// One light and two counters for each guard.
#[derive(Debug, Default)]
pub struct Board {
    tripped: [AtomicBool; Name::ALL.len()],
    /// Steps of the ramp back, by the guard that asked for them.
    back: [AtomicU64; Name::ALL.len()],
    /// Steps of the ramp forward, for which no guard asks.
    forward: AtomicU64,
}

impl Board {
    /// Notes whether a guard tripped and has not found things well since.
    pub fn set_tripped(&self, guard: Name, tripped: bool) {
        if let Some(light) = self.tripped.get(guard as usize) {
            light.store(tripped, Ordering::Relaxed);
        }
    }

    /// Whether a guard tripped and has not found things well since.
    #[must_use]
    pub fn tripped(&self, guard: Name) -> bool {
        self.tripped.get(guard as usize).is_some_and(|light| light.load(Ordering::Relaxed))
    }

    /// Notes a step of the ramp that a guard asked for.
    pub fn stepped_back(&self, guard: Name) {
        if let Some(count) = self.back.get(guard as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes a step of the ramp forward.
    pub fn stepped_forward(&self) {
        self.forward.fetch_add(1, Ordering::Relaxed);
    }

    /// Every count of steps, by what asked for them and which way they went.
    pub fn steps(&self) -> impl Iterator<Item = (&'static str, Direction, u64)> + '_ {
        let back = Name::ALL.iter().zip(&self.back);
        let back = back.map(|(name, count)| (name.as_str(), Direction::Down, count));
        let all = back.chain([("ramp", Direction::Up, &self.forward)]);
        all.map(|(name, direction, count)| (name, direction, count.load(Ordering::Relaxed)))
    }
}
