//! The thread body against scripted sources.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::backlog::{Admitted, Receiver, backlog};
use crate::capture::{Segment, TcpFlags};
use crate::config::Limits;
use crate::ledger::Snapshot;
use crate::shard::PipelineSettings;

/// What a poll of the source does.
enum Poll {
    /// One exchange, on a connection from that port.
    Exchange(u16),
    /// A request without a response, on a connection from that port.
    Request(u16),
    /// The response to such a request.
    Response(u16),
    /// Nothing is there, and from now on `stop` is set.
    Stop,
    /// The source fails.
    Fail,
    /// There is more, without end.
    Endless,
}

struct Script {
    polls: VecDeque<Poll>,
    stop: Arc<AtomicBool>,
    can_wait: bool,
}

fn request(port: u16, handle: &mut dyn FnMut(&Segment<'_>)) {
    send(port, true, b"GET / HTTP/1.1\r\n\r\n", handle);
}

fn response(port: u16, handle: &mut dyn FnMut(&Segment<'_>)) {
    send(port, false, b"HTTP/1.1 204 No Content\r\n\r\n", handle);
}

fn send(port: u16, up: bool, payload: &[u8], handle: &mut dyn FnMut(&Segment<'_>)) {
    let (client, server) = (SocketAddr::from(([10, 0, 0, 1], port)), SocketAddr::from(([10, 0, 0, 2], 80)));
    let (source, destination, seq, ack) = if up { (client, server, 1, 1) } else { (server, client, 1, 19) };
    handle(&Segment {
        time: Timestamp(1),
        source,
        destination,
        seq,
        ack,
        flags: TcpFlags::ACK,
        direction: None,
        payload,
        missing: 0,
        is_shed: false,
    });
}

impl SegmentSource for Script {
    type Error = io::Error;

    fn can_wait(&self) -> bool {
        self.can_wait
    }

    fn poll(&mut self, _: Duration, handle: &mut dyn FnMut(&Segment<'_>)) -> io::Result<Option<usize>> {
        match self.polls.front() {
            None => return Ok(None),
            Some(Poll::Endless) => {
                self.stop.store(true, Ordering::Release);
                return Ok(Some(1));
            }
            Some(_) => {}
        }
        match self.polls.pop_front() {
            Some(Poll::Exchange(port)) => {
                request(port, handle);
                response(port, handle);
                Ok(Some(2))
            }
            Some(Poll::Response(port)) => {
                response(port, handle);
                Ok(Some(1))
            }
            Some(Poll::Request(port)) => {
                request(port, handle);
                Ok(Some(1))
            }
            Some(Poll::Fail) => Err(io::Error::other("gone")),
            _ => {
                self.stop.store(true, Ordering::Release);
                Ok(Some(0))
            }
        }
    }
}

fn pipeline() -> Pipeline {
    Pipeline::new(&PipelineSettings::new(&Limits::default(), &[(80, 80)], 1, 7))
}

/// Runs a script to its end with a queue of that size; gives the books, what is in the queue, and whether it failed.
fn check(script: Vec<Poll>, size: usize, expected: (u64, &[(LostReason, u64)], bool)) {
    let (sender, mut receiver) = backlog(size, 16 << 20);
    let ledger = Ledger::new(1, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let source = Script { polls: script.into(), stop: stop.clone(), can_wait: false };
    let beats = Cell::new(0);
    let control = Control::new(true);
    let links = Links { shard: 0, ledger: &ledger, backlog: &sender, control: &control, stop: &stop };
    let result = run(source, pipeline(), &links, || beats.set(beats.get() + 1));
    drop(sender);
    let (queued, lost, failed) = expected;
    assert_eq!(result.is_err(), failed);
    assert!(beats.get() > 0);
    let snapshot = ledger.snapshot();
    assert_eq!(snapshot.imbalance(), 0);
    assert_eq!((snapshot.in_flight, snapshot.flows, snapshot.buffered), (queued, 0, 0));
    for reason in LostReason::ALL {
        let expected = lost.iter().find(|(other, _)| other == reason).map_or(0, |&(_, count)| count);
        assert_eq!(snapshot.lost[*reason as usize], expected, "lost to {reason}");
    }
    let received = std::iter::from_fn(|| next(&mut receiver)).inspect(|_| ledger.selected()).count();
    assert_eq!(received as u64, queued);
    assert_eq!((ledger.snapshot().selected, ledger.snapshot().imbalance()), (queued, 0));
}

#[test]
fn however_it_ends_the_books_balance() {
    use Poll::{Endless, Exchange, Fail, Request, Stop};
    let exchanges = |count: u16| (1..=count).map(Exchange).collect::<Vec<_>>();
    check(vec![Exchange(1), Request(2)], 8, (1, &[(LostReason::Shutdown, 1)], false));
    check(vec![Exchange(1), Request(2), Fail], 8, (1, &[(LostReason::Shutdown, 1)], true));
    check(vec![Stop, Stop, Exchange(1)], 8, (0, &[], false));
    check(vec![Stop, Exchange(1), Stop, Exchange(2)], 8, (1, &[], false));
    check(vec![Exchange(1), Endless], 8, (1, &[], false));
    check(exchanges(3), 3, (3, &[], false));
    check(exchanges(4), 3, (3, &[(LostReason::Backlog, 1)], false));
}

/// Runs five thousand exchanges into a queue of four, whose other end takes so many and then is no more, or is
/// watched by somebody who says stop.
fn take(can_wait: bool, taken: usize, then_stop: bool) -> Snapshot {
    let (sender, mut receiver) = backlog(4, 16 << 20);
    let ledger = Ledger::new(1, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let polls = (0..5_000u32).map(|port| Poll::Exchange(port as u16)).collect();
    let source = Script { polls, stop: stop.clone(), can_wait };
    thread::scope(|scope| {
        let (ledger, stop) = (&ledger, &stop);
        let shard = scope.spawn(move || {
            let control = Control::new(true);
            let links = Links { shard: 0, ledger, backlog: &sender, control: &control, stop };
            run(source, pipeline(), &links, || ())
        });
        let taking = scope.spawn(move || {
            for _ in 0..taken {
                if next(&mut receiver).is_none() {
                    break;
                }
                ledger.selected();
            }
            stop.store(then_stop, Ordering::Release);
            then_stop.then_some(receiver)
        });
        while !(shard.is_finished() && taking.is_finished()) {
            assert_eq!(ledger.snapshot().imbalance(), 0);
            thread::sleep(Duration::from_micros(50));
        }
    });
    let end = ledger.snapshot();
    assert_eq!((end.imbalance(), end.selected + end.lost_total() + end.in_flight), (0, end.seen));
    end
}

#[test]
fn nobody_receives_what_is_not_in_the_books() {
    let end = take(false, usize::MAX, false);
    assert_eq!((end.seen, end.in_flight), (5_000, 0));
}

#[test]
fn a_source_that_can_wait_loses_nothing_to_a_full_queue() {
    let end = take(true, usize::MAX, false);
    assert_eq!((end.selected, end.lost_total(), end.seen), (5_000, 0, 5_000));
}

#[test]
fn a_source_that_can_wait_does_not_wait_for_somebody_who_is_gone_or_wants_no_more() {
    for then_stop in [true, false] {
        let end = take(true, 10, then_stop);
        assert_eq!((end.selected, end.lost[LostReason::Backlog as usize]), (10, 0));
        assert!(end.lost[LostReason::Shutdown as usize] > 0, "{end:?}");
    }
}

/// A file that hands over what it has in one go.
struct OneGo<F>(Option<F>);

impl<F: FnOnce(&mut dyn FnMut(&Segment<'_>)) + Send> SegmentSource for OneGo<F> {
    type Error = io::Error;

    fn can_wait(&self) -> bool {
        true
    }

    fn poll(&mut self, _: Duration, handle: &mut dyn FnMut(&Segment<'_>)) -> io::Result<Option<usize>> {
        Ok(self.0.take().map(|give| {
            give(handle);
            1
        }))
    }
}

/// Runs a file to its end.
fn run_to_end(give: impl FnOnce(&mut dyn FnMut(&Segment<'_>)) + Send, backlog: &Sender) {
    let (ledger, control) = (Ledger::new(1, 1), Control::new(true));
    let stop = AtomicBool::new(false);
    let links = Links { shard: 0, ledger: &ledger, backlog, control: &control, stop: &stop };
    run(OneGo(Some(give)), pipeline(), &links, || ()).unwrap();
    assert_eq!(ledger.snapshot().imbalance(), 0);
}

#[test]
fn what_a_pipe_brought_does_not_wait_for_what_it_will_bring() {
    let (sender, mut receiver) = backlog(4, 16 << 20);
    let give = |handle: &mut dyn FnMut(&Segment<'_>)| {
        request(1, handle);
        response(1, handle);
        // Here a read blocks; the exchange is there already.
        assert!(try_next(&mut receiver).is_some());
    };
    run_to_end(give, &sender);
}

#[test]
fn an_exchange_that_waits_for_room_is_not_overtaken_by_a_smaller_one() {
    let (sender, mut receiver) = backlog(8, 40 << 10);
    let answer = |length: usize| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), &vec![b'x'; length]].concat()
    };
    let give = move |handle: &mut dyn FnMut(&Segment<'_>)| {
        for port in [1, 2] {
            send(port, true, &b"GET / HTTP/1.1\r\n\r\n".repeat(2), handle);
            send(port, false, &[answer(30_000), answer(port.into())].concat(), handle);
        }
    };
    let lengths = thread::scope(|scope| {
        scope.spawn(move || {
            run_to_end(give, &sender);
            drop(sender);
        });
        std::iter::from_fn(|| next(&mut receiver))
            .map(|admitted| admitted.exchange.response.body.len())
            .collect::<Vec<_>>()
    });
    assert_eq!(lengths, [30_000, 1, 30_000, 2]);
}

#[test]
fn the_kill_switch_skips_what_is_open_and_what_comes_later_is_rebuilt_again() {
    let (sender, _receiver) = backlog(4, 16 << 20);
    let (ledger, control) = (Ledger::new(1, 1), Control::new(true));
    let stop = Arc::new(AtomicBool::new(false));
    let polls = vec![Poll::Request(1), Poll::Exchange(2), Poll::Exchange(3)];
    let source = Script { polls: polls.into(), stop: stop.clone(), can_wait: false };
    let turns = Cell::new(0);
    let beat = || {
        turns.set(turns.get() + 1);
        control.set_enabled(turns.get() != 2);
    };
    let links = Links { shard: 0, ledger: &ledger, backlog: &sender, control: &control, stop: &stop };
    run(source, pipeline(), &links, beat).unwrap();
    let end = ledger.snapshot();
    assert_eq!(end.skipped[SkipReason::Disabled as usize], 1);
    assert_eq!((end.lost_total(), end.in_flight, end.imbalance()), (0, 2, 0));
}

#[test]
fn a_lower_sample_loses_what_is_open_in_the_flows_it_leaves_out_and_nothing_else() {
    let (sender, _receiver) = backlog(256, 16 << 20);
    let (ledger, control) = (Ledger::new(1, 1), Control::new(true));
    let stop = Arc::new(AtomicBool::new(false));
    // A hundred flows with an open request each, sampling down to half of them, one more exchange on each, and back.
    let ports = || 1..=100_u16;
    let (open, further) = (ports().map(Poll::Request), ports().map(Poll::Response));
    let polls: Vec<_> = open.chain(further).chain(ports().map(|port| Poll::Exchange(200 + port))).collect();
    let source = Script { polls: polls.into(), stop: stop.clone(), can_wait: false };
    let turns = Cell::new(0);
    let beat = || {
        turns.set(turns.get() + 1);
        match turns.get() {
            101 => control.set_sample(Share(0.5)),
            201 => control.set_sample(Share::ALL),
            _ => false,
        };
    };
    let links = Links { shard: 0, ledger: &ledger, backlog: &sender, control: &control, stop: &stop };
    run(source, pipeline(), &links, beat).unwrap();
    let end = ledger.snapshot();
    let lost = end.lost[LostReason::SampledOut as usize];
    assert!((30..=70).contains(&lost), "{lost} of 100 flows");
    assert_eq!((end.lost_total(), end.seen, end.imbalance()), (lost, 200, 0));
    assert_eq!(end.in_flight, 200 - lost, "everything else is whole");
}

/// What is there now.
fn try_next(receiver: &mut Receiver) -> Option<Admitted> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            biased;
            admitted = receiver.next() => admitted,
            () = std::future::ready(()) => None,
        }
    })
}

fn next(receiver: &mut Receiver) -> Option<Admitted> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(receiver.next())
}

#[test]
fn the_clock_follows_the_segments() {
    let mut clock = Clock { stands: false, last: None };
    assert_eq!(clock.now(), None);
    clock.seen(Timestamp(5_000_000_000));
    assert!(clock.now().unwrap() >= Timestamp(5_000_000_000));
    clock.seen(Timestamp(1_000_000_000));
    assert!(clock.now().unwrap() < Timestamp(5_000_000_000), "set back with them");
    clock.stands = true;
    assert_eq!(clock.now(), Some(Timestamp(1_000_000_000)), "however long ago that was");
}
