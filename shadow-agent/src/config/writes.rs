//! What a configuration has written, and where: which stateful requests go to which targets, by which key.
//!
//! Pure, and in plain words: whoever reads them decides about money and mail.

use std::fmt;

use super::{Config, Select, SelectRule, Stateful};

/// Requests that change something, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The unsafe methods; `None` is any of them.
    pub methods: Option<Vec<String>>,
    /// The glob over their paths, if not every path is meant.
    pub path: Option<String>,
    /// Whether more must hold of them.
    pub conditions: bool,
    /// The position of the rule that says so; `None` where no rule decides.
    pub rule: Option<usize>,
    /// What becomes of them.
    pub mode: Stateful,
    /// The targets that get them.
    pub to: Vec<Recipient>,
    /// The targets that get nothing.
    pub not_to: Vec<String>,
    /// The file that they are kept in.
    pub file: Option<String>,
}

/// A target that gets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Its name.
    pub name: String,
    /// Whether it is declared isolated.
    pub isolated: bool,
}

/// What becomes of requests with unsafe methods that are not skipped, rule by rule, and at last where no rule decides.
#[must_use]
pub fn writes(config: &Config) -> Vec<Write> {
    let select = &config.select;
    let by_rules = select.rules.iter().enumerate();
    let by_rules = by_rules.filter_map(|(index, rule)| by_rule(config, index, rule));
    let otherwise = select.stateful.unwrap_or(Stateful::Send);
    let methods = match otherwise {
        Stateful::Send => Some(Select::unsafe_among(&select.methods).cloned().collect()),
        _ => None,
    };
    by_rules.chain(write(config, methods, otherwise)).collect()
}

fn by_rule(config: &Config, index: usize, rule: &SelectRule) -> Option<Write> {
    let (select, condition) = (&config.select, &rule.condition);
    if rule.share.0 <= 0.0 {
        return None;
    }
    let mode = rule.mode.or(select.stateful).unwrap_or(Stateful::Send);
    let all = if condition.methods.is_empty() { &select.methods } else { &condition.methods };
    let methods: Vec<String> = Select::unsafe_among(all).cloned().collect();
    let methods = match mode {
        Stateful::DryRun | Stateful::RecordOnly if condition.methods.is_empty() => None,
        _ => Some(methods),
    };
    let write = write(config, methods, mode)?;
    let bare = super::Condition {
        methods: condition.methods.clone(),
        path: condition.path.clone(),
        ..super::Condition::default()
    };
    let (path, conditions) = (condition.path.clone(), *condition != bare);
    Some(Write { path, conditions, rule: Some(index), ..write })
}

/// Nothing, where nothing is meant.
fn write(config: &Config, methods: Option<Vec<String>>, mode: Stateful) -> Option<Write> {
    if mode == Stateful::Skip || methods.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let gets = |target: &&super::Target| match mode {
        Stateful::Skip | Stateful::RecordOnly => false,
        Stateful::Send => true,
        Stateful::DryRun => target.dry_run,
    };
    let (to, not_to): (Vec<_>, Vec<_>) = config.replay.all().partition(gets);
    let recipient =
        |target: &super::Target| Recipient { name: target.name.clone(), isolated: target.isolated };
    let file = config.select.record.as_ref().filter(|_| mode == Stateful::RecordOnly);
    Some(Write {
        methods,
        path: None,
        conditions: false,
        rule: None,
        mode,
        to: to.into_iter().map(recipient).collect(),
        not_to: not_to.into_iter().map(|target| target.name.clone()).collect(),
        file: file.map(|record| record.out.display().to_string()),
    })
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.methods {
            Some(methods) => f.write_str(&methods.join(", "))?,
            None => f.write_str("unsafe methods")?,
        }
        write!(f, " on {}", self.path.as_deref().unwrap_or("every path"))?;
        if self.conditions {
            f.write_str(" under further conditions")?;
        }
        let names = |isolated: &str| {
            let name = |target: &Recipient| match target.isolated {
                true => format!("{}{isolated}", target.name),
                false => target.name.clone(),
            };
            self.to.iter().map(name).collect::<Vec<_>>().join(", ")
        };
        match self.mode {
            Stateful::Skip => f.write_str(" is skipped")?,
            Stateful::Send => write!(f, " is sent, and writes at {}", names(" (isolated)"))?,
            Stateful::DryRun => write!(f, " is sent as a dry run to {}", names(""))?,
            Stateful::RecordOnly => {
                let file = self.file.as_deref().unwrap_or("no file");
                write!(f, " is recorded, masked, in files named after {file}, and not sent")?;
            }
        }
        if self.mode == Stateful::DryRun && !self.not_to.is_empty() {
            write!(f, " (not to {}, which does not understand it)", self.not_to.join(", "))?;
        }
        match self.rule {
            Some(index) => write!(f, ", by select.rules[{index}]"),
            None if self.mode == Stateful::Send => f.write_str(", by select.methods where no rule decides"),
            None => f.write_str(", by select.stateful where no rule decides"),
        }
    }
}

/// All of it, a line each; one line that says so where nothing is written.
#[must_use]
pub fn in_words(config: &Config) -> Vec<String> {
    let all = writes(config);
    if all.is_empty() {
        return vec!["no request with an unsafe method leaves, so nothing is written anywhere".to_owned()];
    }
    all.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
