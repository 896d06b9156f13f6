//! The guards of what replaying may hurt: readings and time in, what is to be done out.
//!
//! **Production** is compared with itself: with its own figure in the last whole window at a lower share of the ramp.
//! `production_latency` trips when p99 of a window is more than its threshold times that, and at least [`LEAST_EXCESS`]
//! above it; `production_errors` when the share of 5xx is more than its threshold above it. Traffic that changes by itself
//! may trip them too, which costs a step back: what is measured there is what is compared with after the next step.
//!
//! **A target** is compared with production (`shadow_errors`: failures, and 5xx where production answered something else)
//! or with a fixed time (`shadow_latency`: p95). **The agent** is held to what it may need (`memory`), to what it may miss
//! (`ring_losses`), and to hiding what it was told to (`mask_failures`).
//!
//! Pure. Nothing is judged by fewer samples than the constants here say.

use std::fmt;
use std::time::Duration;

use super::pause::{Change, Pause};
use super::vitals::{Tally, Vitals};
use super::window::{STRETCH, Times, Window};
use crate::config::units::{write_duration, write_share, write_size};
use crate::config::{GuardAction, GuardRule, Guards};
use crate::exchange::reasons;
use crate::report::words::{duration, percent, thousands};

/// Responses of production below which no p99 is compared: five of them lie beyond it.
pub const LEAST_TIMES: u64 = 500;

/// Responses or requests below which no share of errors, and no p95 of a target, is judged.
pub const LEAST_ANSWERS: u64 = 100;

/// Packets below which no share of losses is judged.
pub const LEAST_PACKETS: u64 = 1000;

/// By how much p99 of production must have grown at least: less is noise of schedulers, whatever multiple it is.
pub const LEAST_EXCESS: Duration = Duration::from_millis(5);

/// What the agent may need beside twice `limits.total_buffer`, where `guards.memory.threshold` is `auto`. Half as much
/// would do: only a defect or a leak gets there.
pub const MEMORY_ALLOWANCE: u64 = 128 << 20;

reasons! {
    /// A guard, by its name in the configuration.
    Name {
        /// p99 of production.
        ProductionLatency = "production_latency",
        /// Errors of production.
        ProductionErrors = "production_errors",
        /// Errors of a target.
        ShadowErrors = "shadow_errors",
        /// p95 of a target.
        ShadowLatency = "shadow_latency",
        /// Memory of the agent.
        Memory = "memory",
        /// Packets that found their ring full.
        RingLosses = "ring_losses",
        /// The self-check of masking.
        MaskFailures = "mask_failures",
    }
}

/// What is read beside [`Vitals`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Selected packets since the start, those that found their ring full being bad.
    pub packets: Tally,
    /// Anonymous memory of the agent, in bytes.
    pub memory: u64,
    /// Failures of the self-check of masking since the start.
    pub mask_failures: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The ramp goes one stage back.
    StepBack,
    /// A target is given nothing for so long.
    Pause(usize, Duration),
    /// A paused target is given a few requests.
    Probe(usize),
    /// A paused target is given everything again.
    Resume(usize),
    /// Everything is disabled.
    Disable,
}

/// What a guard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which one.
    pub guard: Name,
    /// What is to be done.
    pub deed: Deed,
    /// What was found, in words.
    pub said: String,
}

/// Figures of production by rung of the ramp, of which the last one below the present rung is what is usual.
#[derive(Clone, Debug, Default)]
struct Usual(Vec<Option<f64>>);

impl Usual {
    /// What is usual for that rung.
    fn below(&self, rung: usize) -> Option<f64> {
        self.0.iter().take(rung).rev().flatten().next().copied()
    }

    fn note(&mut self, rung: usize, figure: f64) {
        if self.0.len() <= rung {
            self.0.resize(rung + 1, None);
        }
        if let Some(slot) = self.0.get_mut(rung) {
            *slot = Some(figure);
        }
    }

    /// What was measured from that rung on is not usual.
    fn forget_from(&mut self, rung: usize) {
        self.0.truncate(rung);
    }
}

/// How one target is watched.
#[derive(Debug)]
struct Target {
    errors: Window,
    times: Times,
    pause: Pause,
    /// Which guard paused it.
    by: Name,
}

/// Every guard of one agent.
#[derive(Debug)]
pub struct Watch {
    guards: Guards,
    memory: u64,
    rung: usize,
    latency: (Times, Usual),
    errors: (Window, Usual),
    targets: Vec<Target>,
    rings: Window,
    /// How long memory has been above its threshold.
    above: Duration,
    mask_failures: u64,
    tripped: Vec<Name>,
}

impl Watch {
    /// The guards that `guards` say, for so many targets, of an agent whose buffers may take so many bytes.
    #[must_use]
    pub fn new(guards: &Guards, targets: usize, total_buffer: usize) -> Watch {
        let target = |position| Target {
            errors: Window::default(),
            times: Times::new(Some(position)),
            pause: Pause::new(guards.pause),
            by: Name::ShadowErrors,
        };
        let auto = (total_buffer as u64).saturating_mul(2).saturating_add(MEMORY_ALLOWANCE);
        Watch {
            memory: guards.memory.threshold.unwrap_or(auto),
            guards: *guards,
            rung: 0,
            latency: (Times::new(None), Usual::default()),
            errors: (Window::default(), Usual::default()),
            targets: (0..targets).map(target).collect(),
            rings: Window::default(),
            above: Duration::ZERO,
            mask_failures: 0,
            tripped: Vec::new(),
        }
    }

    /// How long production is seen at most before anything is replayed, so that it can be compared with itself: until every
    /// guard of it has had a window with enough in it ([`Watch::knows_usual`]).
    #[must_use]
    pub fn observation(&self) -> Option<Duration> {
        let (latency, errors) = (&self.guards.production_latency, &self.guards.production_errors);
        let latency = is_on(latency).then_some(latency.window);
        let errors = is_on(errors).then_some(errors.window);
        latency.max(errors).map(|window| window * STRETCH)
    }

    /// Whether it is known of production what is usual while nothing is replayed.
    #[must_use]
    pub fn knows_usual(&self) -> bool {
        let (latency, errors) = (&self.guards.production_latency, &self.guards.production_errors);
        (!is_on(latency) || self.latency.1.below(1).is_some())
            && (!is_on(errors) || self.errors.1.below(1).is_some())
    }

    /// Whether a guard tripped and has not found things well since.
    #[must_use]
    pub fn tripped(&self, guard: Name) -> bool {
        self.tripped.contains(&guard)
    }

    /// Throws away what windows hold: while the agent stood still, or was disabled, nothing usual was measured.
    pub fn restart_windows(&mut self) {
        self.latency.0.restart();
        self.errors.0 = Window::default();
        self.rings = Window::default();
        self.above = Duration::ZERO;
        for target in &mut self.targets {
            target.times.restart();
            target.errors = Window::default();
        }
    }

    /// Begins anew, after someone enabled again what was disabled.
    pub fn restart(&mut self) {
        self.restart_windows();
        (self.latency.1, self.errors.1) = (Usual::default(), Usual::default());
        self.targets.iter_mut().for_each(|target| target.pause.restart());
        self.tripped.clear();
    }

    /// Looks at everything, at this rung of the ramp, so long after it last did.
    pub fn observe(
        &mut self,
        reading: &Reading,
        vitals: &Vitals,
        rung: usize,
        elapsed: Duration,
    ) -> Vec<Finding> {
        if std::mem::replace(&mut self.rung, rung) != rung {
            self.restart_windows();
        }
        let mut found = Vec::new();
        self.production_latency(vitals, elapsed, &mut found);
        self.production_errors(vitals, elapsed, &mut found);
        for position in 0..self.targets.len() {
            self.target(position, vitals, elapsed, &mut found);
        }
        self.agent(reading, elapsed, &mut found);
        found
    }

    fn production_latency(&mut self, vitals: &Vitals, elapsed: Duration, found: &mut Vec<Finding>) {
        let rule = self.guards.production_latency;
        if !is_on(&rule) {
            return;
        }
        let (times, usual) = &mut self.latency;
        let Some(times) = times.turn(vitals, elapsed, rule.window, LEAST_TIMES) else { return };
        let Some(p99) = times.quantile(0.99).map(|p99| p99.value) else { return };
        let before = usual.below(self.rung).map(Duration::from_secs_f64);
        let bad = before.filter(|before| {
            p99 > before.mul_f64(rule.threshold) && p99.saturating_sub(*before) >= LEAST_EXCESS
        });
        match bad {
            None => usual.note(self.rung, p99.as_secs_f64()),
            Some(_) => usual.forget_from(self.rung),
        }
        let said = bad.map(|before| {
            format!(
                "p99 of production's time to first byte was {} in {} responses, {:.1} times the {} while less was \
                 replayed, and may be {} times",
                duration(p99),
                thousands(times.count()),
                p99.as_secs_f64() / before.as_secs_f64().max(1e-6),
                duration(before),
                rule.threshold
            )
        });
        if before.is_some() {
            self.judged(Name::ProductionLatency, rule.action, said, found);
        }
    }

    fn production_errors(&mut self, vitals: &Vitals, elapsed: Duration, found: &mut Vec<Finding>) {
        let rule = self.guards.production_errors;
        if !is_on(&rule) {
            return;
        }
        let (window, usual) = &mut self.errors;
        let Some(seen) = window.turn(vitals.production(), elapsed, rule.window, LEAST_ANSWERS) else {
            return;
        };
        let before = usual.below(self.rung);
        let bad = before.filter(|before| seen.share() - before > rule.threshold.0);
        match bad {
            None => usual.note(self.rung, seen.share()),
            Some(_) => usual.forget_from(self.rung),
        }
        let said = bad.map(|before| {
            format!(
                "{} of production's {} responses were 5xx, {} while less was replayed, and it may be {} more",
                percent(seen.share()),
                thousands(seen.total),
                percent(before),
                write_share(rule.threshold)
            )
        });
        if before.is_some() {
            self.judged(Name::ProductionErrors, rule.action, said, found);
        }
    }

    fn target(&mut self, position: usize, vitals: &Vitals, elapsed: Duration, found: &mut Vec<Finding>) {
        let (errors, slow) = (self.guards.shadow_errors, self.guards.shadow_latency);
        let tally = vitals.target(position);
        let Some(target) = self.targets.get_mut(position) else { return };
        if !target.pause.is_running() {
            let too_many = |probed: Tally| is_on(&errors) && probed.share() > errors.threshold.0;
            let probes = vitals.target(position);
            let mut said = "it answers again".to_owned();
            let change = target.pause.observe(elapsed, probes, |probed| {
                let times = vitals.take_times(Some(position));
                let p95 = times.quantile(0.95).filter(|_| is_on(&slow)).map(|p95| p95.value);
                let late = p95.filter(|p95| *p95 > slow.threshold);
                said = format!("{} of {} probes failed", thousands(probed.bad), thousands(probed.total));
                if let Some(p95) = late {
                    said += &format!(", with a p95 of {}", duration(p95));
                }
                too_many(probed) || late.is_some()
            });
            let Some(change) = change else { return };
            let deed = match change {
                Change::Paused(pause) => Deed::Pause(position, pause),
                Change::Probed => {
                    target.times.restart();
                    drop(vitals.take_times(Some(position)));
                    "its pause is over".clone_into(&mut said);
                    Deed::Probe(position)
                }
                Change::Resumed => Deed::Resume(position),
            };
            let guard = target.by;
            (target.errors, _) = (Window::default(), target.times.restart());
            found.push(Finding { guard, deed, said });
            if change == Change::Resumed && !self.targets.iter().any(|other| other.is_paused_by(guard)) {
                self.tripped.retain(|tripped| *tripped != guard);
            }
            return;
        }
        let _ = target.pause.observe(elapsed, tally, |_| false);
        if is_on(&errors)
            && let Some(seen) = target.errors.turn(tally, elapsed, errors.window, LEAST_ANSWERS)
        {
            let said = (seen.share() > errors.threshold.0).then(|| {
                format!(
                    "{} of {} requests to it failed or were answered 5xx where production answered otherwise, and it \
                     may be {}",
                    percent(seen.share()),
                    thousands(seen.total),
                    write_share(errors.threshold)
                )
            });
            self.judged_target(Name::ShadowErrors, errors.action, position, said, found);
        }
        let Some(target) = self.targets.get_mut(position) else { return };
        if is_on(&slow)
            && target.pause.is_running()
            && let Some(times) = target.times.turn(vitals, elapsed, slow.window, LEAST_ANSWERS)
            && let Some(p95) = times.quantile(0.95)
        {
            let said = (p95.value > slow.threshold).then(|| {
                format!(
                    "p95 of its time to first byte was {} in {} requests, and may be {}",
                    duration(p95.value),
                    thousands(times.count()),
                    write_duration(slow.threshold)
                )
            });
            self.judged_target(Name::ShadowLatency, slow.action, position, said, found);
        }
    }

    fn agent(&mut self, reading: &Reading, elapsed: Duration, found: &mut Vec<Finding>) {
        let rule = self.guards.memory;
        if is_on(&rule) {
            self.above = if reading.memory > self.memory { self.above + elapsed } else { Duration::ZERO };
            let bad = (self.above >= rule.window).then(|| {
                let (held, limit) = (write_mib(reading.memory), write_size(self.memory));
                format!(
                    "the agent holds {held} of memory, and may hold {limit}, for {}",
                    duration(rule.window)
                )
            });
            if bad.is_some() || self.above.is_zero() {
                self.above = Duration::ZERO;
                self.judged(Name::Memory, rule.action, bad, found);
            }
        }
        let rule = self.guards.ring_losses;
        if is_on(&rule)
            && let Some(seen) = self.rings.turn(reading.packets, elapsed, rule.window, LEAST_PACKETS)
        {
            let said = (seen.share() > rule.threshold.0).then(|| {
                format!(
                    "{} of {} packets found their ring full, and it may be {}",
                    percent(seen.share()),
                    thousands(seen.total),
                    write_share(rule.threshold)
                )
            });
            self.judged(Name::RingLosses, rule.action, said, found);
        }
        let action = self.guards.mask_failures;
        let failed = reading.mask_failures.saturating_sub(self.mask_failures);
        self.mask_failures = reading.mask_failures;
        if action != GuardAction::Off && failed > 0 {
            let said = format!("{} values that are to be hidden were about to leave", thousands(failed));
            self.judged(Name::MaskFailures, action, Some(said), found);
        }
    }

    /// A guard found that something is wrong, or that nothing is.
    fn judged(&mut self, guard: Name, action: GuardAction, said: Option<String>, found: &mut Vec<Finding>) {
        self.tripped.retain(|tripped| *tripped != guard);
        let Some(said) = said else { return };
        self.tripped.push(guard);
        let deed = match action {
            GuardAction::StepBack => Deed::StepBack,
            GuardAction::Disable => Deed::Disable,
            // The first is not asked, and the second has a target.
            GuardAction::Off | GuardAction::PauseTarget => return,
        };
        found.push(Finding { guard, deed, said });
    }

    fn judged_target(
        &mut self,
        guard: Name,
        action: GuardAction,
        position: usize,
        said: Option<String>,
        found: &mut Vec<Finding>,
    ) {
        if action != GuardAction::PauseTarget {
            return self.judged(guard, action, said, found);
        }
        let Some(target) = self.targets.get_mut(position) else { return };
        if let Some(said) = said
            && let Some(Change::Paused(pause)) = target.pause.trip()
        {
            target.by = guard;
            self.tripped.retain(|tripped| *tripped != guard);
            self.tripped.push(guard);
            found.push(Finding { guard, deed: Deed::Pause(position, pause), said });
        }
    }
}

impl Target {
    fn is_paused_by(&self, guard: Name) -> bool {
        !self.pause.is_running() && self.by == guard
    }
}

fn is_on<T>(rule: &GuardRule<T>) -> bool {
    rule.action != GuardAction::Off
}

fn write_mib(bytes: u64) -> String {
    format!("{}MiB", thousands(bytes >> 20))
}

#[cfg(test)]
mod tests;
