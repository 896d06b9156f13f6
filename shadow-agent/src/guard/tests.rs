//! The guard against scripted usage, and against loads that answer to what it does.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Feeds usage second by second; gives every change with the second after which it came.
fn changes(guard: &mut Guard, seconds: u64, used: impl Fn(u64, Step) -> f64) -> Vec<(u64, Direction)> {
    let mut changes = Vec::new();
    for second in 1..=seconds {
        let used = Share(used(second, guard.step()));
        if let Some(Judgement::Change { direction, .. }) = guard.observe(used, SECOND) {
            changes.push((second, direction));
        }
    }
    changes
}

#[test]
fn it_lowers_when_it_is_over_for_long_and_raises_when_there_is_room_for_longer() {
    use Direction::{Down, Up};
    type Case<'a> = (&'a str, &'a [(u64, f64)], &'a [(u64, Direction)]);
    let cases: [Case<'_>; 9] = [
        ("at the limit", &[(60, 1.0)], &[]),
        ("a burst", &[(30, 0.5), (1, 1.9), (30, 0.5)], &[]),
        ("over", &[(9, 1.2)], &[(3, Down), (6, Down), (9, Down)]),
        ("as far as it goes", &[(60, 9.0)], &[3, 6, 9, 12, 15, 18].map(|second| (second, Down))),
        ("no room for twice as much", &[(3, 1.2), (120, 0.45)], &[(3, Down)]),
        ("room", &[(3, 1.2), (15, 0.39)], &[(3, Down), (18, Up)]),
        ("room, and not for long enough", &[(3, 1.2), (12, 0.39), (3, 0.6), (12, 0.39)], &[(3, Down)]),
        ("never above what is configured", &[(3, 1.2), (600, 0.0)], &[(3, Down), (18, Up)]),
        ("step by step", &[(6, 1.2), (30, 0.1)], &[(3, Down), (6, Down), (21, Up), (36, Up)]),
    ];
    for (name, script, expected) in cases {
        let usage: Vec<f64> =
            script.iter().flat_map(|&(seconds, used)| std::iter::repeat_n(used, seconds as usize)).collect();
        let found =
            changes(&mut Guard::new(Share::ALL), usage.len() as u64, |second, _| usage[second as usize - 1]);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn under_a_steady_load_it_comes_to_rest() {
    // What is used whatever the sample, what the whole load costs, the limit, and the step that fits.
    let cases = [
        (0.0, 0.9, 1.0, 0),
        (0.05, 1.5, 1.0, 1),
        (0.1, 3.9, 1.0, 3),
        (0.01, 5.0, 0.5, 4),
        (0.0, 60.0, 1.0, 6),
    ];
    for (fixed, load, limit, expected) in cases {
        let mut guard = Guard::new(Share(limit));
        let used = |_, step: Step| fixed + load * step.of(Share::ALL).0;
        let found = changes(&mut guard, 3600, used);
        assert_eq!(guard.step(), Step(expected), "{fixed} + {load}: {found:?}");
        assert_eq!(found.len(), usize::from(expected), "{fixed} + {load} swings: {found:?}");
    }
}

#[test]
fn a_load_that_only_looks_as_if_it_fitted_is_tried_less_and_less() {
    // One flow makes the whole load, and it is in every sample but the lower half.
    let mut guard = Guard::new(Share::ALL);
    let found = changes(&mut guard, 3600, |_, step| if step == Step::default() { 1.5 } else { 0.0 });
    let raised: Vec<u64> = found
        .iter()
        .filter(|(_, direction)| *direction == Direction::Up)
        .map(|(second, _)| *second)
        .collect();
    let pauses: Vec<u64> = raised.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert!(pauses.last().is_some_and(|&pause| pause >= MAX_CALM.as_secs()), "{pauses:?}");
    assert!(found.len() <= 24, "{found:?}");
}

#[test]
fn a_raise_that_holds_makes_up_for_those_that_did_not() {
    let mut guard = Guard::new(Share::ALL);
    let heavy = |_, step| if step == Step::default() { 1.5 } else { 0.0 };
    changes(&mut guard, 120, heavy);
    assert!(guard.wait > CALM);
    changes(&mut guard, 600, |_, _| 0.1);
    assert_eq!((guard.wait, guard.step()), (CALM, Step::default()));
}

#[test]
fn at_the_lowest_step_it_says_so() {
    let mut guard = Guard::new(Share::ALL);
    changes(&mut guard, 18, |_, _| 9.0);
    assert_eq!(guard.step(), LOWEST);
    assert_eq!(guard.observe(Share(9.0), WINDOW), Some(Judgement::Exhausted { used: Share(9.0) }));
    assert_eq!(guard.step(), LOWEST);
}

#[test]
fn a_step_halves_what_is_configured() {
    for (step, configured, expected) in [(0, 1.0, 1.0), (1, 1.0, 0.5), (6, 1.0, 0.015_625), (2, 0.5, 0.125)] {
        assert_eq!(Step(step).of(Share(configured)), Share(expected));
    }
}

#[test]
fn readings_are_shown_as_noted() {
    let readings = Readings::default();
    readings.measured(Share(0.25));
    readings.stepped(Direction::Down);
    readings.stepped(Direction::Down);
    readings.stepped(Direction::Up);
    assert_eq!(readings.used(), Share(0.25));
    assert_eq!(Direction::ALL.map(|direction| readings.steps(direction)), [2, 1]);
}
