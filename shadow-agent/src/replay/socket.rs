//! Notes when the bytes of HTTP pass a connection. It knows no HTTP beyond telling an interim response from a final one.
//!
//! Over TLS, the bytes are those before encryption and after decryption. A request counts as sent from the moment on at
//! which TLS takes it: whether its records reached the target is not known. So its time includes encryption, and the
//! answer's first byte is there once its record is there whole and decrypted. What TLS could not hand to the socket at
//! once is sent when the socket has taken it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connector::{Link, Stream};

/// Told of all bytes that pass a socket.
pub(super) trait Watch {
    /// These were handed to the socket, at that time or a little later.
    fn wrote(&self, bytes: &[u8], at: Instant);

    /// These were read just now; none at the end of the stream.
    fn read(&self, bytes: &[u8], at: Instant);

    /// The socket takes nothing at the moment.
    fn blocked(&self) {}

    /// What had been written before and was held back has now been handed to the socket.
    fn flushed(&self, _at: Instant) {}

    /// TLS itself broke.
    fn tls_broke(&self) {}
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
    /// TLS itself broke.
    pub(super) tls_broke: bool,
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

    fn flushed(&self, at: Instant) {
        let mut passage = self.lock();
        if passage.first_read.is_none() && passage.written.is_some() {
            passage.written = Some(at);
        }
    }

    fn tls_broke(&self) {
        self.lock().tls_broke = true;
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
    /// TLS holds what the socket did not take.
    held_back: bool,
}

/// Does the same with either kind of stream.
macro_rules! on {
    ($socket:expr, $stream:ident => $call:expr) => {
        match &mut $socket.link.stream {
            Stream::Plain($stream) => $call,
            Stream::Tls($stream, _) => $call,
        }
    };
}

impl<W: Watch> Socket<W> {
    pub(super) fn new(link: Link, watch: W) -> Socket<W> {
        Socket { link, watch, held_back: false }
    }

    /// Tells the watch if nothing could be written.
    fn told<T>(&self, writing: Poll<T>) -> Poll<T> {
        if writing.is_pending() {
            self.watch.blocked();
        }
        writing
    }

    /// Tells the watch if it was TLS that broke.
    fn broken(&self, error: io::Error) -> io::Error {
        if let Stream::Tls(_, complaints) = &self.link.stream
            && complaints.about(&error)
        {
            self.watch.tls_broke();
        }
        error
    }

    /// Tells the watch what was written of `parts`. Of what TLS took before it failed, nobody knows how much has been
    /// sent; so it counts as all.
    fn wrote(&self, parts: &[IoSlice<'_>], at: Instant, written: io::Result<usize>) -> io::Result<usize> {
        let mut left = match (&written, &self.link.stream) {
            (Ok(written), _) => *written,
            (Err(_), Stream::Plain(_)) => 0,
            (Err(_), Stream::Tls(..)) => usize::MAX,
        };
        for part in parts {
            let passed = part.len().min(left);
            if passed > 0 {
                self.watch.wrote(part.get(..passed).unwrap_or_default(), at);
            }
            left -= passed;
        }
        written.map_err(|error| self.broken(error))
    }
}

impl<W: Watch + Unpin> AsyncRead for Socket<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let reading = on!(self, stream => Pin::new(stream).poll_read(cx, buffer));
        ready!(reading).map_err(|error| self.broken(error))?;
        self.watch.read(buffer.filled().get(before..).unwrap_or_default(), Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl<W: Watch + Unpin> AsyncWrite for Socket<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Before: while the call lasts, the answer may already arrive.
        let now = Instant::now();
        let writing = on!(self, stream => Pin::new(stream).poll_write(cx, bytes));
        let written = ready!(self.told(writing));
        Poll::Ready(self.wrote(&[IoSlice::new(bytes)], now, written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        let writing = on!(self, stream => Pin::new(stream).poll_write_vectored(cx, bytes));
        let written = ready!(self.told(writing));
        Poll::Ready(self.wrote(bytes, now, written))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.link.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushing = on!(self, stream => Pin::new(stream).poll_flush(cx));
        if flushing.is_pending() {
            self.held_back = true;
            return Poll::Pending;
        }
        if std::mem::take(&mut self.held_back) {
            self.watch.flushed(Instant::now());
        }
        flushing.map_err(|error| self.broken(error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
