//! The ramp: how much of what is selected is replayed, when that grows, and when it shrinks again.
//!
//! Pure: it is told how much time passed and when a guard wants less, and answers with the share. Who measures, and who
//! asks for the share, is not its business.

use std::time::Duration;

use crate::config::Share;
use crate::exchange::ConnectionId;
use crate::policy::chance::position;

/// The most that waiting times grow to while steps forward turn out not to hold: so many times their own length.
pub const MAX_FACTOR: u32 = 64;

/// One stage of a ramp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// The share of connections whose selected exchanges are replayed.
    pub share: Share,
    /// How long all guards must hold before the next stage; none for the last one.
    pub hold: Option<Duration>,
}

impl Stage {
    /// Everything, for good: the only stage where no ramp is configured.
    pub const ALL: Stage = Stage { share: Share::ALL, hold: None };
}

/// Whether a connection is in a share: wholly in or wholly out, and a larger share contains every smaller one.
#[must_use]
pub fn holds(share: Share, connection: ConnectionId) -> bool {
    position(connection.0, SALT) < share.0
}

/// Keeps this choice independent of every other one that goes by an id.
const SALT: u64 = 0x7261_6d70;

/// Goes up a ladder of stages while nothing is wrong, and down a rung when something is.
///
/// Rung 0, below all stages, replays nothing: there it waits before it starts, so that guards can see what is usual, and
/// whenever the first stage did not hold. A rung that it came back to lasts longer each time that the next one then did not
/// hold for as long: twice, four times, up to [`MAX_FACTOR`] times its own length.
#[derive(Clone, Debug)]
pub struct Ramp {
    stages: Vec<Stage>,
    /// How long rung 0 lasts at the start at most, if it is there.
    observe: Option<Duration>,
    /// Whether this is that rung 0.
    observing: bool,
    /// How long rung 0 lasts later.
    pause: Duration,
    rung: usize,
    since: Duration,
    /// How long this rung must last; none for the last one.
    due: Option<Duration>,
    factor: u32,
    /// Whether it went back and has not held one rung further since.
    recovering: bool,
    /// How long this rung must hold to prove that going forward again was right.
    proof: Option<Duration>,
}

impl Ramp {
    /// A ramp of these stages ([`Stage::ALL`] when there are none). With `observe`, nothing is replayed at first
    /// until what is usual is known, and for that long at most; `pause` is how long nothing is replayed once the first stage did not hold.
    #[must_use]
    pub fn new(stages: &[Stage], observe: Option<Duration>, pause: Duration) -> Ramp {
        let stages = if stages.is_empty() { vec![Stage::ALL] } else { stages.to_vec() };
        let mut ramp = Ramp {
            stages,
            observe,
            observing: false,
            pause,
            rung: 0,
            since: Duration::ZERO,
            due: None,
            factor: 1,
            recovering: false,
            proof: None,
        };
        ramp.restart();
        ramp
    }

    /// Begins anew.
    pub fn restart(&mut self) {
        (self.factor, self.recovering, self.proof) = (1, false, None);
        self.enter(if self.observe.is_some() { 0 } else { 1 });
        self.due = self.observe.or(self.due);
        self.observing = self.observe.is_some();
    }

    /// What is usual is known, for which nothing was replayed so far; returns whether that was awaited.
    pub fn begin(&mut self) -> bool {
        if self.observing {
            self.enter(1);
            return true;
        }
        false
    }

    /// The rung: 0 replays nothing, 1 is the first stage.
    #[must_use]
    pub fn rung(&self) -> usize {
        self.rung
    }

    /// How many stages there are.
    #[must_use]
    pub fn stages(&self) -> usize {
        self.stages.len()
    }

    /// The share replayed now.
    #[must_use]
    pub fn share(&self) -> Share {
        self.stage(self.rung).map_or(Share(0.0), |stage| stage.share)
    }

    /// How long it is to the next step forward, if there is one and nothing goes wrong.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_sub(self.since))
    }

    /// Time in which every guard held; returns whether it made a step forward.
    pub fn advance(&mut self, elapsed: Duration) -> bool {
        self.since += elapsed;
        if self.proof.is_some_and(|proof| self.since >= proof) {
            (self.factor, self.recovering, self.proof) = (1, false, None);
        }
        let Some(due) = self.due.filter(|due| self.since >= *due) else { return false };
        let proof = self.recovering.then_some(due);
        self.enter(self.rung + 1);
        self.proof = proof;
        true
    }

    /// Goes one rung back, whose time starts anew; returns whether there was one. The lowest one starts anew, too.
    pub fn step_back(&mut self) -> bool {
        if self.proof.take().is_some() {
            self.factor = (self.factor * 2).min(MAX_FACTOR);
        }
        self.recovering = true;
        let stepped = self.rung > 0;
        self.enter(self.rung.saturating_sub(1));
        self.due = self.due.map(|due| due * self.factor);
        stepped
    }

    fn enter(&mut self, rung: usize) {
        (self.rung, self.since, self.observing) = (rung, Duration::ZERO, false);
        self.due = match self.stage(rung) {
            None => Some(self.pause),
            Some(_) if rung == self.stages.len() => None,
            Some(stage) => stage.hold,
        };
    }

    fn stage(&self, rung: usize) -> Option<Stage> {
        rung.checked_sub(1).and_then(|position| self.stages.get(position)).copied()
    }
}

#[cfg(test)]
mod tests;
