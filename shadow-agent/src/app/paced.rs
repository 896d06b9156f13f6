//! Sends what a file holds at its pace: reads ahead, waits for each request's time, and never has more under way than
//! the targets take at once, so that nothing is dropped that could have waited.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::line::{Chosen, Decision, Line, Open};
use crate::backlog::{Admitted, MAX_QUEUED, Receiver};
use crate::exchange::{LostReason, SessionId};
use crate::pace::{Pace, Schedule};

/// The most exchanges that wait for their time. One that was recorded earlier and ended later than all of them is late.
const READ_AHEAD: usize = MAX_QUEUED;

/// How long the first request waits at most for others that were recorded earlier and ended later.
const SETTLE: Duration = Duration::from_millis(250);

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pacing {
    /// How fast.
    pub pace: Pace,
}

/// An exchange that was selected, and what may be sent of it.
type Ready = (Admitted, Chosen);

/// The requests of sessions of which one is under way. Each waits for the answers of all targets to the one before, and
/// nothing is dropped, because a file can wait.
#[derive(Debug, Default)]
struct Chains {
    behind: HashMap<SessionId, VecDeque<Ready>>,
    waiting: usize,
}

impl Chains {
    /// Takes a request's turn: gives it back if it has no session or none of it is under way, and keeps it otherwise.
    fn turn(&mut self, ready: Ready) -> Option<Ready> {
        let Some(session) = ready.1.session() else { return Some(ready) };
        match self.behind.get_mut(&session) {
            Some(behind) => {
                behind.push_back(ready);
                self.waiting += 1;
                None
            }
            None => {
                self.behind.insert(session, VecDeque::new());
                Some(ready)
            }
        }
    }

    /// The next of a session whose request ended.
    fn ended(&mut self, session: SessionId) -> Option<Ready> {
        let next = self.behind.get_mut(&session).and_then(VecDeque::pop_front);
        match next {
            Some(_) => self.waiting -= 1,
            None => drop(self.behind.remove(&session)),
        }
        next
    }
}

/// The place of a request under way; when it is dropped, the next of its session may go.
struct Turn {
    session: Option<SessionId>,
    ended: mpsc::UnboundedSender<SessionId>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            // Nobody waits for it any more.
            let _ = self.ended.send(session);
        }
    }
}

impl Line {
    /// Takes exchanges until the backlog ends or `stop` says so, `most` a second, and so many under way at once. What
    /// waits then is lost. Gives by how much a request was late at most.
    pub(super) async fn drive_paced(
        self: Arc<Line>,
        mut backlog: Receiver,
        pacing: Pacing,
        (most, under_way): (Option<f64>, usize),
        stop: CancellationToken,
    ) -> Duration {
        let places = Arc::new(Semaphore::new(under_way));
        let mut schedule: Schedule<Ready> = Schedule::new(pacing.pace, most);
        let mut chains = Chains::default();
        // Their turn has come already; they follow one that ended.
        let mut next: VecDeque<Ready> = VecDeque::new();
        // Bounded by the places: each is sent by a request that gives up one.
        let (ended, mut endings) = mpsc::unbounded_channel();
        let mut read = true;
        let mut begin = None;
        loop {
            let waiting = schedule.len() + chains.waiting + next.len();
            if waiting == 0 && !read {
                break;
            }
            let room = read && waiting < READ_AHEAD;
            let now = Instant::now();
            let due = match (next.front(), begin) {
                (Some(_), _) => Some(now),
                (None, Some(begin)) if room && begin > now => Some(begin),
                (None, _) => schedule.due(now),
            };
            let place = async {
                let place = Arc::clone(&places).acquire_owned().await;
                sleep_until(due.unwrap_or(now)).await;
                place
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(session) = endings.recv() => next.extend(chains.ended(session)),
                admitted = backlog.next(), if room => match admitted {
                    Some(admitted) => {
                        begin.get_or_insert(Instant::now() + SETTLE);
                        match self.decide(&admitted.exchange) {
                            Ok(Decision::Keep) => self.keep(admitted),
                            Ok(Decision::Send(chosen)) => {
                                schedule.push(admitted.exchange.times.started, (admitted, chosen));
                            }
                            Err(reason) => self.ledger.skipped(reason),
                        }
                    }
                    None => read = false,
                },
                place = place, if due.is_some() => {
                    let Ok(place) = place else { break };
                    begin = Some(now);
                    let ready = next.pop_front().or_else(|| {
                        let ready = schedule.pop(Instant::now())?;
                        chains.turn(ready)
                    });
                    let Some((admitted, chosen)) = ready else { continue };
                    let turn = Turn { session: chosen.session(), ended: ended.clone(), _place: place };
                    let open = Open::new(&self);
                    let line = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        let _turn = turn;
                        line.carry(admitted, chosen, open).await;
                    });
                }
            }
        }
        let waiting = schedule.len() + chains.waiting + next.len();
        (0..waiting).for_each(|_| self.ledger.lost(LostReason::Shutdown));
        backlog.close();
        while backlog.next().await.is_some() {
            self.ledger.lost(LostReason::Shutdown);
        }
        schedule.late()
    }
}
