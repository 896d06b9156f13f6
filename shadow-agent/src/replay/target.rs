//! One target: its limits, its connections, and the way of one request through them. It knows no other target.
//!
//! A request first needs a slot under the concurrency limit; it waits for one, in order, in a bounded queue. Right before
//! it is sent, the rate limit, the circuit breaker and the kill switch are asked. From then on the target's timeout runs:
//! it covers connecting, sending and the whole answer. All of that happens in the caller's task.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::task::TaskTracker;

use super::breaker::{Breaker, Pass};
use super::connection::{Broken, Connection, Progress};
use super::connector::{ConnectError, Connector, Link, Means};
use super::gate::Gate;
use super::http2;
use super::mapping::Mapping;
use super::order::Order;
use super::pool::Pool;
use super::rate::Bucket;
use super::request::{self, Rewrite};
use super::room::Room;
use super::slots::Slots;
use super::tls::Offer;
use super::unsendable::Unsendable;
use super::{Outcome, ReplayError, Settings};
use crate::config;
use crate::exchange::{Answer, DropReason, FailReason, SessionId};
use crate::policy::mask::Sendable;

mod protocol;
mod shared;
mod turn;

use protocol::{Protocol, Protocols};

/// How long connecting may take at most, within the target's timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest concurrency limit that can be configured; each request under way has a socket of its own.
pub(super) const MAX_CONCURRENCY: usize = 4096;

/// Everything there is for one target.
#[derive(Debug)]
pub(super) struct Target {
    rewrite: Rewrite,
    connector: Connector,
    http: Protocols,
    pool: Pool<Box<Connection>>,
    shared: Shared,
    slots: Slots,
    rate: Option<Bucket>,
    breaker: Breaker,
    timeout: Duration,
    body_limit: usize,
    room: Room,
    gate: Arc<Gate>,
    order: Order,
    /// The tokens of all targets, and the position of this one.
    tokens: Option<(Arc<Mapping>, usize)>,
}

/// What requests of HTTP/2 have in common.
#[derive(Debug)]
struct Shared {
    pool: http2::Pool<http2::Connection>,
    /// Where the connections' own tasks run.
    tasks: TaskTracker,
    /// Whether it was said that the target does not speak HTTP/2.
    complained: AtomicBool,
    target: String,
}

/// Leave to send one request.
struct Admission<'a> {
    _slot: SemaphorePermit<'a>,
    pass: Pass<'a>,
}

impl Target {
    /// Checks the configuration of a target.
    ///
    /// # Errors
    /// The value that makes no sense.
    pub(super) fn new(
        config: &config::Target,
        means: Means,
        settings: &Settings,
        room: Room,
    ) -> Result<Target, ReplayError> {
        let name = || config.name.clone();
        let (tasks, gate) = (means.tasks.clone(), Arc::clone(&means.gate));
        let connector = Connector::new(config, means)?;
        if !(1..=MAX_CONCURRENCY).contains(&config.concurrency) {
            return Err(ReplayError::Concurrency { target: name(), value: config.concurrency });
        }
        if let Some(rate) = config.rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return Err(ReplayError::Rate { target: name(), value: rate });
        }
        if config.timeout.is_zero() {
            return Err(ReplayError::Timeout { target: name() });
        }
        let now = Instant::now();
        Ok(Target {
            rewrite: Rewrite::new(config, settings.traces)?,
            http: Protocols::new(config.http, connector.is_tls()),
            connector,
            pool: Pool::new(config.concurrency),
            shared: Shared {
                pool: http2::Pool::new(),
                tasks,
                complained: AtomicBool::new(false),
                target: name(),
            },
            slots: Slots::new(config.concurrency),
            rate: config.rate.map(|rate| Bucket::new(rate, now)),
            breaker: Breaker::new(config.breaker.clone(), now),
            timeout: config.timeout,
            body_limit: settings.body_limit,
            room,
            gate,
            order: Order::new(Duration::ZERO),
            tokens: None,
        })
    }

    /// Says by which header field, and which value of it, the target understands that a request is a dry run.
    ///
    /// # Errors
    /// When no request can carry it.
    pub(super) fn understand_dry_runs(
        &mut self,
        field: Option<&(String, String)>,
    ) -> Result<(), ReplayError> {
        field.map_or(Ok(()), |field| self.rewrite.understand_dry_runs(&self.shared.target, field))
    }

    /// Sends a request as soon as the limits allow, or not at all. Ends within twice the timeout.
    pub(super) async fn send(&self, request: &Sendable) -> Outcome {
        if request.is_dry_run() && !self.rewrite.has_dry_run() {
            return Outcome::Dropped(DropReason::DryRun);
        }
        let Admission { _slot, pass } = match self.admit(request).await {
            Ok(admission) => admission,
            Err(reason) => return Outcome::Dropped(reason),
        };
        let began = Instant::now();
        let deadline = began + self.timeout;
        let ended = match self.http.of(request.version()) {
            Protocol::One => self.exchange(request, deadline, None).await,
            Protocol::Two => Box::pin(self.exchange_http2(request, deadline)).await,
        };
        let outcome = match ended {
            Ok(mut answer) => {
                answer.response.body = self.room.hold(answer.response.body);
                Outcome::Answered(answer)
            }
            Err(outcome) => outcome,
        };
        let outcome = if self.gate.stood_still_since(began) { outcome.of_a_stall() } else { outcome };
        pass.report(&outcome, Instant::now());
        outcome
    }

    /// Requests waiting for a slot now.
    pub(super) fn queue_length(&self) -> usize {
        self.slots.waiting()
    }

    /// Whether the circuit breaker holds requests back.
    pub(super) fn breaker_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Looks the target's name up if it is time, and closes idle connections that have expired, were closed by the
    /// target, or lead to an address that is its own no more; those of HTTP/2 that are in use take no further request.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.connector.sweep(now);
        self.pool.sweep(now, |connection| self.connector.leads_to(connection.peer()));
        self.shared.pool.sweep(now, |connection| {
            if !self.connector.leads_to(connection.peer()) {
                connection.retire();
            }
        });
    }

    /// Whether it has credentials of its own that can change.
    pub(super) fn has_credentials(&self) -> bool {
        self.rewrite.has_credentials()
    }

    /// Reads its own credentials again if they have changed; blocks.
    pub(super) fn reread(&self) {
        self.rewrite.reread();
    }

    /// Closes every idle connection, for good.
    pub(super) fn close(&self) {
        self.pool.close();
        self.shared.pool.close();
    }

    async fn admit(&self, request: &Sendable) -> Result<Admission<'_>, DropReason> {
        self.gate.check()?;
        let now = Instant::now();
        if self.breaker.refuses(now) {
            return Err(DropReason::Breaker);
        }
        let slot = self.slots.take(size(request), now + self.timeout, &self.gate).await?;
        self.gate.check()?;
        if self.room.is_full() {
            return Err(DropReason::Memory);
        }
        let now = Instant::now();
        if self.rate.as_ref().is_some_and(|rate| !rate.take(now)) {
            return Err(DropReason::Rate);
        }
        let pass = self.breaker.admit(now).ok_or(DropReason::Breaker)?;
        Ok(Admission { _slot: slot, pass })
    }

    /// By HTTP/1.1, on a new connection if one is given. What is rare is boxed here, because every request pays for the
    /// size of this future.
    async fn exchange(
        &self,
        request: &Sendable,
        deadline: Instant,
        given: Option<Box<Link>>,
    ) -> Result<Answer, Outcome> {
        let mut timer = pin!(sleep_until(deadline));
        let message = self.message(request)?;
        let (connection, pooled) = match (given, self.pool.take(request.session(), Instant::now())) {
            (None, Some(connection)) => (connection, true),
            (given, _) => (Box::pin(self.connect(deadline, given)).await?, false),
        };
        self.gate.check_switch().map_err(Outcome::Dropped)?;
        match self.attempt(connection, message, request.session(), timer.as_mut()).await? {
            Ok(answer) => Ok(answer),
            Err(broken) if pooled && may_resend(broken, request.method()) => {
                // What may have been sent once can no longer be dropped, only fail.
                let retried = Box::pin(self.resend(request, deadline, timer)).await;
                retried.map_err(|outcome| outcome.after(broken))
            }
            Err(broken) => Err(Outcome::Failed(broken.reason)),
        }
    }

    /// Sends the request on a new connection, because a pooled one turned out to be closed.
    async fn resend(
        &self,
        request: &Sendable,
        deadline: Instant,
        timer: Pin<&mut Sleep>,
    ) -> Result<Answer, Outcome> {
        let message = self.message(request)?;
        let connection = self.connect(deadline, None).await?;
        self.gate.check_switch().map_err(Outcome::Dropped)?;
        let answer = self.attempt(connection, message, request.session(), timer).await?;
        answer.map_err(|broken| Outcome::Failed(broken.reason))
    }

    fn message(&self, request: &Sendable) -> Result<Request<Full<Bytes>>, Outcome> {
        self.rewrite.apply(request).map_err(|error| unsendable(request, &error))
    }

    /// One exchange on one connection, which goes (back) to the pool when it ends well.
    async fn attempt(
        &self,
        mut connection: Box<Connection>,
        message: Request<Full<Bytes>>,
        owner: Option<SessionId>,
        timer: Pin<&mut Sleep>,
    ) -> Result<Result<Answer, Broken>, Outcome> {
        let exchange = connection.exchange(message, self.body_limit);
        let ended = tokio::select! {
            biased;
            ended = exchange => ended,
            () = timer => return Err(Outcome::Failed(FailReason::Timeout)),
            () = self.gate.aborting() => return Err(Outcome::Failed(FailReason::Shutdown)),
        };
        if ended.is_ok() && self.connector.leads_to(connection.peer()) {
            self.pool.put(connection, owner, Instant::now());
        }
        Ok(ended)
    }

    async fn connect(&self, deadline: Instant, given: Option<Box<Link>>) -> Result<Box<Connection>, Outcome> {
        let link = match given {
            Some(link) => *link,
            None => self.link(deadline, Offer::One).await?,
        };
        Connection::open(link).await.map(Box::new).map_err(|_| Outcome::Failed(FailReason::Connect))
    }

    async fn link(&self, deadline: Instant, offer: Offer) -> Result<Link, Outcome> {
        let deadline = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let connecting = timeout_at(deadline, self.connector.connect(offer));
        let connected = tokio::select! {
            biased;
            connected = connecting => connected,
            () = self.gate.aborting() => return Err(Outcome::Dropped(DropReason::Shutdown)),
        };
        match connected {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(ConnectError::Target(error))) => {
                tracing::debug!(%error, "a target cannot be connected to");
                Err(Outcome::Failed(FailReason::Connect))
            }
            Ok(Err(ConnectError::Ours(error))) => {
                tracing::debug!(%error, "this host has no connection for a request");
                Err(Outcome::Dropped(DropReason::Socket))
            }
            Ok(Err(ConnectError::Tls(_said_already))) => {
                self.http.forget();
                Err(Outcome::Failed(FailReason::Tls))
            }
            Err(_elapsed) => Err(Outcome::Failed(FailReason::Connect)),
        }
    }
}

impl Outcome {
    /// This end of a request during which the agent itself stood still: how long it took is unknown, and what did not
    /// come in time may have come.
    fn of_a_stall(self) -> Outcome {
        match self {
            Outcome::Answered(answer) => Outcome::Answered(Answer { first_byte: None, ..answer }),
            Outcome::Failed(FailReason::Connect | FailReason::Timeout | FailReason::Closed) => {
                Outcome::Failed(FailReason::Stalled)
            }
            outcome => outcome,
        }
    }

    /// This end of a second attempt, as the end of the request whose first attempt broke.
    fn after(self, first: Broken) -> Outcome {
        match self {
            Outcome::Dropped(DropReason::Shutdown) if first.progress != Progress::Unsent => {
                Outcome::Failed(FailReason::Shutdown)
            }
            Outcome::Dropped(_) if first.progress != Progress::Unsent => Outcome::Failed(first.reason),
            outcome => outcome,
        }
    }
}

fn unsendable(request: &Sendable, error: &Unsendable) -> Outcome {
    tracing::debug!(exchange = %request.id(), %error, "a request cannot be sent to a target");
    Outcome::Failed(FailReason::Request)
}

/// Whether a request that broke on a pooled connection may go out on a new one.
///
/// One of which not a byte was sent has not been sent. One that was sent, and met nothing but the end of the connection,
/// may have been processed: only a safe one is sent again (RFC 9110, sections 9.2.1 and 9.2.2; RFC 9112, section 9.3.1).
fn may_resend(broken: Broken, method: &Method) -> bool {
    match broken.progress {
        Progress::Unsent => broken.reason == FailReason::Closed,
        Progress::Sent => broken.reason == FailReason::Closed && method.is_safe(),
        Progress::Answering => false,
    }
}

/// What a waiting request holds in memory, about.
fn size(request: &Sendable) -> usize {
    let fields = request.headers().iter().chain(request.trailers().iter());
    let fields: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
    request.target().len() + fields + request.body().len() + request::withheld(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_s_own_standstill_may_have_caused_is_not_the_target_s() {
        for reason in FailReason::ALL.iter().copied() {
            let expected = match reason {
                FailReason::Connect | FailReason::Timeout | FailReason::Closed => FailReason::Stalled,
                other => other,
            };
            let Outcome::Failed(found) = Outcome::Failed(reason).of_a_stall() else {
                panic!("{reason} is no failure any more")
            };
            assert_eq!(found, expected, "{reason}");
        }
        let dropped = Outcome::Dropped(DropReason::Queue).of_a_stall();
        assert!(matches!(dropped, Outcome::Dropped(DropReason::Queue)), "{dropped:?}");
    }

    #[test]
    fn only_what_is_harmless_twice_is_sent_twice() {
        use FailReason::{Closed, Malformed};
        let cases = [
            (Closed, Progress::Unsent, Method::POST, true),
            (Closed, Progress::Sent, Method::POST, false),
            (Closed, Progress::Sent, Method::PUT, false),
            (Closed, Progress::Sent, Method::GET, true),
            (Closed, Progress::Answering, Method::GET, false),
            (Malformed, Progress::Sent, Method::GET, false),
        ];
        for (reason, progress, method, expected) in cases {
            let broken = Broken { reason, progress };
            assert_eq!(may_resend(broken, &method), expected, "{method} {broken:?}");
        }
    }
}
