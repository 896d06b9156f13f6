//! Tests of the ramp.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn stage(percent: f64, seconds: u64) -> Stage {
    Stage { share: Share(percent / 100.0), hold: (seconds > 0).then_some(SECOND * seconds as u32) }
}

/// 1 % for 10 s, 10 % for 20 s, then all; nothing for 5 s whenever the first does not hold.
fn ramp(observe: Option<Duration>) -> Ramp {
    Ramp::new(&[stage(1.0, 10), stage(10.0, 20), stage(100.0, 0)], observe, SECOND * 5)
}

/// Seconds until the next step forward.
fn seconds_to_next(ramp: &mut Ramp) -> u32 {
    (1..10_000).find(|_| ramp.advance(SECOND)).unwrap_or(0)
}

#[test]
fn it_goes_up_stage_by_stage_each_after_its_own_time() {
    let mut ramp = ramp(Some(SECOND * 3));
    assert_eq!((ramp.share(), ramp.rung(), ramp.remaining()), (Share(0.0), 0, Some(SECOND * 3)));
    for (seconds, share) in [(3, 0.01), (10, 0.1), (20, 1.0)] {
        assert_eq!((seconds_to_next(&mut ramp), ramp.share()), (seconds, Share(share)));
    }
    assert_eq!((ramp.remaining(), seconds_to_next(&mut ramp)), (None, 0), "the last stage is for good");
}

#[test]
fn without_stages_everything_is_replayed_at_once() {
    let mut ramp = Ramp::new(&[], None, SECOND);
    assert_eq!((ramp.share(), ramp.rung(), ramp.remaining()), (Share::ALL, 1, None));
    assert!(ramp.step_back());
    assert_eq!((ramp.share(), ramp.remaining()), (Share(0.0), Some(SECOND)));
    assert!(ramp.advance(SECOND));
    assert_eq!(ramp.share(), Share::ALL);
}

#[test]
fn a_step_back_starts_the_time_of_the_stage_before_anew() {
    let mut ramp = ramp(None);
    assert_eq!(seconds_to_next(&mut ramp), 10);
    ramp.advance(SECOND * 19);
    assert!(ramp.step_back());
    assert_eq!((ramp.share(), ramp.remaining()), (Share(0.01), Some(SECOND * 10)));
    assert!(ramp.step_back());
    assert_eq!((ramp.share(), ramp.remaining()), (Share(0.0), Some(SECOND * 5)));
    ramp.advance(SECOND * 4);
    assert!(!ramp.step_back(), "there is nothing below nothing");
    assert_eq!(ramp.remaining(), Some(SECOND * 5), "but it waits anew");
}

#[test]
fn steps_that_do_not_hold_are_tried_ever_more_rarely_up_to_a_bound() {
    let mut ramp = ramp(None);
    ramp.step_back();
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(seconds_to_next(&mut ramp));
        ramp.advance(SECOND);
        ramp.step_back();
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 5 * MAX_FACTOR, 5 * MAX_FACTOR]);
}

#[test]
fn a_step_that_held_as_long_as_was_waited_for_it_is_forgiven() {
    let mut ramp = ramp(None);
    ramp.step_back();
    seconds_to_next(&mut ramp);
    ramp.step_back();
    assert_eq!(seconds_to_next(&mut ramp), 10);
    // The stage after the wait of 10 s holds for 10 s: that goes well, and so does the one after it.
    assert_eq!((seconds_to_next(&mut ramp), ramp.rung()), (10, 2));
    ramp.step_back();
    assert_eq!(ramp.remaining(), Some(SECOND * 10), "its own time, once");
}

#[test]
fn it_begins_anew_where_it_began() {
    for observe in [None, Some(SECOND)] {
        let mut ramp = ramp(observe);
        let before = (ramp.rung(), ramp.remaining());
        seconds_to_next(&mut ramp);
        seconds_to_next(&mut ramp);
        ramp.restart();
        assert_eq!((ramp.rung(), ramp.remaining()), before);
    }
}

proptest! {
    #[test]
    fn a_larger_share_contains_every_smaller_one(connection: u64, small in 0.0..=1.0_f64, more in 0.0..=1.0_f64) {
        let larger = (small + more).min(1.0);
        let connection = ConnectionId(connection);
        prop_assert!(!holds(Share(small), connection) || holds(Share(larger), connection));
        prop_assert!(holds(Share::ALL, connection) && !holds(Share(0.0), connection));
    }
}

#[test]
fn a_share_holds_that_share_of_connections() {
    let within = (0..100_000).filter(|&id| holds(Share(0.1), ConnectionId(id))).count();
    assert!((9_600..10_400).contains(&within), "{within}");
}

#[test]
fn it_begins_as_soon_as_what_is_usual_is_known_and_a_pause_is_no_such_wait() {
    let mut ramp = ramp(Some(SECOND * 300));
    ramp.advance(SECOND);
    assert!(ramp.begin());
    assert_eq!((ramp.rung(), ramp.remaining()), (1, Some(SECOND * 10)));
    ramp.step_back();
    assert!(!ramp.begin());
    assert_eq!((ramp.rung(), ramp.remaining()), (0, Some(SECOND * 5)));
}
