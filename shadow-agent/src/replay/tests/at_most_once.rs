//! No unsafe request reaches a target twice, wherever its connection is cut.
//!
//! A server counts the requests of which any byte arrives, and ends the first connection after so many bytes of a request
//! or of its answer: after none, after one, and so on to the last. A later connection is whole, so that a request that is
//! sent again arrives.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::tls_server::Authority;
use super::*;

/// More than any connection here carries.
const PLENTY: usize = 1 << 20;
/// More than a request and an answer here have, the frames and records around them included.
const MESSAGES: [usize; 2] = [600, 150];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// How many bytes still pass in each direction.
#[derive(Debug)]
struct Left([AtomicUsize; 2]);

impl Left {
    fn of(&self, direction: Direction) -> &AtomicUsize {
        &self.0[direction as usize]
    }
}

/// A connection that ends when no bytes are left to pass.
struct Cut {
    stream: TcpStream,
    left: Arc<Left>,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.of(Direction::Request).load(Ordering::SeqCst);
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let mut bytes = [0; 4096];
        let most = left.min(buffer.remaining()).min(bytes.len());
        let mut part = ReadBuf::new(&mut bytes[..most]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        self.left.of(Direction::Request).store(left - part.filled().len(), Ordering::SeqCst);
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.left.of(Direction::Answer).load(Ordering::SeqCst);
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..bytes.len().min(left)]))?;
        self.left.of(Direction::Answer).store(left - written, Ordering::SeqCst);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What the server shares with the test.
struct Shared {
    http2: bool,
    /// Whether connections end by a reset.
    reset: bool,
    /// Cut the first connection here, counted from its beginning.
    at_once: Option<(Direction, usize)>,
    first: Mutex<Option<Arc<Left>>>,
    connections: AtomicUsize,
    /// Unsafe requests of which a byte has arrived.
    arrivals: AtomicUsize,
}

impl Shared {
    /// Cuts the first connection from now on.
    fn cut(&self, (direction, after): (Direction, usize)) {
        let first = self.first.lock().unwrap();
        first.as_ref().expect("there is a connection").of(direction).store(after, Ordering::SeqCst);
    }
}

async fn serve(shared: Arc<Shared>, tls: Option<TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            if shared.reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            let left = Arc::new(Left([AtomicUsize::new(PLENTY), AtomicUsize::new(PLENTY)]));
            let is_first = shared.connections.fetch_add(1, Ordering::SeqCst) == 0;
            if is_first {
                *shared.first.lock().unwrap() = Some(Arc::clone(&left));
                shared.at_once.into_iter().for_each(|cut| shared.cut(cut));
            }
            let cut = Cut { stream, left };
            let (shared, tls) = (Arc::clone(&shared), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(cut).await {
                            speak(stream, &shared).await;
                        }
                    }
                    None => speak(cut, &shared).await,
                }
            });
        }
    });
    port
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: &Arc<Shared>) {
    if shared.http2 {
        speak_http2(stream, shared).await;
    } else {
        speak_http1(stream, shared).await;
    }
}

async fn speak_http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: &Shared) {
    let mut received = Vec::new();
    loop {
        let before = received.len();
        match stream.read_buf(&mut received).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        if before == 0 && received[0] == b'P' {
            shared.arrivals.fetch_add(1, Ordering::SeqCst);
        }
        let text = String::from_utf8_lossy(&received);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if head.starts_with("POST") && body.len() < BODY.len() {
            continue;
        }
        received.clear();
        if stream.write_all(OK.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn speak_http2<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: &Arc<Shared>) {
    let noted = Noted { stream, shared: Arc::clone(shared), passed: 0, header: Vec::new(), payload: 0 };
    let Ok(mut connection) = h2::server::handshake(noted).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut body = request.into_body();
        let mut whole = async || {
            while let Some(data) = body.data().await {
                data?;
            }
            respond.send_response(http::Response::new(()), false)?.send_data(Bytes::from_static(b"ok"), true)
        };
        // The connection has to be polled for the body to come.
        let answered = tokio::select! {
            answered = whole() => answered,
            _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => return,
        };
        if answered.is_err() {
            return;
        }
    }
}

/// Counts requests by the type and flags of frames, which come before anything else of them; each has trailers.
struct Noted<S> {
    stream: S,
    shared: Arc<Shared>,
    /// Bytes of the preface so far.
    passed: usize,
    header: Vec<u8>,
    payload: usize,
}

impl<S> Noted<S> {
    fn note(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.passed < 24 {
                self.passed += 1;
            } else if self.payload > 0 {
                self.payload -= 1;
            } else {
                self.header.push(byte);
                // HEADERS that do not end the stream, as trailers do.
                if let [_, _, _, 1, flags] = self.header[..] {
                    self.shared.arrivals.fetch_add(usize::from(flags & 1 == 0), Ordering::SeqCst);
                }
                if let [a, b, c, _, _, _, _, _, _] = self.header[..] {
                    self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
                    self.header.clear();
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.note(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const BODY: &str = "amount=5";

/// How an unsafe request ended whose connection was cut.
struct End {
    ended: String,
    /// There was nothing left to cut.
    whole: bool,
    /// Bytes that passed in the direction that was to be cut, from the beginning or from where it was to be.
    passed: usize,
}

/// Sends an unsafe request while its connection is cut there.
async fn sent(
    http2: bool,
    tls: Option<&(Authority, TlsAcceptor)>,
    pooled: bool,
    reset: bool,
    cut: (Direction, usize),
) -> End {
    let shared = Arc::new(Shared {
        http2,
        reset,
        at_once: (!pooled).then_some(cut),
        first: Mutex::default(),
        connections: AtomicUsize::new(0),
        arrivals: AtomicUsize::new(0),
    });
    let port = serve(Arc::clone(&shared), tls.map(|(_, acceptor)| acceptor.clone())).await;
    let mut target = target(port);
    if let Some((authority, _)) = tls {
        target.url = format!("https://localhost:{port}").parse().unwrap();
        target.tls.ca = Some(authority.pem());
    }
    let replayer = only(target);
    let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut warmed = 0;
    if pooled {
        let get = sendable_by(version, "GET", "/", &[("host", "h")], "");
        assert_eq!(end(&replayer, get).await, "200");
        shared.cut(cut);
        warmed = shared.arrivals.swap(0, Ordering::SeqCst);
    }
    let post = sendable_by(version, "POST", "/pay", &[("host", "h"), ("content-length", "8")], BODY);
    let ended = end(&replayer, post).await;
    let arrivals = shared.arrivals.load(Ordering::SeqCst);
    assert!(arrivals <= 1, "{arrivals} arrivals when cut at {cut:?}: {ended}");
    assert!(warmed <= 1);
    let whole = ended == "200" && shared.connections.load(Ordering::SeqCst) == 1;
    let first = shared.first.lock().unwrap().clone().expect("there was a connection");
    End { ended, whole, passed: cut.1 - first.of(cut.0).load(Ordering::SeqCst) }
}

async fn cut_everywhere(http2: bool, tls: Option<&(Authority, TlsAcceptor)>, resets: &[bool]) {
    for pooled in [false, true] {
        for direction in [Direction::Request, Direction::Answer] {
            for &reset in resets {
                let uncut = sent(http2, tls, pooled, reset, (direction, PLENTY)).await;
                assert!(uncut.whole, "{}", uncut.ended);
                // What comes before, on a new connection, is the handshake of TLS.
                let mut ends = std::collections::BTreeSet::new();
                for after in uncut.passed.saturating_sub(MESSAGES[direction as usize])..uncut.passed {
                    ends.insert(sent(http2, tls, pooled, reset, (direction, after)).await.ended);
                }
                assert!(uncut.passed > 15, "{direction:?} was cut at {} places only", uncut.passed);
                assert!(ends.contains("failed: closed"), "{ends:?}");
            }
        }
    }
}

fn tls(alpn: &str) -> (Authority, TlsAcceptor) {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&authority.identity("localhost", 2090), &[alpn], false);
    (authority, acceptor)
}

#[tokio::test]
async fn an_unsafe_request_by_http1_arrives_once_at_most_wherever_it_is_cut() {
    cut_everywhere(false, None, &[false, true]).await;
}

#[tokio::test]
async fn an_unsafe_request_by_http2_arrives_once_at_most_wherever_it_is_cut() {
    cut_everywhere(true, None, &[false, true]).await;
}

#[tokio::test]
async fn an_unsafe_request_by_http1_over_tls_arrives_once_at_most_wherever_it_is_cut() {
    cut_everywhere(false, Some(&tls("http/1.1")), &[true]).await;
}

#[tokio::test]
async fn an_unsafe_request_by_http2_over_tls_arrives_once_at_most_wherever_it_is_cut() {
    cut_everywhere(true, Some(&tls("h2")), &[true]).await;
}
