//! Carries out what operators ask of a running agent: another configuration, another run. It judges nothing itself:
//! `config::reload` says what may change, `app::build_line` builds, `current` replaces.

use std::sync::{Arc, Mutex, PoisonError};

use super::build::{Ground, Keep, build_line, new_report};
use super::current::{Current, TooManyRetired};
use super::{Loader, unsafe_methods};
use crate::admin::KillSwitch;
use crate::admin::operate::{Operate, Refusal, Reloaded, RunStarted};
use crate::audit::{Action, Actor, Audit};
use crate::capture::Counters;
use crate::config::reload::Changes;
use crate::config::{Config, advice};
use crate::runs::LABEL;

/// An agent that replays, as operators may change it.
pub(super) struct Operator {
    ground: Ground,
    current: Arc<Current>,
    switch: Arc<KillSwitch>,
    audit: Audit,
    counters: Arc<dyn Fn() -> Counters + Send + Sync>,
    loader: Loader,
    /// The configuration in force. Locked while something is changed, so that changes come one after the other.
    config: Mutex<Config>,
}

impl Operator {
    pub(super) fn new(
        ground: Ground,
        current: Arc<Current>,
        switch: Arc<KillSwitch>,
        audit: Audit,
        counters: Arc<dyn Fn() -> Counters + Send + Sync>,
        loader: Loader,
        config: Config,
    ) -> Operator {
        Operator { ground, current, switch, audit, counters, loader, config: Mutex::new(config) }
    }

    fn take_over(&self, actor: Actor, config: &mut Config) -> Result<Reloaded, Refusal> {
        let invalid = |error: anyhow::Error| Refusal::Invalid(format!("{error:#}"));
        let new = (self.loader)().map_err(invalid)?;
        let changes = Changes::between(config, &new);
        if !changes.refused.is_empty() {
            return Err(Refusal::NeedsRestart(changes.refused));
        }
        // Nothing goes out by a configuration that disables, not even one request; and one that is refused disables nothing.
        let switch_off = || {
            if !new.enabled {
                self.switch.configure(actor, config.enabled, false);
            }
        };
        if new.select == config.select && !changes.rules {
            switch_off();
        } else {
            self.replace(&new, &changes, switch_off).map_err(|error| match error.downcast_ref() {
                Some(Retired) => Refusal::Busy,
                None => invalid(error),
            })?;
        }
        if new.enabled {
            self.switch.configure(actor, config.enabled, true);
        }
        let allowed = unsafe_methods(&new);
        if allowed != unsafe_methods(config)
            && let Some(allowed) = allowed
        {
            self.audit.record(actor, allowed);
        }
        for advice in advice::here(&new) {
            tracing::warn!("{advice}");
        }
        let enabled = self.ground.control.enabled();
        let held = new.enabled && !enabled;
        *config = new;
        let run = self.current.runs().current().report().label().to_owned();
        Ok(Reloaded { changed: changes.taken, run, new_run: changes.rules, enabled, held })
    }

    /// Builds everything anew that changed, and puts it in force as one.
    fn replace(&self, new: &Config, changes: &Changes, first: impl FnOnce()) -> anyhow::Result<()> {
        let line = self.current.line();
        let sending = (!changes.targets).then(|| line.sending());
        let masker = (!changes.targets && !changes.masks).then(|| Arc::clone(&line.masker));
        let keep = Keep { run: Arc::clone(&line.run), keeping: Arc::clone(&line.keeping), masker, sending };
        let next = build_line(new, &self.ground, "", Some(&keep))?;
        let label = self.current.runs().next_label();
        let report = changes.rules.then(|| new_report(new, next.replayer.targets(), &label));
        let before = line.run.report().label().to_owned();
        // Whoever still holds it would keep it from being done.
        drop((line, keep));
        let replaced = self.current.replace(next, report, (self.counters)(), first);
        replaced.map_err(|TooManyRetired| Retired)?;
        if changes.rules {
            self.audit.record(Actor::Config, Action::RunStarted { before, after: label });
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("requests of earlier configurations are still under way")]
struct Retired;

impl Operate for Operator {
    fn reload(&self, actor: Actor) -> Result<Reloaded, Refusal> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.take_over(actor, &mut config);
        match &done {
            Ok(done) => {
                tracing::info!(
                    changed = done.changed.join(","),
                    run = done.run,
                    "the configuration was reloaded"
                );
                self.audit.record(actor, Action::Reloaded { sections: done.changed.clone() });
            }
            Err(refusal) => {
                tracing::warn!("{refusal}; {}", refusal.remedy());
                self.audit.record(actor, Action::ReloadRefused { why: refusal.to_string() });
            }
        }
        done
    }

    fn start_run(&self, actor: Actor, label: &str) -> Result<RunStarted, Refusal> {
        if label.is_empty() || label.chars().count() > LABEL || label.chars().any(char::is_control) {
            return Err(Refusal::Label);
        }
        let _one_at_a_time = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*self.current.line()).clone();
        let before = next.run.report().label().to_owned();
        let report = next.run.report().next(label);
        self.current
            .replace(next, Some(report), (self.counters)(), || ())
            .map_err(|TooManyRetired| Refusal::Busy)?;
        tracing::info!(run = label, before, "another run began");
        self.audit.record(actor, Action::RunStarted { before: before.clone(), after: label.to_owned() });
        Ok(RunStarted { run: label.to_owned(), before })
    }
}

#[cfg(test)]
mod tests;
