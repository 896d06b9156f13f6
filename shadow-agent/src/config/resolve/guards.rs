//! Resolves `guards` and `replay.ramp`, whose steps they guard.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::file::{self, Text};
use super::super::{ConfigError, GuardAction, GuardRule, Guards, Portion, Problem, Share, units};
use super::replay::rate;
use super::{MAX_BUFFER, at_most, parse, read, within, wrong};
use crate::ramp::Stage;

/// The most stages of a ramp.
const MAX_STAGES: usize = 16;
const HOLD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// Below it a threshold would not stand out from chance; above it nobody would wait.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const PAUSE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const RATIO: RangeInclusive<f64> = 1.05..=100.0;
const LATENCY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(120);
/// An agent without traffic needs about as much.
const LEAST_MEMORY: u64 = 32 << 20;

pub(super) fn guards(
    raw: &file::Guards,
    default: Guards,
    replay: &file::Replay,
) -> Result<Guards, ConfigError> {
    use GuardAction::{Disable, Off, PauseTarget, StepBack};
    let ramped = replay.ramp.as_ref().is_some_and(|stages| !stages.is_empty());
    // A ramp asks for a look at production, and at the agent itself, with every step.
    let of_ramps = if ramped { StepBack } else { Off };
    let duration = |bounds: RangeInclusive<Duration>| {
        move |text: &str| within(text, units::duration(text)?, bounds, |time| units::write_duration(*time))
    };
    let agent = [StepBack, Disable, Off];
    let shadow = [PauseTarget, StepBack, Disable, Off];
    Ok(Guards {
        pause: read("guards.pause", raw.pause.as_ref(), default.pause, duration(PAUSE))?,
        production_latency: rule(
            "production_latency",
            &raw.production_latency,
            GuardRule { action: of_ramps, ..default.production_latency },
            &agent,
            |text| within(text, units::decimal(text)?, RATIO, f64::to_string),
        )?,
        production_errors: rule(
            "production_errors",
            &raw.production_errors,
            GuardRule { action: of_ramps, ..default.production_errors },
            &agent,
            positive,
        )?,
        shadow_errors: rule("shadow_errors", &raw.shadow_errors, default.shadow_errors, &shadow, positive)?,
        shadow_latency: rule(
            "shadow_latency",
            &raw.shadow_latency,
            default.shadow_latency,
            &shadow,
            duration(LATENCY),
        )?,
        memory: rule("memory", &raw.memory, default.memory, &agent, |text| match text {
            "auto" => Ok(None),
            _ => {
                let bounds = LEAST_MEMORY..=MAX_BUFFER;
                within(text, units::size(text)?, bounds, |bytes| units::write_size(*bytes)).map(Some)
            }
        })?,
        ring_losses: rule(
            "ring_losses",
            &raw.ring_losses,
            GuardRule { action: of_ramps, ..default.ring_losses },
            &agent,
            positive,
        )?,
        mask_failures: mask_failures(&raw.mask_failures, default.mask_failures)?,
    })
}

fn rule<T>(
    name: &str,
    raw: &file::Guard,
    default: GuardRule<T>,
    possible: &[GuardAction],
    threshold: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<GuardRule<T>, ConfigError> {
    let key = |part: &str| format!("guards.{name}.{part}");
    Ok(GuardRule {
        threshold: read(&key("threshold"), raw.threshold.as_ref(), default.threshold, threshold)?,
        window: read(&key("window"), raw.window.as_ref(), default.window, |text| {
            within(text, units::duration(text)?, WINDOW, |time| units::write_duration(*time))
        })?,
        action: read(&key("action"), raw.action.as_ref(), default.action, |text| action(text, possible))?,
    })
}

/// One failure is one too many, so there is nothing to set but what is done.
fn mask_failures(raw: &file::Guard, default: GuardAction) -> Result<GuardAction, ConfigError> {
    for (part, given) in [("threshold", &raw.threshold), ("window", &raw.window)] {
        if let Some(text) = given {
            let key = format!("guards.mask_failures.{part}");
            return Err(wrong(key, text.source, Problem::GuardWithout(part)));
        }
    }
    let possible = [GuardAction::Disable, GuardAction::StepBack, GuardAction::Off];
    read("guards.mask_failures.action", raw.action.as_ref(), default, |text| action(text, &possible))
}

fn action(text: &str, possible: &[GuardAction]) -> Result<GuardAction, Problem> {
    let pauses = possible.contains(&GuardAction::PauseTarget);
    possible.iter().copied().find(|action| action.as_str() == text).ok_or_else(|| Problem::Choice {
        value: text.to_owned(),
        possible: match pauses {
            true => "pause-target, step-back, disable or off",
            false => "step-back, disable or off",
        },
    })
}

/// A share above 0: nothing is never too much.
fn positive(text: &str) -> Result<Share, Problem> {
    within(text, units::share(text)?, Share(0.0001)..=Share::ALL, |share| units::write_share(*share))
}

pub(super) fn portion(raw: &file::Replay) -> Result<Portion, ConfigError> {
    Ok(Portion {
        ramp: ramp(raw.ramp.as_deref().unwrap_or_default())?,
        budget: read("replay.budget", raw.budget.as_ref(), None, rate)?,
    })
}

/// The stages of a ramp: shares that rise, each with its time but the last, which is for good.
fn ramp(texts: &[Text]) -> Result<Vec<Stage>, ConfigError> {
    let key = "replay.ramp";
    at_most(key, texts.first().map(|text| text.source), texts.len(), MAX_STAGES)?;
    let mut stages: Vec<Stage> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let last = index + 1 == texts.len();
        let before = stages.last().map(|stage| stage.share);
        stages.push(parse(&format!("{key}[{index}]"), text, |text| stage(text, before, last))?);
    }
    Ok(stages)
}

fn stage(text: &str, before: Option<Share>, last: bool) -> Result<Stage, Problem> {
    let mut words = text.split_whitespace();
    let (Some(share), hold, None) = (words.next(), words.next(), words.next()) else {
        return Err(Problem::Stage(text.to_owned()));
    };
    let parsed = units::share(share).map_err(|_| Problem::Stage(text.to_owned()))?;
    let parsed = within(share, parsed, Share(0.0001)..=Share::ALL, |share| units::write_share(*share))?;
    if let Some(before) = before.filter(|before| *before >= parsed) {
        return Err(Problem::StageFalls { share: share.to_owned(), before: units::write_share(before) });
    }
    let hold = match (hold, last) {
        (None, true) => None,
        (None, false) => return Err(Problem::StageWithoutEnd(share.to_owned())),
        (Some(_), true) => return Err(Problem::StageEnds(text.to_owned())),
        (Some(hold), false) => {
            let time = units::duration(hold).map_err(|_| Problem::Stage(text.to_owned()))?;
            Some(within(hold, time, HOLD, |time| units::write_duration(*time))?)
        }
    };
    Ok(Stage { share: parsed, hold })
}
