use std::cell::RefCell;

use super::*;
use crate::control::Control;

const LONG: Duration = Duration::from_secs(3600);
const ONE: SessionId = SessionId(1);
const OTHER: SessionId = SessionId(2);

fn gate() -> Gate {
    Gate::new(Control::new(true))
}

#[tokio::test]
async fn requests_of_a_session_go_one_after_the_other_in_the_order_in_which_they_began() {
    let (order, gate, log) = (Order::new(Duration::from_millis(20)), gate(), RefCell::new(Vec::new()));
    let send = async |session: SessionId, seen: u64| {
        let turn = order.turn(session, Timestamp(seen), LONG, &gate).await.unwrap();
        log.borrow_mut().push((session.0, seen, "begins"));
        tokio::time::sleep(Duration::from_millis(10)).await;
        log.borrow_mut().push((session.0, seen, "ends"));
        drop(turn);
    };
    // The last to come began first.
    tokio::join!(send(ONE, 30), send(ONE, 20), send(ONE, 20), send(OTHER, 5), send(ONE, 10));
    let log = log.into_inner();
    let of_one: Vec<_> =
        log.iter().filter(|entry| entry.0 == 1).map(|&(_, seen, what)| (seen, what)).collect();
    let one_after_the_other =
        [10, 20, 20, 30].into_iter().flat_map(|seen| [(seen, "begins"), (seen, "ends")]);
    assert_eq!(of_one, one_after_the_other.collect::<Vec<_>>());
    let other_ends = log.iter().position(|entry| *entry == (2, 5, "ends")).unwrap();
    let last_of_one = log.iter().position(|entry| *entry == (1, 30, "begins")).unwrap();
    assert!(other_ends < last_of_one, "the other session waited: {log:?}");
    assert!(order.lock().active.is_empty(), "a session that has nothing to send is forgotten");
}

#[tokio::test]
async fn a_turn_that_does_not_come_in_time_is_given_up_and_holds_up_nobody() {
    let (order, gate) = (Order::new(Duration::ZERO), gate());
    let first = order.turn(ONE, Timestamp(1), LONG, &gate).await.unwrap();
    let short = Duration::from_millis(5);
    let second = order.turn(ONE, Timestamp(2), short, &gate).await;
    assert_eq!(second.err(), Some(DropReason::Order));
    let (third, ()) = tokio::join!(order.turn(ONE, Timestamp(3), LONG, &gate), async { drop(first) });
    drop(third.unwrap());
    // One that waits no more lets the next one go, too.
    let first = order.turn(ONE, Timestamp(1), LONG, &gate).await.unwrap();
    let given_up = order.queue(ONE, Timestamp(2)).unwrap();
    let (third, ()) = tokio::join!(order.turn(ONE, Timestamp(3), LONG, &gate), async {
        drop(first);
        drop(given_up);
    });
    drop(third.unwrap());
    gate.close();
    assert_eq!(order.turn(ONE, Timestamp(4), LONG, &gate).await.map(drop), Ok(()), "nobody to wait for");
    let _held = order.turn(ONE, Timestamp(5), LONG, &gate).await.unwrap();
    assert_eq!(order.turn(ONE, Timestamp(6), LONG, &gate).await.err(), Some(DropReason::Shutdown));
}

#[tokio::test]
async fn so_many_wait_and_no_more() {
    let order = Order::new(Duration::ZERO);
    let held: Vec<_> = (0..MAX_WAITING).map(|_| order.queue(ONE, Timestamp(1)).expect("room")).collect();
    assert!(order.queue(ONE, Timestamp(0)).is_none());
    assert!(order.queue(OTHER, Timestamp(1)).is_some(), "another session has room of its own");
    drop(held);
    let sessions = |number: usize| order.queue(SessionId(number as u64), Timestamp(1));
    let held: Vec<_> = (0..MAX_SESSIONS).map(|number| sessions(number).expect("room")).collect();
    assert!(sessions(MAX_SESSIONS).is_none());
    assert!(sessions(0).is_some(), "a session that is known may go on");
    drop(held);
    assert!(order.lock().active.is_empty());
}
