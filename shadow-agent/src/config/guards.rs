//! How much is replayed, and `guards`: what must stay as it is meanwhile, and what is done if it does not.

use std::time::Duration;

use super::Share;
use crate::ramp::Stage;

/// `replay.ramp` and `replay.budget`: how much of what is selected is replayed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Portion {
    /// The stages by which the share that is replayed grows; without any, everything is replayed at once.
    pub ramp: Vec<Stage>,
    /// Exchanges replayed per second, spread so that rare endpoints get more of them; `None` is unlimited.
    pub budget: Option<f64>,
}

/// What is done when a guard trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardAction {
    /// Nothing; the guard does not look.
    Off,
    /// The ramp goes one stage back; below the first stage, and without a ramp, nothing is replayed for a while.
    StepBack,
    /// The target that it is about gets nothing for a while, and then a few probes.
    PauseTarget,
    /// As an operator's `disable`: nothing is captured and replayed until someone enables it.
    Disable,
}

impl GuardAction {
    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            GuardAction::Off => "off",
            GuardAction::StepBack => "step-back",
            GuardAction::PauseTarget => "pause-target",
            GuardAction::Disable => "disable",
        }
    }
}

/// One guard: what is too much, over how long a time, and what is done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardRule<T> {
    /// What is too much.
    pub threshold: T,
    /// The time over which it is measured.
    pub window: Duration,
    /// What is done.
    pub action: GuardAction,
}

/// Every guard beside that of the CPU, which is `limits.cpu`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guards {
    /// How long nothing is sent to a target that was paused, or replayed at all once the ramp is below its first stage. It
    /// doubles while what follows does not hold.
    pub pause: Duration,
    /// p99 of production's time to first byte, as a multiple of what it was while less was replayed.
    pub production_latency: GuardRule<f64>,
    /// Share of production's responses with status 5xx, beyond what it was while less was replayed.
    pub production_errors: GuardRule<Share>,
    /// Share of a target's requests that failed, or were answered 5xx, where production answered something else.
    pub shadow_errors: GuardRule<Share>,
    /// p95 of a target's time to first byte.
    pub shadow_latency: GuardRule<Duration>,
    /// Anonymous memory of the agent (RssAnon), in bytes; `None` goes by `limits.total_buffer`.
    pub memory: GuardRule<Option<u64>>,
    /// Share of selected packets that found their ring full.
    pub ring_losses: GuardRule<Share>,
    /// What is done when the self-check of masking fails once.
    pub mask_failures: GuardAction,
}

impl Default for Guards {
    /// On are those that mean the same in every installation. What production does, and what the rings lose, has many
    /// causes, so it is watched when there is a ramp, or when the operator asks for it.
    fn default() -> Guards {
        let window = Duration::from_secs(30);
        Guards {
            pause: Duration::from_secs(60),
            production_latency: GuardRule { threshold: 1.5, window, action: GuardAction::Off },
            production_errors: GuardRule { threshold: Share(0.02), window, action: GuardAction::Off },
            shadow_errors: GuardRule { threshold: Share(0.5), window, action: GuardAction::PauseTarget },
            shadow_latency: GuardRule { threshold: Duration::from_secs(2), window, action: GuardAction::Off },
            memory: GuardRule {
                threshold: None,
                window: Duration::from_secs(10),
                action: GuardAction::Disable,
            },
            ring_losses: GuardRule { threshold: Share(0.05), window, action: GuardAction::Off },
            mask_failures: GuardAction::Disable,
        }
    }
}
