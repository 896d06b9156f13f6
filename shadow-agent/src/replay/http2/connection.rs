//! One HTTP/2 connection: opening it, the task that moves its bytes, and one exchange on it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, StatusCode};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::frames::{Frames, Greeting};
use crate::exchange::{Answer, FailReason, Response};
use crate::replay::connection::{BUFFER, Broken, Gathered, Progress, answer, fields};
use crate::replay::connector::Link;
use crate::replay::gate::Gate;
use crate::replay::request::Http2Request;
use crate::replay::socket::Socket;

/// Bytes of one answer's body that a target may send before they are taken over.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all answers of one connection together.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Bytes of fields that are decoded at most. Of trailers beyond, the library drops some without a word, so that this is
/// more than what is accepted: [`BUFFER`], each field with the 32 bytes of RFC 9113, section 6.5.2.
const DECODED_FIELDS: u32 = 4 * BUFFER as u32;

type Driver = h2::client::Connection<Socket<Frames>, Bytes>;

/// Why a connection carries no HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum OpenError {
    /// The target closed it before it said anything.
    Silent,
    /// The target said something that is no HTTP/2.
    Foreign,
    /// The target speaks HTTP/2, and yet it ended.
    Ended(FailReason),
}

/// A connection that many requests can use at once. Dropping it closes it by a reset.
#[derive(Debug)]
pub(in crate::replay) struct Connection {
    sender: SendRequest<Bytes>,
    frames: Frames,
    peer: SocketAddr,
    _end: DropGuard,
}

impl Connection {
    /// Takes over a connection that carries nothing yet, and waits for the SETTINGS that the target must begin with
    /// (RFC 9113, section 3.4): only then is it known how many streams it takes.
    ///
    /// # Errors
    /// When it begins with anything else.
    pub(in crate::replay) async fn open(
        link: Link,
        tasks: &TaskTracker,
        gate: &Arc<Gate>,
    ) -> Result<Connection, OpenError> {
        let (frames, peer) = (Frames::default(), link.peer());
        let error = |error: Option<h2::Error>| match frames.greeting() {
            _ if frames.tls_broke() => OpenError::Ended(FailReason::Tls),
            Greeting::Silent => OpenError::Silent,
            Greeting::Foreign => OpenError::Foreign,
            Greeting::Http2 => OpenError::Ended(error.map_or(FailReason::Closed, |error| reason(&error))),
        };
        let socket = Socket::new(link, frames.clone());
        let handshake = builder().handshake(socket).await;
        let (sender, mut driver) = handshake.map_err(|cause| error(Some(cause)))?;
        poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Err(error(ended.err()))),
            Poll::Pending if frames.greeting() == Greeting::Http2 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let end = CancellationToken::new();
        tasks.spawn(drive(driver, frames.clone(), Arc::clone(gate), end.clone()));
        Ok(Connection { sender, frames, peer, _end: end.drop_guard() })
    }

    /// The address that it leads to.
    pub(in crate::replay) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Opens no further stream; it is closed with the last one.
    pub(in crate::replay) fn retire(&self) {
        self.frames.leave();
    }

    /// Whether another stream can be opened.
    pub(super) fn is_usable(&self) -> bool {
        !self.frames.leaving()
    }

    /// The streams that the target takes at once. None more while it reads nothing: a request that waits here cannot be
    /// taken back any more, not even by the kill switch.
    pub(super) fn most_streams(&self) -> usize {
        if self.frames.is_blocked() { 0 } else { self.sender.current_max_send_streams() }
    }

    /// Opens no further stream if nothing was read since `since`: the way to the target may be gone.
    pub(in crate::replay) fn suspect(&self, since: tokio::time::Instant) {
        if self.frames.last_read().is_none_or(|last| last < since) {
            self.frames.leave();
        }
    }

    /// Sends a request and reads the answer to its end. Dropping the future resets the stream, if it was opened.
    ///
    /// # Errors
    /// Why there is no answer: the stream or the connection broke, the answer is not HTTP/2, or its body is larger than
    /// `body_limit` bytes.
    pub(in crate::replay) async fn exchange(
        &self,
        request: Http2Request,
        body_limit: usize,
    ) -> Result<Answer, Broken> {
        let broken = |reason, progress| Broken { reason, progress };
        // Fails only when the connection has ended, or has no streams left; this request has nothing to do with either.
        let ready = self.sender.clone().ready().await;
        let mut sender = ready.map_err(|_| {
            self.frames.leave();
            broken(FailReason::Closed, Progress::Unsent)
        })?;
        let Http2Request { head, body, trailers } = request;
        let whole = body.is_empty() && trailers.is_none();
        let (response, stream) =
            sender.send_request(head, whole).map_err(|_| broken(FailReason::Request, Progress::Unsent))?;
        drop(sender);
        let timed = Timed { frames: &self.frames, stream: response.stream_id().as_u32() };
        let mut sending = pin!(send(stream, body, trailers));
        let mut receiving = pin!(receive(response, body_limit));
        let mut sent = whole;
        let received = poll_fn(|cx| {
            // An answer may come before the request has been sent whole; if sending fails, receiving says why.
            sent = sent || sending.as_mut().poll(cx).is_ready();
            receiving.as_mut().poll(cx)
        })
        .await;
        match received {
            Ok(response) => Ok(answer(response, &timed.frames.passage(timed.stream))),
            Err(failure) => {
                let reason = if self.frames.tls_broke() { FailReason::Tls } else { failure.reason() };
                Err(broken(reason, timed.progress(&failure)))
            }
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(DECODED_FIELDS);
    builder
}

/// Moves the bytes of a connection until it ends, nobody needs it any more, or the agent ends; also while the kill switch is
/// off and the target takes nothing, because what waits here would go out as soon as it does.
async fn drive(mut driver: Driver, frames: Frames, gate: Arc<Gate>, end: CancellationToken) {
    let _leaving = Leaving(frames.clone());
    loop {
        let enabled = gate.check_switch().is_ok();
        let moved = poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if !enabled && frames.is_blocked() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        tokio::select! {
            biased;
            () = gate.aborting() => return,
            () = end.cancelled() => return,
            () = gate.thrown_from(enabled) => {}
            ended = moved => {
                match ended {
                    // Not the error itself: it quotes what the target said.
                    Some(Err(error)) => {
                        tracing::debug!(reason = ?error.reason(), "an HTTP/2 connection to a target ended");
                    }
                    Some(Ok(())) => {}
                    None => tracing::debug!("an HTTP/2 connection was closed, because it held what was disabled"),
                }
                return;
            }
        }
    }
}

/// Takes a connection out of use when its task ends, however it ends.
struct Leaving(Frames);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Keeps the times of a stream as long as somebody may ask for them.
struct Timed<'a> {
    frames: &'a Frames,
    stream: u32,
}

impl Timed<'_> {
    fn progress(&self, failure: &Failure) -> Progress {
        match failure {
            // The target has seen the request, and has said what it makes of it.
            Failure::Stream(error)
                if error.is_remote()
                    && error.is_reset()
                    && error.reason() != Some(Reason::REFUSED_STREAM) =>
            {
                Progress::Answering
            }
            _ if self.frames.is_unsent(self.stream) => Progress::Unsent,
            _ if self.frames.passage(self.stream).first_read.is_some() => Progress::Answering,
            _ => Progress::Sent,
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.frames.forget(self.stream);
    }
}

/// Why there is no response.
enum Failure {
    Stream(h2::Error),
    Response(FailReason),
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Failure {
        Failure::Stream(error)
    }
}

impl Failure {
    fn reason(&self) -> FailReason {
        match self {
            Failure::Response(reason) => *reason,
            Failure::Stream(error) => reason(error),
        }
    }
}

fn reason(error: &h2::Error) -> FailReason {
    // What the library itself found wrong with what came.
    if error.is_library() { FailReason::Malformed } else { FailReason::Closed }
}

/// Sends body and trailers as fast as the target takes them.
async fn send(
    mut stream: SendStream<Bytes>,
    mut body: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(capacity) = poll_fn(|cx| stream.poll_capacity(cx)).await.transpose()? else {
            return Ok(());
        };
        let piece = body.split_to(capacity.min(body.len()));
        if !piece.is_empty() {
            stream.send_data(piece, body.is_empty() && trailers.is_none())?;
        }
    }
    trailers.map_or(Ok(()), |trailers| stream.send_trailers(trailers))
}

async fn receive(response: ResponseFuture, limit: usize) -> Result<Response, Failure> {
    let (head, body) = response.await?.into_parts();
    // HTTP/2 cannot switch protocols (RFC 9113, section 8.6).
    if head.status == StatusCode::SWITCHING_PROTOCOLS || size(&head.headers) > BUFFER {
        return Err(Failure::Response(FailReason::Malformed));
    }
    let length =
        head.headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let (body, trailers) = read(body, length.unwrap_or(0), limit).await?;
    if trailers.as_ref().is_some_and(|trailers| size(trailers) > BUFFER) {
        return Err(Failure::Response(FailReason::Malformed));
    }
    Ok(Response {
        status: head.status.as_u16(),
        version: head.version,
        headers: fields(&head.headers),
        body,
        trailers: trailers.map(|trailers| fields(&trailers)).unwrap_or_default(),
    })
}

/// The size of fields as RFC 9113, section 6.5.2, counts it.
fn size(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// Reads a body, expected to have so many bytes, to its end.
async fn read(
    mut body: RecvStream,
    expected: u64,
    limit: usize,
) -> Result<(Bytes, Option<HeaderMap>), Failure> {
    const TOO_LARGE: Failure = Failure::Response(FailReason::BodyTooLarge);
    if body.is_end_stream() {
        return Ok((Bytes::new(), None));
    }
    if expected > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(TOO_LARGE);
    }
    let mut whole = Gathered::Nothing;
    while let Some(data) = body.data().await {
        let data = data?;
        if whole.len() + data.len() > limit {
            return Err(TOO_LARGE);
        }
        body.flow_control().release_capacity(data.len())?;
        whole = whole.and(data, expected);
    }
    let trailers = body.trailers().await?;
    Ok((whole.into_bytes(), trailers))
}
