//! The guards. Here is the one of the CPU: when the agent takes more of the CPU than it may, fewer flows are captured until it fits again.
//!
//! Pure: it is told what was used and for how long, and answers with the step to take. Who measures, and what a step
//! does to the capture, is not its business.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Share;

pub mod board;
pub mod pause;
pub mod vitals;
pub mod watch;
mod window;

pub use board::Board;
pub use vitals::Vitals;

/// What is judged is the mean over this long at least: a burst that ends sooner is none of the guard's business.
pub const WINDOW: Duration = Duration::from_secs(3);

/// How long there must have been room before sampling is raised by a step.
pub const CALM: Duration = Duration::from_secs(15);

/// The most that [`CALM`] grows to while raised steps turn out not to fit.
pub const MAX_CALM: Duration = Duration::from_secs(8 * 60);

/// The lowest step: one flow of 64 among those configured.
pub const LOWEST: Step = Step(6);

/// The share of the limit that a raised sample may be expected to take at most.
const HEADROOM: f64 = 0.8;

/// How far sampling is lowered: by half for every step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(u8);

impl Step {
    /// The share of flows captured at this step, out of the share configured.
    #[must_use]
    pub fn of(self, configured: Share) -> Share {
        Share(configured.0 * 0.5_f64.powi(self.0.into()))
    }
}

/// Which way sampling goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Fewer flows.
    Down,
    /// More flows.
    Up,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Direction; 2] = [Direction::Down, Direction::Up];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Down => "down",
            Direction::Up => "up",
        }
    }
}

/// What the guard says about a window that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    /// Sampling goes one step that way.
    Change {
        /// Which way.
        direction: Direction,
        /// The mean of what was used in the window, as a share of one core.
        used: Share,
    },
    /// More was used than allowed, and sampling cannot be lowered any further.
    Exhausted {
        /// As above.
        used: Share,
    },
}

/// Decides when to lower and when to raise sampling.
///
/// It lowers after one [`WINDOW`] over the limit, and raises after [`CALM`] in which twice the usage, which is what
/// twice the flows may cost, would have fitted with headroom. When a raised step does not hold, the next one waits
/// twice as long, so that a load which only looks as if it fitted does not make it swing.
#[derive(Clone, Debug)]
pub struct Guard {
    limit: Share,
    step: Step,
    /// CPU seconds and time of the window under way.
    window: (f64, Duration),
    /// How long there has been room.
    calm: Duration,
    /// How long there must have been.
    wait: Duration,
    /// How long ago sampling was raised, until that has held.
    trial: Option<Duration>,
}

impl Guard {
    /// A guard of that limit, which is a share of one core.
    #[must_use]
    pub fn new(limit: Share) -> Guard {
        Guard {
            limit,
            step: Step::default(),
            window: Default::default(),
            calm: Duration::ZERO,
            wait: CALM,
            trial: None,
        }
    }

    /// The step in force.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// Takes what was used, as a share of one core, in the time since the last call.
    pub fn observe(&mut self, used: Share, elapsed: Duration) -> Option<Judgement> {
        let (seconds, span) = &mut self.window;
        *seconds += used.0 * elapsed.as_secs_f64();
        *span += elapsed;
        if *span < WINDOW {
            return None;
        }
        let (mean, span) = (Share(*seconds / span.as_secs_f64()), *span);
        self.window = Default::default();
        self.judge(mean, span)
    }

    fn judge(&mut self, used: Share, span: Duration) -> Option<Judgement> {
        if used > self.limit {
            return Some(self.lower(used));
        }
        self.trial = self.trial.map(|since| since + span);
        if self.trial.is_some_and(|since| since >= self.wait) {
            (self.trial, self.wait) = (None, CALM);
        }
        if self.step == Step::default() || used.0 * 2.0 > self.limit.0 * HEADROOM {
            self.calm = Duration::ZERO;
            return None;
        }
        self.calm += span;
        if self.calm < self.wait {
            return None;
        }
        self.calm = Duration::ZERO;
        self.trial = Some(Duration::ZERO);
        self.step.0 -= 1;
        Some(Judgement::Change { direction: Direction::Up, used })
    }

    fn lower(&mut self, used: Share) -> Judgement {
        self.calm = Duration::ZERO;
        if self.step >= LOWEST {
            return Judgement::Exhausted { used };
        }
        if self.trial.take().is_some() {
            self.wait = (self.wait * 2).min(MAX_CALM);
        }
        self.step.0 += 1;
        Judgement::Change { direction: Direction::Down, used }
    }
}

/// What the guard last measured and did, for whoever shows it.
#[derive(Debug, Default)]
pub struct Readings {
    /// The bits of a share of one core.
    used: AtomicU64,
    steps: [AtomicU64; Direction::ALL.len()],
}

impl Readings {
    /// Notes what was used of one core.
    pub fn measured(&self, used: Share) {
        self.used.store(used.0.to_bits(), Ordering::Relaxed);
    }

    /// Notes a step.
    pub fn stepped(&self, direction: Direction) {
        let [down, up] = &self.steps;
        let count = if direction == Direction::Down { down } else { up };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// What was used of one core when last measured.
    #[must_use]
    pub fn used(&self) -> Share {
        Share(f64::from_bits(self.used.load(Ordering::Relaxed)))
    }

    /// Steps taken that way since the start.
    #[must_use]
    pub fn steps(&self, direction: Direction) -> u64 {
        let [down, up] = &self.steps;
        let count = if direction == Direction::Down { down } else { up };
        count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
