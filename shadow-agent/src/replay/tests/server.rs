//! A shadow host that does what a test tells it, byte by byte. It understands no more HTTP than where a request ends.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A listening server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    requests: Requests,
}

/// What was received, raw, in order of arrival over all connections.
#[derive(Clone)]
struct Requests {
    log: Arc<Mutex<Vec<String>>>,
    count: Arc<watch::Sender<usize>>,
}

/// The server's end of one connection.
pub(crate) struct Peer {
    /// 1 for the first connection accepted.
    pub(crate) number: usize,
    stream: TcpStream,
    received: Vec<u8>,
    requests: Requests,
}

impl Server {
    /// Runs `script` on each connection.
    pub(crate) async fn start<F, S>(script: S) -> Server
    where
        S: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Requests { log: Arc::default(), count: Arc::new(watch::Sender::new(0)) };
        let server = Server { port, connections: Arc::clone(&connections), requests: requests.clone() };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                let peer = Peer { number, stream, received: Vec::new(), requests: requests.clone() };
                tokio::spawn(script(peer));
            }
        });
        server
    }

    /// Answers every request with the same bytes, keeping connections open.
    pub(crate) async fn answering(answer: &'static str) -> Server {
        Server::start(move |mut peer| async move {
            while peer.request().await.is_some() {
                peer.send(answer).await;
            }
        })
        .await
    }

    /// Reads requests and never answers.
    pub(crate) async fn hanging() -> Server {
        Server::start(|mut peer| async move { while peer.request().await.is_some() {} }).await
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.log.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn received(&self, count: usize) {
        let mut watcher = self.requests.count.subscribe();
        let waiting = watcher.wait_for(|received| *received >= count);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("requests come").unwrap();
    }
}

impl Peer {
    /// The next request, head and body; `None` at the end of the connection.
    pub(crate) async fn request(&mut self) -> Option<String> {
        loop {
            if let Some(length) = whole(&self.received) {
                let rest = self.received.split_off(length);
                let request = std::mem::replace(&mut self.received, rest);
                let request = String::from_utf8_lossy(&request).into_owned();
                self.requests.log.lock().unwrap().push(request.clone());
                self.requests.count.send_modify(|count| *count += 1);
                return Some(request);
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The local end of the client's socket, as it connected.
    pub(crate) fn client(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        // A client that has gone away is for the test to notice.
        let _ = self.stream.write_all(bytes.as_bytes()).await;
    }

    /// Sends, and says whether the client is still there.
    pub(crate) async fn try_send(&mut self, bytes: &str) -> bool {
        self.stream.write_all(bytes.as_bytes()).await.is_ok()
    }

    /// Waits until the client closes.
    pub(crate) async fn closed(&mut self) {
        while let Ok(1..) = self.stream.read_buf(&mut self.received).await {}
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// The length of the request at the beginning of these bytes, once it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = head + length.map_or(0, |length| length.parse().unwrap());
    (bytes.len() >= length).then_some(length)
}
