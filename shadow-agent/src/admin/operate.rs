//! What can be asked of a running agent beyond its switches, as both ends of the wire see it. How it is done is the
//! business of `app`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::audit::Actor;
use crate::report::words::printable;

/// Characters shown of a label.
const SHOWN: usize = 80;

/// What a running agent can do when it is asked to. It may take a while, and block.
pub trait Operate: Send + Sync {
    /// Reads the configuration anew, and puts it in force as a whole or not at all.
    ///
    /// # Errors
    /// Why the old one stays in force.
    fn reload(&self, actor: Actor) -> Result<Reloaded, Refusal>;

    /// Ends the run under way, and begins another.
    ///
    /// # Errors
    /// Why it goes on.
    fn start_run(&self, actor: Actor, label: &str) -> Result<RunStarted, Refusal>;
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The keys that changed.
    pub changed: Vec<String>,
    /// The label of the run under way.
    pub run: String,
    /// Whether it began with this, because rules or targets changed.
    pub new_run: bool,
    /// The position of the kill switch.
    pub enabled: bool,
    /// Whether the file says `enabled: true` and an operator's `disable` holds.
    pub held: bool,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changed.as_slice() {
            [] => f.write_str("the configuration is the same as before")?,
            changed => write!(f, "reloaded: {} changed", changed.join(", "))?,
        }
        if self.new_run {
            write!(f, "; a new run began, {}", name(&self.run))?;
        }
        if self.held {
            f.write_str("; capture stays disabled until `shadow-agent ctl enable`")?;
        }
        Ok(())
    }
}

/// What `POST /api/v1/runs` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStarted {
    /// The label of the run that began.
    pub run: String,
    /// The label of the one that ended.
    pub before: String,
}

impl fmt::Display for RunStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} began; {} ended", name(&self.run), name(&self.before))
    }
}

fn name(label: &str) -> String {
    if label.is_empty() { "without a label".to_owned() } else { format!("`{}`", printable(label, SHOWN)) }
}

/// Why an agent goes on as before.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The configuration has a mistake.
    #[error("the configuration has a mistake, and the one before stays in force: {0}")]
    Invalid(String),
    /// It changes what is settled at the start.
    #[error("these need a restart, and nothing was reloaded: {}", .0.join(", "))]
    NeedsRestart(Vec<String>),
    /// Earlier configurations still have requests under way.
    #[error(
        "requests of several earlier configurations or runs are still under way, and nothing was changed"
    )]
    Busy,
    /// Nothing runs that could be changed.
    #[error("what this agent does is settled at its start")]
    Settled,
    /// A label that is none.
    #[error(
        "the label is empty, longer than {} characters, or has characters that cannot be printed",
        crate::runs::LABEL
    )]
    Label,
}

impl Refusal {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Refusal::Invalid(_) => "correct it, and reload again",
            Refusal::NeedsRestart(_) => "restart the agent, or take these changes back and reload again",
            Refusal::Busy => "ask again in a few seconds",
            Refusal::Settled => "stop it, and start it as it should be",
            Refusal::Label => "give it a short name, such as a version or a commit",
        }
    }
}
