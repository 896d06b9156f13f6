//! The kill switch as people throw it: at once, remembered, and written down. `control` holds its position and knows
//! nothing of who threw it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::switch::{SwitchError, SwitchFile};
use crate::audit::{Action, Actor, Audit};
use crate::control::Control;

/// The one way by which operators and the configuration throw the kill switch.
#[derive(Debug)]
pub struct KillSwitch {
    control: Control,
    /// Where an operator's `disable` outlives a restart; without it, it does not.
    file: Option<SwitchFile>,
    audit: Audit,
    /// Whether an operator disabled capture, and nobody enabled it since.
    held: AtomicBool,
    throwing: Mutex<()>,
    remembering: Mutex<()>,
}

impl KillSwitch {
    /// A switch that an operator holds disabled, or not.
    #[must_use]
    pub fn new(control: Control, file: Option<SwitchFile>, audit: Audit, held: bool) -> KillSwitch {
        KillSwitch {
            control,
            file,
            audit,
            held: AtomicBool::new(held),
            throwing: Mutex::default(),
            remembering: Mutex::default(),
        }
    }

    /// Whether an operator's `disable` outlives a restart.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.file.is_some()
    }

    /// Throws it by an operator's wish; gives whether that changed anything.
    ///
    /// Off first, remembered second: neither a full disk nor one that hangs keeps capture on.
    ///
    /// # Errors
    /// When it is thrown, and cannot be remembered.
    pub fn throw(&self, actor: Actor, enabled: bool) -> Result<bool, SwitchError> {
        let changed = {
            let _one_at_a_time = self.throwing.lock().unwrap_or_else(PoisonError::into_inner);
            self.held.store(!enabled, Ordering::Release);
            self.set(actor, enabled)
        };
        if let Some(file) = &self.file {
            let _one_at_a_time = self.remembering.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever threw it last is remembered, whoever comes here last.
            file.remember(!self.held.load(Ordering::Acquire))?;
        }
        Ok(changed)
    }

    /// Takes over `enabled` of a configuration that replaces one with `before`. It disables whenever it says so; it
    /// enables only if it said otherwise before, and never what an operator disabled.
    pub fn configure(&self, actor: Actor, before: bool, enabled: bool) {
        let _one_at_a_time = self.throwing.lock().unwrap_or_else(PoisonError::into_inner);
        if !enabled || (!before && !self.held.load(Ordering::Acquire)) {
            self.set(actor, enabled);
        }
    }

    fn set(&self, actor: Actor, enabled: bool) -> bool {
        let changed = self.control.set_enabled(enabled);
        self.audit.record(actor, Action::Switched { before: enabled != changed, after: enabled });
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_disables_and_never_enables_what_an_operator_disabled() {
        // (held by an operator, enabled now, the file before, the file after, expected)
        for (held, now, before, after, expected) in [
            (false, true, true, false, false),
            (false, true, false, false, false),
            (false, false, false, true, true),
            (false, false, true, true, false),
            (true, false, false, true, false),
            (true, false, true, true, false),
            (true, false, true, false, false),
        ] {
            let control = Control::new(now);
            let switch = KillSwitch::new(control.clone(), None, Audit::off(), held);
            switch.configure(Actor::Config, before, after);
            assert_eq!(control.enabled(), expected, "{held} {now} {before} {after}");
        }
    }

    #[test]
    fn an_operator_s_disable_holds_until_an_operator_enables() {
        let control = Control::new(true);
        let switch = KillSwitch::new(control.clone(), None, Audit::off(), false);
        assert!(switch.throw(Actor::Signal("SIGUSR1"), false).unwrap());
        assert!(!switch.throw(Actor::Signal("SIGUSR1"), false).unwrap(), "nothing changed the second time");
        switch.configure(Actor::Config, false, true);
        assert!(!control.enabled());
        assert!(switch.throw(Actor::Signal("test"), true).unwrap());
        switch.configure(Actor::Config, true, false);
        switch.configure(Actor::Config, false, true);
        assert!(control.enabled(), "what the file disabled, the file enables");
    }

    #[test]
    fn what_is_remembered_is_what_was_thrown_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = SwitchFile::in_directory(folder.path());
        let switch = KillSwitch::new(Control::new(true), Some(file.clone()), Audit::off(), false);
        std::thread::scope(|scope| {
            for turn in 0..8 {
                let switch = &switch;
                scope.spawn(move || switch.throw(Actor::Agent, turn % 2 == 0).unwrap());
            }
        });
        assert_eq!(file.disabled().unwrap(), !switch.control.enabled());
    }
}
