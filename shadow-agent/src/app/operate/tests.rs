//! Tests of what is replaced, what stays, and what is refused.

use anyhow::anyhow;
use tokio::runtime::Runtime;

use super::*;
use crate::app::build::{Origin, build_line};
use crate::app::current::MAX_RETIRED;
use crate::config::Target;
use crate::control::Control;
use crate::replay::Registrar;

type Next = Arc<Mutex<Result<Config, String>>>;

struct Stage {
    operator: Operator,
    /// What is read at the next reload.
    next: Next,
    control: Control,
    _runtime: Runtime,
}

const BY: Actor = Actor::Signal("test");

fn config() -> Config {
    let mut config = Config::default();
    config.replay.targets = vec![Target {
        name: "candidate".to_owned(),
        url: "http://127.0.0.1:9".parse().unwrap(),
        ..Target::default()
    }];
    config
}

fn stage() -> Stage {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let control = Control::new(true);
    let origin = Origin { mark: 0, own: Registrar::none(), shards: 1, recorded: false };
    let ground = Ground::new(&config(), &runtime, &control, origin).unwrap();
    let current = Arc::new(Current::new(build_line(&config(), &ground, "v1", None).unwrap()));
    let switch = Arc::new(KillSwitch::new(control.clone(), None, Audit::off(), false));
    let next: Next = Arc::new(Mutex::new(Ok(config())));
    let read = Arc::clone(&next);
    let loader = Box::new(move || read.lock().unwrap().clone().map_err(|why| anyhow!(why)));
    let counters = Arc::new(Counters::default);
    let operator = Operator::new(ground, current, switch, Audit::off(), counters, loader, config());
    Stage { operator, next, control, _runtime: runtime }
}

impl Stage {
    fn reload(&self, change: impl FnOnce(&mut Config)) -> Result<Reloaded, Refusal> {
        let mut new = config();
        change(&mut new);
        *self.next.lock().unwrap() = Ok(new);
        self.operator.reload(BY)
    }

    fn line(&self) -> Arc<super::super::line::Line> {
        self.operator.current.line()
    }
}

#[test]
fn the_same_configuration_replaces_nothing() {
    let stage = stage();
    let before = stage.line();
    let done = stage.reload(|_| ()).unwrap();
    assert_eq!((done.changed.len(), done.new_run, done.run.as_str()), (0, false, "v1"));
    assert!(Arc::ptr_eq(&before, &stage.line()));
}

#[test]
fn another_selection_goes_on_in_the_same_run_and_by_the_same_connections() {
    let stage = stage();
    let before = stage.line();
    let done = stage.reload(|new| new.select.only = vec!["/a".to_owned()]).unwrap();
    assert_eq!((done.changed, done.new_run), (vec!["select.only".to_owned()], false));
    let after = stage.line();
    assert!(!Arc::ptr_eq(&before, &after));
    assert!(Arc::ptr_eq(&before.run, &after.run) && Arc::ptr_eq(&before.replayer, &after.replayer));
    assert!(Arc::ptr_eq(&before.ledger, &after.ledger));
}

#[test]
fn other_rules_begin_a_run_and_other_targets_also_other_connections() {
    let stage = stage();
    let before = stage.line();
    let done = stage.reload(|new| new.compare.ignore = vec!["$.a".to_owned()]).unwrap();
    assert_eq!((done.new_run, done.run.as_str()), (true, "v1 #2"));
    let between = stage.line();
    assert!(!Arc::ptr_eq(&before.run, &between.run) && Arc::ptr_eq(&before.replayer, &between.replayer));
    let done = stage.reload(|new| new.replay.targets[0].concurrency = 1).unwrap();
    assert_eq!((done.changed.len(), done.run.as_str()), (2, "v1 #3"));
    assert!(!Arc::ptr_eq(&between.replayer, &stage.line().replayer));
}

#[test]
fn a_configuration_that_disables_does_so_with_or_without_other_changes() {
    for change in [|_: &mut Config| (), |new: &mut Config| new.select.only = vec!["/a".to_owned()]] {
        let stage = stage();
        let done = stage.reload(|new| {
            new.enabled = false;
            change(new);
        });
        assert!(!done.unwrap().enabled && !stage.control.enabled());
        assert!(stage.reload(|_| ()).unwrap().enabled && stage.control.enabled());
    }
}

#[test]
fn what_is_wrong_or_needs_a_restart_leaves_everything_as_it_was() {
    let stage = stage();
    let before = stage.line();
    *stage.next.lock().unwrap() = Err("line 3".to_owned());
    assert_eq!(stage.operator.reload(BY), Err(Refusal::Invalid("line 3".to_owned())));
    let both = stage.reload(|new| {
        new.limits.body = 1;
        new.enabled = false;
    });
    assert_eq!(both, Err(Refusal::NeedsRestart(vec!["limits.body".to_owned()])));
    // What only building finds out.
    let unbuildable = stage.reload(|new| {
        new.compare.ignore = vec!["$[".to_owned()];
        new.enabled = false;
    });
    assert!(matches!(unbuildable, Err(Refusal::Invalid(_))), "{unbuildable:?}");
    assert!(Arc::ptr_eq(&before, &stage.line()));
    assert!(stage.control.enabled());
    assert!(stage.reload(|_| ()).unwrap().changed.is_empty(), "the one in force is still the first");
}

#[test]
fn lines_that_are_not_done_are_bounded() {
    let stage = stage();
    let mut held = Vec::new();
    for number in 0..MAX_RETIRED {
        held.push(stage.line());
        stage.operator.start_run(BY, &number.to_string()).unwrap();
    }
    let last = stage.line();
    assert_eq!(stage.operator.start_run(BY, "more"), Err(Refusal::Busy));
    assert_eq!(stage.reload(|new| new.compare.ignore = vec!["$.a".to_owned()]), Err(Refusal::Busy));
    assert!(Arc::ptr_eq(&last, &stage.line()), "a refusal changes nothing");
    held.pop();
    stage.operator.start_run(BY, "more").unwrap();
}

#[test]
fn a_label_is_bounded_and_can_be_printed() {
    let stage = stage();
    for (label, accepted) in [
        ("x".repeat(LABEL), true),
        ("x".repeat(LABEL + 1), false),
        (String::new(), false),
        ("a\nb".to_owned(), false),
    ] {
        assert_eq!(stage.operator.start_run(BY, &label).is_ok(), accepted, "{label}");
    }
}

#[test]
fn unsafe_methods_are_written_down_whichever_key_has_them_sent() {
    use crate::config::{Condition, SelectRule, Share, Stateful};
    let post = || ["POST".to_owned()].into();
    let mut config = config();
    config.replay.targets[0].isolated = true;
    assert!(unsafe_methods(&config).is_none());
    config.select.methods = post();
    let Some(Action::UnsafeMethods { methods, targets }) = unsafe_methods(&config) else { panic!() };
    assert_eq!((methods, targets), (vec!["POST".to_owned()], vec![config.replay.targets[0].name.clone()]));
    for mode in [Stateful::Skip, Stateful::DryRun, Stateful::RecordOnly] {
        config.select.stateful = Some(mode);
        assert!(unsafe_methods(&config).is_none(), "{mode}");
    }
    config.select.methods = ["GET".to_owned()].into();
    let condition =
        Condition { methods: post(), path: Some("/orders/**".to_owned()), ..Condition::default() };
    config.select.rules = vec![SelectRule { condition, share: Share::ALL, mode: Some(Stateful::Send) }];
    assert!(unsafe_methods(&config).is_some(), "a rule sends it");
}
