//! The way of a request through a target by HTTP/2: a place on a connection that others use too, and the exchange there.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::protocol::{Agreed, Protocol};
use super::{CONNECT_TIMEOUT, Target, may_resend, unsendable};
use crate::exchange::{Answer, DropReason, FailReason};
use crate::policy::mask::Sendable;
use crate::replay::Outcome;
use crate::replay::connection::Broken;
use crate::replay::connector::Link;
use crate::replay::http2::{Connection, Lease, OpenError};
use crate::replay::request::Http2Request;

type Place<'a> = Lease<'a, Connection>;

/// How the wait for a place ended, and whether the place is on a connection that was there before.
type Leased<'a> = Result<(Place<'a>, bool), NoPlace>;

/// Why there is no place.
enum NoPlace {
    /// The request ends so.
    Ended(Outcome),
    /// The target chose HTTP/1.1: on this connection, or earlier.
    One(Option<Box<Link>>),
}

impl From<Outcome> for NoPlace {
    fn from(outcome: Outcome) -> NoPlace {
        NoPlace::Ended(outcome)
    }
}

impl Target {
    /// Like `exchange`, by HTTP/2.
    pub(super) async fn exchange_http2(
        &self,
        request: &Sendable,
        deadline: Instant,
    ) -> Result<Answer, Outcome> {
        let message = self.message_http2(request)?;
        let (place, pooled) = match self.lease(request, deadline, None).await {
            Ok(leased) => leased,
            Err(NoPlace::Ended(outcome)) => return Err(outcome),
            Err(NoPlace::One(link)) => return Box::pin(self.exchange(request, deadline, link)).await,
        };
        let broken = match self.attempt_http2(message, &place, deadline).await? {
            Ok(answer) => return Ok(answer),
            Err(broken) => broken,
        };
        if !pooled || !may_resend(broken, request.method()) {
            return Err(Outcome::Failed(broken.reason));
        }
        // What may have been sent once can no longer be dropped, only fail.
        let retried = self.resend_http2(request, &place, deadline).await;
        retried.map_err(|outcome| outcome.after(broken))
    }

    /// Sends the request on another connection, because this one turned out to be closed or refused it.
    async fn resend_http2(
        &self,
        request: &Sendable,
        failed: &Place<'_>,
        deadline: Instant,
    ) -> Result<Answer, Outcome> {
        let message = self.message_http2(request)?;
        let (place, _) = match self.lease(request, deadline, Some(&failed.connection)).await {
            Ok(leased) => leased,
            Err(NoPlace::Ended(outcome)) => return Err(outcome),
            // It has just changed its mind: the next request knows.
            Err(NoPlace::One(_)) => return Err(Outcome::Failed(FailReason::Closed)),
        };
        let answer = self.attempt_http2(message, &place, deadline).await?;
        answer.map_err(|broken| Outcome::Failed(broken.reason))
    }

    fn message_http2(&self, request: &Sendable) -> Result<Http2Request, Outcome> {
        self.rewrite.apply_http2(request).map_err(|error| unsendable(request, &error))
    }

    /// One exchange on one connection.
    async fn attempt_http2(
        &self,
        message: Http2Request,
        place: &Place<'_>,
        deadline: Instant,
    ) -> Result<Result<Answer, Broken>, Outcome> {
        self.gate.check_switch().map_err(Outcome::Dropped)?;
        let began = Instant::now();
        let exchange = place.connection.exchange(message, self.body_limit);
        tokio::select! {
            biased;
            ended = exchange => Ok(ended),
            () = sleep_until(deadline) => {
                place.connection.suspect(began);
                Err(Outcome::Failed(FailReason::Timeout))
            }
            () = self.gate.aborting() => Err(Outcome::Failed(FailReason::Shutdown)),
        }
    }

    /// A place on a connection. One request at a time connects, the others wait for that connection, as long as they
    /// would take to connect themselves.
    async fn lease(
        &self,
        request: &Sendable,
        deadline: Instant,
        except: Option<&Arc<Connection>>,
    ) -> Leased<'_> {
        let version = request.version();
        let pool = &self.shared.pool;
        if let Some(place) = pool.take(Instant::now(), except) {
            return Ok((place, true));
        }
        let deadline = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let mut connecting = pin!(async {
            let _turn = pool.turn().await;
            if let Some(place) = pool.take(Instant::now(), except) {
                return Ok((place, true));
            }
            // Whoever had the turn before may have found out.
            if self.http.of(version) == Protocol::One {
                return Err(NoPlace::One(None));
            }
            let link = self.link(deadline, self.http.offer(version)).await?;
            match self.http.agreed(version, link.agreed_on_http2()) {
                Agreed::Two => {}
                Agreed::One => return Err(NoPlace::One(Some(Box::new(link)))),
                Agreed::Nothing => {
                    self.connector.complain_of_protocol();
                    return Err(Outcome::Failed(FailReason::Tls).into());
                }
            }
            let opened = Connection::open(link, &self.shared.tasks, &self.gate).await;
            let connection = opened.map_err(|error| self.not_http2(error))?;
            Ok((pool.put(connection, Instant::now()), false))
        });
        tokio::select! {
            biased;
            leased = timeout_at(deadline, connecting.as_mut()) => {
                leased.unwrap_or(Err(Outcome::Failed(FailReason::Connect).into()))
            }
            () = self.gate.aborting() => Err(Outcome::Dropped(DropReason::Shutdown).into()),
        }
    }

    fn not_http2(&self, error: OpenError) -> Outcome {
        let reason = match error {
            OpenError::Silent => FailReason::Closed,
            OpenError::Foreign => FailReason::Malformed,
            OpenError::Ended(reason) => return Outcome::Failed(reason),
        };
        if !self.shared.complained.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target_name = %self.shared.target,
                "a target does not speak HTTP/2, by which production was asked (without TLS: h2c with prior knowledge); \
                 enable it there, set `http: 1.1` for the target, or leave such paths out with select.rules",
            );
        }
        Outcome::Failed(reason)
    }
}
