//! Tests of what is carried out.

use super::*;
use crate::admin::SwitchFile;
use crate::config::GuardAction;
use crate::config::Share;
use crate::exchange::Role;
use crate::guard::Direction;
use crate::ramp::Stage;

const SECOND: Duration = Duration::from_secs(1);

fn keeper(config: &Config, switch: Option<SwitchFile>) -> Keeper {
    let target = |name: &str, role| TargetInfo { name: name.to_owned(), role };
    let control = Control::new(true);
    let switch = Arc::new(KillSwitch::new(control.clone(), switch, Audit::off(), false));
    let wiring = Wiring {
        control,
        vitals: Arc::new(Vitals::new(&config.guards, 2)),
        board: Arc::default(),
        targets: vec![target("candidate", Role::Candidate), target("baseline", Role::Baseline)],
        counters: Arc::new(Counters::default),
        switch,
        audit: Audit::off(),
    };
    Keeper::new(config, wiring)
}

fn ramped() -> Config {
    let mut config = Config::default();
    config.portion.ramp =
        vec![Stage { share: Share(0.1), hold: Some(SECOND * 2) }, Stage { share: Share(1.0), hold: None }];
    config
}

fn find(keeper: &mut Keeper, deed: Deed) {
    keeper.carry_out(&Finding { guard: Name::RingLosses, deed, said: "12 % were bad".to_owned() });
    keeper.publish();
}

#[test]
fn the_ramp_is_in_force_from_the_start_and_its_steps_are_shown() {
    let mut keeper = keeper(&ramped(), None);
    let control = keeper.wiring.control.clone();
    let rung = control.replaying().rung();
    assert_eq!((rung.share, rung.stage, rung.stages), (Share(0.1), 1, 2));
    assert!(rung.next.is_some());
    keeper.turn(SECOND);
    keeper.turn(SECOND);
    let rung = control.replaying().rung();
    assert_eq!((rung.share, rung.stage, rung.next), (Share::ALL, 2, None));
    find(&mut keeper, Deed::StepBack);
    assert_eq!(control.replaying().share(), Share(0.1));
    find(&mut keeper, Deed::StepBack);
    assert_eq!((control.replaying().share(), control.replaying().rung().stage), (Share(0.0), 0));
    find(&mut keeper, Deed::StepBack);
    let steps: Vec<_> = keeper.wiring.board.steps().filter(|(.., count)| *count > 0).collect();
    assert_eq!(steps, [("ring_losses", Direction::Down, 2), ("ramp", Direction::Up, 1)]);
}

#[test]
fn with_a_look_at_production_nothing_is_replayed_at_first() {
    let mut config = ramped();
    config.guards.production_latency.action = GuardAction::StepBack;
    config.guards.production_latency.window = SECOND * 2;
    for known in [true, false] {
        let mut keeper = keeper(&config, None);
        let seconds = (1..100).find(|_| {
            assert_eq!(keeper.wiring.control.replaying().share(), Share(0.0));
            let answers = if known { 500 } else { 1 };
            (0..answers).for_each(|_| keeper.wiring.vitals.answered(200, SECOND));
            keeper.turn(SECOND);
            keeper.wiring.control.replaying().share() == Share(0.1)
        });
        assert_eq!(seconds, Some(if known { 3 } else { 20 }), "known: {known}");
    }
}

#[test]
fn a_target_is_paused_probed_and_resumed_and_no_other_is_concerned() {
    let mut keeper = keeper(&Config::default(), None);
    let control = keeper.wiring.control.clone();
    let takes = |target| (0..100).filter(|_| control.replaying().takes(target)).count();
    for (deed, expected) in [
        (Deed::Pause(0, SECOND), 0),
        (Deed::Probe(0), PROBES as usize),
        (Deed::Resume(0), 100),
        (Deed::Pause(0, SECOND), 0),
    ] {
        find(&mut keeper, deed);
        assert_eq!((takes(0), takes(1)), (expected, 100), "{deed:?}");
    }
}

#[test]
fn a_guard_that_disables_is_remembered_like_an_operator_and_enabling_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = SwitchFile::in_directory(folder.path());
    let mut keeper = keeper(&ramped(), Some(file.clone()));
    let control = keeper.wiring.control.clone();
    keeper.turn(SECOND);
    keeper.turn(SECOND);
    find(&mut keeper, Deed::Pause(1, SECOND));
    keeper.wiring.vitals.mask_failed(1);
    keeper.turn(SECOND);
    assert!(!control.enabled() && file.disabled().unwrap());
    assert!(keeper.wiring.board.tripped(Name::MaskFailures));
    keeper.turn(SECOND * 60);
    assert_eq!(control.replaying().rung().stage, 2, "the ramp stands still");
    control.set_enabled(true);
    keeper.turn(SECOND);
    assert_eq!((control.replaying().rung().stage, control.replaying().paused(1)), (1, false));
    assert!(control.enabled() && !keeper.wiring.board.tripped(Name::MaskFailures));
}

#[test]
fn this_process_has_memory_of_its_own() {
    assert!(anonymous_memory() > 100 << 10);
}
