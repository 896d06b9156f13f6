//! What changes from one configuration to the next, and which of it a running agent takes over. Pure.
//!
//! Everything is refused that is not known to be replaceable, so that a key which is added later and forgotten here needs
//! a restart, and is never half applied.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Config, Target, show};

/// The sections that a reload replaces. In `replay`, the number, order and names of the targets stay.
pub const RELOADABLE: [&str; 6] = ["enabled", "select", "mask", "replay", "compare", "verdict"];

/// Keys of these sections that a reload does not replace: the ramp stands where it stands, and files are open.
const KEPT: [&str; 3] = ["replay.ramp", "replay.budget", "select.record"];

/// What a key is called that differs and is not shown.
const UNSHOWN: &str = "a setting that `config show` hides";

/// The difference between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that changed and that a reload takes over.
    pub taken: Vec<String>,
    /// Keys that changed and need a restart.
    pub refused: Vec<String>,
    /// Whether requests go elsewhere, or otherwise.
    pub targets: bool,
    /// Whether what is masked has changed.
    pub masks: bool,
    /// Whether what a verdict means has changed: what is compared, with whom, how it is judged, or what is masked.
    pub rules: bool,
}

impl Changes {
    /// What changes when `new` replaces `old`.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Changes {
        let mut shown = BTreeSet::new();
        difference("", &show::value(old), &show::value(new), &mut shown);
        let section = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
        let (mut taken, mut refused): (Vec<_>, Vec<_>) = shown
            .into_iter()
            .partition(|key| RELOADABLE.contains(&section(key).as_str()) && !KEPT.contains(&key.as_str()));
        let Config { enabled, select, mask, replay, compare, verdict, .. } = new.clone();
        let rest = Config { enabled, select, mask, replay, compare, verdict, ..old.clone() };
        if rest != *new && refused.is_empty() {
            refused.push(UNSHOWN.to_owned());
        }
        if rest == *new && old != new && taken.is_empty() {
            taken.push(UNSHOWN.to_owned());
        }
        if names(old) != names(new) || old.replay.baseline.is_some() != new.replay.baseline.is_some() {
            refused
                .push("the names, the number or the order of replay.targets and replay.baseline".to_owned());
        }
        let targets = old.replay != new.replay;
        let masks = old.mask != new.mask;
        let rules = targets || old.compare != new.compare || old.verdict != new.verdict || masks;
        Changes { taken, refused, targets, masks, rules }
    }
}

fn names(config: &Config) -> Vec<&str> {
    let targets = config.replay.targets.iter().chain(&config.replay.baseline);
    targets.map(|Target { name, .. }| name.as_str()).collect()
}

/// The keys that differ, two levels deep: `capture.ports`, `replay.targets`.
fn difference(prefix: &str, old: &Value, new: &Value, keys: &mut BTreeSet<String>) {
    if old == new {
        return;
    }
    let nothing = serde_json::Map::new();
    let fields = |value: &Value| value.as_object().cloned();
    match (fields(old), fields(new)) {
        (None, None) => drop(keys.insert(prefix.to_owned())),
        _ if prefix.contains('.') => drop(keys.insert(prefix.to_owned())),
        (old, new) => {
            let (old, new) = (old.unwrap_or_else(|| nothing.clone()), new.unwrap_or(nothing));
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                let of =
                    |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                difference(&key, &of(&old), &of(&new), keys);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EndpointRule, MaskRules, Share};

    fn config() -> Config {
        let mut config = Config::default();
        let target = |name: &str| Target {
            name: name.to_owned(),
            url: format!("http://{name}").parse().unwrap(),
            set_headers: vec![("authorization".to_owned(), "one".to_owned())],
            ..Target::default()
        };
        config.replay.targets = vec![target("candidate"), target("other")];
        config.replay.baseline = Some(target("baseline"));
        config
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Config), taken: &[&str], refused: &[&str], rules: bool, targets: bool) {
        let (old, mut new) = (config(), config());
        change(&mut new);
        let found = Changes::between(&old, &new);
        assert_eq!(
            (&found.taken[..], &found.refused[..]),
            (
                &taken.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..],
                &refused.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]
            )
        );
        assert_eq!((found.rules, found.targets), (rules, targets));
    }

    #[test]
    fn what_a_reload_takes_over_is_named_and_says_whether_a_run_ends() {
        check(|_| (), &[], &[], false, false);
        check(|new| new.enabled = false, &["enabled"], &[], false, false);
        let post = |new: &mut Config| new.select.methods = ["POST".to_owned()].into();
        check(post, &["select.methods"], &[], false, false);
        let rules = MaskRules { fields: vec!["$.a".into()], ..MaskRules::default() };
        check(|new| new.mask.send = rules, &["mask.send"], &[], true, false);
        check(|new| new.compare.ignore.push("$.a".into()), &["compare.ignore"], &[], true, false);
        let rule = EndpointRule { path: "/a".into(), mismatch: None };
        check(|new| new.compare.endpoints.push(rule), &["compare.endpoints"], &[], true, false);
        check(|new| new.verdict.mismatch = Share(0.5), &["verdict.limits"], &[], true, false);
        check(|new| new.replay.targets[1].concurrency = 1, &["replay.targets"], &[], true, true);
    }

    #[test]
    fn a_header_whose_value_is_hidden_changes_the_targets_all_the_same() {
        let set = |new: &mut Config| new.replay.targets[0].set_headers[0].1 = "two".to_owned();
        check(set, &[UNSHOWN], &[], true, true);
    }

    #[test]
    fn what_needs_a_restart_is_named_and_nothing_else_of_it_is_hidden() {
        check(|new| new.capture.ports = vec![(1, 2)], &[], &["capture.ports"], false, false);
        check(|new| new.capture.sample = Share(0.5), &[], &["capture.sample"], false, false);
        check(|new| new.limits.body = 1, &[], &["limits.body"], false, false);
        check(|new| new.admin.listen = None, &[], &["admin.listen"], false, false);
        check(|new| new.audit.keep = 1, &[], &["audit.keep"], false, false);
        let both = |new: &mut Config| {
            new.limits.flows = 1;
            new.enabled = false;
        };
        check(both, &["enabled"], &["limits.flows"], false, false);
    }

    #[test]
    fn targets_cannot_come_go_or_change_places() {
        for change in [
            (|new| drop(new.replay.targets.pop())) as fn(&mut Config),
            |new| new.replay.targets.swap(0, 1),
            |new| new.replay.targets[0].name = "else".to_owned(),
            |new| new.replay.baseline = None,
        ] {
            let (old, mut new) = (config(), config());
            change(&mut new);
            let found = Changes::between(&old, &new).refused;
            assert!(matches!(&found[..], [one] if one.contains("replay.targets")), "{found:?}");
        }
    }
}
