//! One HTTP/1.1 connection to a target, driven by whoever uses it: no task of its own, hence no hand-over between tasks.
//!
//! It sends what it is given; whether that may be sent, or sent again, is not its business.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::connector::Link;
use super::pool::Reusable;
use super::socket::{Passage, Socket, Stopwatch};
use crate::exchange::{Answer, FailReason, Headers, Response, Timestamp};

/// The largest head of a response (of at most 100 fields), and the most that is read or written at once, in bytes.
pub(super) const BUFFER: usize = 64 << 10;

type Driver = http1::Connection<TokioIo<Socket<Stopwatch>>, Full<Bytes>>;

/// How far an exchange got before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No byte of the request was handed to the socket.
    Unsent,
    /// The request was sent, at least in part; nothing came back.
    Sent,
    /// The response had begun.
    Answering,
}

/// Why there is no answer. The connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) reason: FailReason,
    pub(super) progress: Progress,
}

/// A connection, idle or with one exchange under way.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Gone once the connection is closed.
    driver: Option<Driver>,
    stopwatch: Stopwatch,
    peer: SocketAddr,
}

impl Connection {
    /// Takes over a connection that carries nothing yet.
    ///
    /// # Errors
    /// When hyper refuses the connection.
    pub(super) async fn open(link: Link) -> hyper::Result<Connection> {
        let (stopwatch, peer) = (Stopwatch::default(), link.peer());
        let io = TokioIo::new(Socket::new(link, stopwatch.clone()));
        let (sender, driver) =
            http1::Builder::new().max_buf_size(BUFFER).max_header_size(BUFFER).handshake(io).await?;
        Ok(Connection { sender, driver: Some(driver), stopwatch, peer })
    }

    /// The address that it leads to.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sends a request and reads the answer to its end, as the future is driven.
    ///
    /// Dropping the future leaves the connection unusable, which [`Reusable::is_reusable`] tells.
    ///
    /// # Errors
    /// Why there is no answer: the connection broke, the response is not HTTP, or its body is larger than `body_limit`
    /// bytes.
    pub(super) fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        body_limit: usize,
    ) -> impl Future<Output = Result<Answer, Broken>> {
        let Connection { sender, driver, stopwatch, .. } = self;
        stopwatch.restart();
        // Outside of the future, which need not be as large as the request then.
        let response = sender.try_send_request(request);
        async move {
            let response = receive(driver, response, body_limit).await;
            let passage = stopwatch.passage();
            match response {
                Ok(response) => Ok(answer(response, &passage)),
                Err(reason) => {
                    let reason = if passage.tls_broke { FailReason::Tls } else { reason };
                    Err(Broken { reason, progress: Progress::of(&passage) })
                }
            }
        }
    }
}

impl Reusable for Box<Connection> {
    fn is_reusable(&mut self) -> bool {
        let Some(driver) = &mut self.driver else { return false };
        // Registers no waker: nobody waits for an idle connection, and the last user's task must not be kept alive.
        let mut cx = Context::from_waker(Waker::noop());
        if pin!(unconstrained(driver)).poll(&mut cx).is_ready() {
            self.driver = None;
        }
        self.driver.is_some() && self.sender.is_ready()
    }
}

impl Progress {
    fn of(passage: &Passage) -> Progress {
        match (passage.written, passage.first_read) {
            // Whatever came, it was no answer to this request.
            (None, _) => Progress::Unsent,
            (Some(_), None) => Progress::Sent,
            (Some(_), Some(_)) => Progress::Answering,
        }
    }
}

/// Waits for `waited`, moving the bytes of the connection meanwhile.
async fn drive<F: Future>(driver: &mut Option<Driver>, mut waited: Pin<&mut F>) -> F::Output {
    poll_fn(|cx| {
        if let Poll::Ready(output) = waited.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        let Some(connection) = driver else { return Poll::Pending };
        if Pin::new(connection).poll(cx).is_ready() {
            // Whoever waits on the connection is told when it goes.
            *driver = None;
        }
        waited.as_mut().poll(cx)
    })
    .await
}

async fn receive<R>(
    driver: &mut Option<Driver>,
    response: impl Future<Output = Result<hyper::Response<Incoming>, TrySendError<R>>>,
    limit: usize,
) -> Result<Response, FailReason> {
    let response = drive(driver, pin!(response)).await.map_err(|error| reason(error.error()))?;
    let (head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for it: `Upgrade` is not sent.
        return Err(FailReason::Malformed);
    }
    let (body, trailers) = read(driver, body, limit).await?;
    Ok(Response {
        status: head.status.as_u16(),
        version: head.version,
        headers: fields(&head.headers),
        body,
        trailers: trailers.map(|trailers| fields(&trailers)).unwrap_or_default(),
    })
}

/// Reads a body to its end.
async fn read(
    driver: &mut Option<Driver>,
    mut body: Incoming,
    limit: usize,
) -> Result<(Bytes, Option<HeaderMap>), FailReason> {
    let expected = body.size_hint().lower();
    if expected > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(FailReason::BodyTooLarge);
    }
    let mut whole = Gathered::Nothing;
    let mut trailers = None;
    while !body.is_end_stream() {
        let Some(frame) = drive(driver, pin!(body.frame())).await else { break };
        match frame.map_err(|error| reason(&error))?.into_data() {
            Ok(data) if whole.len() + data.len() > limit => return Err(FailReason::BodyTooLarge),
            Ok(data) => whole = whole.and(data, expected),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((whole.into_bytes(), trailers))
}

/// A body under way: most come in one piece, which need not be copied.
pub(super) enum Gathered {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Gathered {
    pub(super) fn len(&self) -> usize {
        match self {
            Gathered::Nothing => 0,
            Gathered::One(piece) => piece.len(),
            Gathered::Many(pieces) => pieces.len(),
        }
    }

    /// Appends a piece; the body is expected to have so many bytes in the end (0 when that is not known).
    pub(super) fn and(self, piece: Bytes, expected: u64) -> Gathered {
        match self {
            Gathered::Nothing => Gathered::One(piece),
            Gathered::One(first) => {
                let known = usize::try_from(expected).unwrap_or(0);
                let mut pieces = BytesMut::with_capacity(known.max(first.len() + piece.len()));
                pieces.extend_from_slice(&first);
                pieces.extend_from_slice(&piece);
                Gathered::Many(pieces)
            }
            Gathered::Many(mut pieces) => {
                pieces.extend_from_slice(&piece);
                Gathered::Many(pieces)
            }
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Gathered::Nothing => Bytes::new(),
            Gathered::One(piece) => piece,
            Gathered::Many(pieces) => pieces.freeze(),
        }
    }
}

/// The fields as slices of one allocation, names in lower case.
pub(super) fn fields(headers: &HeaderMap) -> Headers {
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let mut text = BytesMut::with_capacity(size);
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    let mut text = text.freeze();
    let pairs = headers.iter().map(|(name, value)| {
        let name = text.split_to(name.as_str().len());
        (name, text.split_to(value.len()))
    });
    Headers(pairs.collect())
}

/// The response with the times of its passage; those that nobody noted are unknown.
pub(super) fn answer(response: Response, passage: &Passage) -> Answer {
    let since_sent = |end: Instant| Some(end.saturating_duration_since(passage.written?));
    let total = passage.last_read.and_then(since_sent).unwrap_or_default();
    let done = Timestamp::now().before(passage.last_read.map(|last| last.elapsed()).unwrap_or_default());
    let first_byte = passage.first_read.and_then(since_sent);
    Answer { response, first_byte, sent: done.before(total), done }
}

fn reason(error: &hyper::Error) -> FailReason {
    if error.is_parse() || breaks_framing(error) { FailReason::Malformed } else { FailReason::Closed }
}

/// Whether the cause is a body whose framing is not valid; hyper says so through the kind of an I/O error.
fn breaks_framing(error: &hyper::Error) -> bool {
    use std::error::Error;
    use std::io::{self, ErrorKind};

    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| matches!(cause.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData))
}
