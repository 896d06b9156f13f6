//! Connects to a target, and notes when bytes pass. It knows no HTTP beyond telling an interim response from a final one.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::Instant;

use super::own::{Registrar, Registration};

const DEFAULT_PORT: u16 = 80;

/// Makes connections to one target.
#[derive(Debug)]
pub(super) struct Connector {
    host: Host,
    port: u16,
    mark: Option<u32>,
    own: Registrar,
}

/// A connection, known as the agent's own for as long as it is there.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    /// Dropped after the stream, in the order of the fields: the last packet is the agent's own, too.
    _registration: Registration,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The target, its name or the way to it.
    Target(io::Error),
    /// What this host ran out of, or refuses.
    Ours(io::Error),
}

#[derive(Debug)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl Connector {
    /// For the authority of `url`; `None` unless it is an `http` URL with a host.
    pub(super) fn new(url: &Uri, mark: Option<u32>, own: Registrar) -> Option<Connector> {
        if url.scheme() != Some(&http::uri::Scheme::HTTP) {
            return None;
        }
        let host = url.host().filter(|host| !host.is_empty())?;
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let host = literal.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
        Some(Connector { host, port: url.port_u16().unwrap_or(DEFAULT_PORT), mark, own })
    }

    /// A new connection, registered as the agent's own; a name is resolved anew each time, its addresses are tried in
    /// order.
    ///
    /// # Errors
    /// The last address's error, be it in connecting or in registering, or why the name cannot be resolved.
    pub(super) async fn connect(&self) -> Result<Link, ConnectError> {
        let name = match &self.host {
            Host::Address(address) => return self.connect_to(SocketAddr::new(*address, self.port)).await,
            Host::Name(name) => name.as_str(),
        };
        let mut last =
            ConnectError::Target(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for address in lookup_host((name, self.port)).await.map_err(ConnectError::Target)? {
            match self.connect_to(address).await {
                Ok(link) => return Ok(link),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The local end is known, and can be registered, once connected. Binding earlier would show it earlier, and would
    /// take a whole port away from the host for each connection; what passes until then carries no data.
    async fn connect_to(&self, address: SocketAddr) -> Result<Link, ConnectError> {
        let socket = self.socket(address).map_err(ConnectError::Ours)?;
        let stream = socket.connect(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable => ConnectError::Ours(error),
            _ => ConnectError::Target(error),
        })?;
        let local = stream.local_addr().map_err(ConnectError::Target)?;
        // On loopback, a connection to an ephemeral port that nobody listens on can meet itself.
        if local == stream.peer_addr().map_err(ConnectError::Target)? {
            return Err(ConnectError::Target(io::ErrorKind::ConnectionRefused.into()));
        }
        let registration = self.own.register(local).map_err(ConnectError::Ours)?;
        Ok(Link { stream, _registration: registration })
    }

    fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = self.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        socket.set_nodelay(true)?;
        // Closing resets: nothing that was not sent yet, and nothing of what the target still sends, passes once the
        // registration is gone. Nor does a closed connection occupy a port of the production host for a minute.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        Ok(socket)
    }
}

/// The mark that sockets can be given: `mark`, or none where it is 0 or the privilege is missing.
///
/// Without it, replayed requests that pass a captured interface are known by their headers only; so this warns.
pub(super) fn usable_mark(mark: u32) -> Option<u32> {
    if mark == 0 {
        return None;
    }
    let probe = TcpSocket::new_v4().or_else(|_| TcpSocket::new_v6());
    match probe.and_then(|socket| SockRef::from(&socket).set_mark(mark)) {
        Ok(()) => Some(mark),
        Err(error) => {
            tracing::warn!(
                mark,
                %error,
                "sockets to the targets cannot be given the SO_MARK of capture.mark; grant CAP_NET_ADMIN, or set it to 0",
            );
            None
        }
    }
}

/// Told of all bytes that pass a socket.
pub(super) trait Watch {
    /// These were handed to the socket, at that time or a little later.
    fn wrote(&self, bytes: &[u8], at: Instant);

    /// These were read just now; none at the end of the stream.
    fn read(&self, bytes: &[u8], at: Instant);

    /// The socket takes nothing at the moment.
    fn blocked(&self) {}
}

/// When the bytes of one exchange passed the socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passage {
    /// The last byte written so far was about to be handed to the socket.
    pub(super) written: Option<Instant>,
    /// The first byte of the final response was read.
    pub(super) first_read: Option<Instant>,
    /// Anything was read last, the end of the stream included.
    pub(super) last_read: Option<Instant>,
    /// Nothing but interim responses of HTTP/1 was read so far.
    interim: bool,
}

/// The passage of the exchange under way, shared by a socket and the one who asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopwatch(Arc<Mutex<Passage>>);

impl Stopwatch {
    /// A new exchange begins.
    pub(super) fn restart(&self) {
        *self.lock() = Passage::default();
    }

    /// What passed since.
    pub(super) fn passage(&self) -> Passage {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Passage> {
        // A panic elsewhere cannot leave times that are not times.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Stopwatch {
    fn wrote(&self, _bytes: &[u8], at: Instant) {
        self.lock().written = Some(at);
    }

    fn read(&self, bytes: &[u8], at: Instant) {
        let mut passage = self.lock();
        passage.last_read = Some(at);
        if !bytes.is_empty() && (passage.first_read.is_none() || passage.interim) {
            passage.first_read = Some(at);
            passage.interim = is_interim(bytes);
        }
    }
}

/// Whether these bytes are interim responses (1xx; RFC 9110, section 15.2), whole, and nothing else.
fn is_interim(mut bytes: &[u8]) -> bool {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if !(bytes.starts_with(b"HTTP/1.") && bytes.get(8..10) == Some(b" 1")) {
            return false;
        }
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else { return false };
        bytes = bytes.get(end + END.len()..).unwrap_or_default();
        if bytes.is_empty() {
            return true;
        }
    }
}

/// A connection that is watched.
#[derive(Debug)]
pub(super) struct Socket<W> {
    link: Link,
    watch: W,
}

impl<W: Watch> Socket<W> {
    pub(super) fn new(link: Link, watch: W) -> Socket<W> {
        Socket { link, watch }
    }

    /// Tells the watch if nothing could be written.
    fn told<T>(&self, writing: Poll<T>) -> Poll<T> {
        if writing.is_pending() {
            self.watch.blocked();
        }
        writing
    }
}

impl<W: Watch + Unpin> AsyncRead for Socket<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.link.stream).poll_read(cx, buffer))?;
        self.watch.read(buffer.filled().get(before..).unwrap_or_default(), Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl<W: Watch + Unpin> AsyncWrite for Socket<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Before: while the call lasts, the answer may already arrive.
        let now = Instant::now();
        let writing = Pin::new(&mut self.link.stream).poll_write(cx, bytes);
        let written = ready!(self.told(writing))?;
        self.watch.wrote(bytes.get(..written).unwrap_or_default(), now);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        let writing = Pin::new(&mut self.link.stream).poll_write_vectored(cx, bytes);
        let written = ready!(self.told(writing))?;
        let mut left = written;
        for part in bytes {
            let passed = part.len().min(left);
            self.watch.wrote(part.get(..passed).unwrap_or_default(), now);
            left -= passed;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.link.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interim_responses_are_told_from_final_ones() {
        let cases = [
            ("HTTP/1.1 100 Continue\r\n\r\n", true),
            ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n", true),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", false),
            ("HTTP/1.1 100 Continue\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.0 1", false),
            ("", false),
        ];
        for (bytes, interim) in cases {
            assert_eq!(is_interim(bytes.as_bytes()), interim, "{bytes:?}");
        }
    }

    #[test]
    fn the_first_byte_is_that_of_the_final_response() {
        let stopwatch = Stopwatch::default();
        let now = Instant::now();
        stopwatch.read(b"HTTP/1.1 103 Early Hints\r\n\r\n", now);
        assert!(stopwatch.passage().interim);
        stopwatch.read(b"HTTP/1.1 200 OK\r\n", now + Duration::from_millis(1));
        let first = stopwatch.passage();
        assert!(!first.interim);
        stopwatch.read(b"HTTP/1.1 100 Continue\r\n\r\n", now + Duration::from_millis(2));
        assert_eq!(stopwatch.passage().first_read, first.first_read, "a body may look like anything");
    }

    #[test]
    fn hosts_of_every_form_are_understood() {
        let cases = [
            ("http://10.0.0.9", Some(("Address(10.0.0.9)", 80))),
            ("http://[::1]:8080/api", Some(("Address(::1)", 8080))),
            ("http://shadow.local:81", Some(("Name(\"shadow.local\")", 81))),
            ("https://shadow.local", None),
            ("/path", None),
        ];
        for (url, expected) in cases {
            let connector = Connector::new(&url.parse().unwrap(), None, Registrar::none());
            let found = connector.map(|connector| (format!("{:?}", connector.host), connector.port));
            assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)), "{url}");
        }
    }

    #[tokio::test]
    async fn sockets_carry_the_mark_and_do_not_delay() {
        assert_eq!(usable_mark(0), None);
        let mark = usable_mark(0x5AD0);
        if mark.is_none() {
            eprintln!("the mark itself is not tested: it needs CAP_NET_ADMIN");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connector = Connector::new(&url, mark, Registrar::none()).unwrap();
        let stream = connector.connect().await.unwrap().stream;
        assert_eq!(SockRef::from(&stream).mark().unwrap(), mark.unwrap_or(0));
        assert!(stream.nodelay().unwrap());
    }
}
