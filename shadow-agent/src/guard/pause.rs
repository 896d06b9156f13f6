//! When a target that a guard paused may go on: after a while it is given a few probes, and if they go well, everything.
//!
//! Pure: it is told how much time passed and what became of the probes.

use std::time::Duration;

use super::vitals::Tally;

/// Requests that a paused target is given to see whether it is well again.
pub const PROBES: u32 = 20;

/// How long is waited for what becomes of the probes, before there are others.
pub const PROBING: Duration = Duration::from_secs(10);

/// The most that pauses grow to while what follows does not hold: so many times their own length.
pub const MAX_FACTOR: u32 = 64;

/// What becomes of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is given nothing for so long.
    Paused(Duration),
    /// It is given [`PROBES`].
    Probed,
    /// It is given everything again.
    Resumed,
}

#[derive(Clone, Copy, Debug)]
enum Standing {
    Running {
        /// How long it has been, if that still has to be proven.
        trial: Option<Duration>,
    },
    Paused {
        left: Duration,
    },
    Probing {
        before: Tally,
        since: Duration,
    },
}

/// How one target stands.
#[derive(Clone, Debug)]
pub struct Pause {
    pause: Duration,
    factor: u32,
    standing: Standing,
}

impl Pause {
    /// A target that runs; `pause` is how long its first pause will be.
    #[must_use]
    pub fn new(pause: Duration) -> Pause {
        Pause { pause, factor: 1, standing: Standing::Running { trial: None } }
    }

    /// Whether it is given everything.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.standing, Standing::Running { .. })
    }

    /// A guard tripped. Nothing changes for a target that is paused already.
    pub fn trip(&mut self) -> Option<Change> {
        let Standing::Running { trial } = self.standing else { return None };
        Some(self.stop(trial.is_some()))
    }

    /// Time passed; `tally` is what the target did since the start, and `bad` says whether probes went badly.
    pub fn observe(
        &mut self,
        elapsed: Duration,
        tally: Tally,
        bad: impl FnOnce(Tally) -> bool,
    ) -> Option<Change> {
        match &mut self.standing {
            Standing::Running { trial: None } => None,
            Standing::Running { trial: Some(held) } => {
                *held += elapsed;
                if *held >= self.pause * self.factor {
                    (self.standing, self.factor) = (Standing::Running { trial: None }, 1);
                }
                None
            }
            Standing::Paused { left } => {
                *left = left.saturating_sub(elapsed);
                left.is_zero().then(|| self.probe(tally))
            }
            Standing::Probing { before, since } => {
                *since += elapsed;
                let probed = tally.since(*before);
                match (probed.total >= u64::from(PROBES), *since >= PROBING) {
                    (false, false) => None,
                    // No request came, or none was sent.
                    (false, true) if probed.total == 0 => Some(self.probe(tally)),
                    _ if bad(probed) => Some(self.stop(true)),
                    _ => {
                        self.standing = Standing::Running { trial: Some(Duration::ZERO) };
                        Some(Change::Resumed)
                    }
                }
            }
        }
    }

    /// Forgets what was.
    pub fn restart(&mut self) {
        *self = Pause::new(self.pause);
    }

    fn stop(&mut self, again: bool) -> Change {
        if again {
            self.factor = (self.factor * 2).min(MAX_FACTOR);
        }
        let left = self.pause * self.factor;
        self.standing = Standing::Paused { left };
        Change::Paused(left)
    }

    fn probe(&mut self, tally: Tally) -> Change {
        self.standing = Standing::Probing { before: tally, since: Duration::ZERO };
        Change::Probed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tally(total: u64, bad: u64) -> Tally {
        Tally { total, bad }
    }

    fn half(tally: Tally) -> bool {
        tally.share() > 0.5
    }

    /// A paused target whose pause is over.
    fn probing() -> Pause {
        let mut pause = Pause::new(SECOND);
        assert_eq!(pause.trip(), Some(Change::Paused(SECOND)));
        assert_eq!(pause.trip(), None, "once");
        assert_eq!(pause.observe(SECOND / 2, tally(100, 100), half), None);
        assert_eq!(pause.observe(SECOND / 2, tally(100, 100), half), Some(Change::Probed));
        pause
    }

    #[test]
    fn probes_that_go_well_resume_it_and_others_pause_it_for_longer() {
        let (all, bad) = (100 + u64::from(PROBES), 100 + u64::from(PROBES) / 2);
        let mut pause = probing();
        assert_eq!(pause.observe(SECOND, tally(all - 1, bad), half), None, "not all of them ended");
        assert_eq!(pause.observe(SECOND, tally(all, bad), half), Some(Change::Resumed));
        assert!(pause.is_running());
        assert_eq!(probing().observe(SECOND, tally(all, bad + 1), half), Some(Change::Paused(SECOND * 2)));
    }

    #[test]
    fn a_few_probes_are_judged_in_the_end_and_none_are_tried_again() {
        assert_eq!(probing().observe(PROBING, tally(101, 100), half), Some(Change::Resumed));
        assert_eq!(probing().observe(PROBING, tally(101, 101), half), Some(Change::Paused(SECOND * 2)));
        assert_eq!(probing().observe(PROBING, tally(100, 100), half), Some(Change::Probed));
    }

    #[test]
    fn pauses_grow_up_to_a_bound_until_it_ran_for_as_long_as_it_was_paused() {
        let mut pause = probing();
        let mut waits = Vec::new();
        for _ in 0..7 {
            let Some(Change::Paused(wait)) = pause.observe(PROBING, tally(101, 101), half) else { panic!() };
            waits.push(wait.as_secs());
            pause.observe(wait, tally(100, 100), half);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(pause.observe(PROBING, tally(101, 100), half), Some(Change::Resumed));
        pause.observe(SECOND * 63, tally(101, 100), half);
        assert_eq!(pause.clone().trip(), Some(Change::Paused(SECOND * MAX_FACTOR)));
        pause.observe(SECOND, tally(101, 100), half);
        assert_eq!(pause.trip(), Some(Change::Paused(SECOND)));
    }
}
