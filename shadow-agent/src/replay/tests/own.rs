//! Every connection is registered as the agent's own for exactly as long as its socket is there.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Socket, Type};

use super::*;

/// Who is registered now, who was, and whether a socket was still there when it was unregistered.
#[derive(Default)]
struct Book {
    now: Mutex<HashSet<SocketAddr>>,
    entered: AtomicUsize,
    too_early: AtomicUsize,
}

struct Entry {
    book: Arc<Book>,
    local: SocketAddr,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if socket.bind(&self.local.into()).is_err() {
            self.book.too_early.fetch_add(1, Ordering::SeqCst);
        }
        assert!(self.book.now.lock().unwrap().remove(&self.local));
    }
}

impl Book {
    fn registrar(self: &Arc<Book>) -> Registrar {
        let book = Arc::clone(self);
        Registrar::new(move |local| {
            assert!(book.now.lock().unwrap().insert(local));
            book.entered.fetch_add(1, Ordering::SeqCst);
            Ok(Entry { book: Arc::clone(&book), local })
        })
    }

    /// Registered now, and registered ever.
    fn counts(&self) -> (usize, usize) {
        assert_eq!(self.too_early.load(Ordering::SeqCst), 0, "unregistered before the socket was closed");
        (self.now.lock().unwrap().len(), self.entered.load(Ordering::SeqCst))
    }
}

fn start_with(own: Registrar, target: config::Target) -> Replayer {
    let config = config::Replay { targets: vec![target], ..config::Replay::default() };
    Replayer::start(&config, &Settings { own, ..SETTINGS }, Control::new(true)).unwrap()
}

#[tokio::test]
async fn a_connection_is_registered_before_its_first_byte_and_once() {
    let book = Arc::new(Book::default());
    let known = Arc::clone(&book);
    let server = Server::start(move |mut peer| {
        let known = Arc::clone(&known);
        async move {
            while peer.request().await.is_some() {
                let is_known = known.now.lock().unwrap().contains(&peer.client());
                peer.send(if is_known { OK } else { "HTTP/1.1 500 Unknown\r\ncontent-length: 0\r\n\r\n" })
                    .await;
            }
        }
    })
    .await;
    let replayer = start_with(book.registrar(), target(server.port));
    for _ in 0..3 {
        assert_eq!(end(&replayer, get()).await, "200");
        assert_eq!(book.counts(), (1, 1), "an idle connection stays registered");
    }
    replayer.shutdown(Duration::ZERO).await;
    drop(replayer);
    wait_for(&book, (0, 1)).await;
}

#[tokio::test]
async fn however_a_connection_ends_it_is_unregistered_after_its_socket_is_closed() {
    for (answer, expected) in [
        ("", "failed: timeout"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "failed: timeout"),
        ("nonsense\r\n\r\n", "failed: malformed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n", "failed: body_too_large"),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", "200"),
    ] {
        let book = Arc::new(Book::default());
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            peer.send(answer).await;
            peer.closed().await;
        })
        .await;
        let replayer = start_with(book.registrar(), config::Target { timeout: SHORT, ..target(server.port) });
        assert_eq!(end(&replayer, get()).await, expected, "{answer:?}");
        wait_for(&book, (0, 1)).await;
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_unregisters_too() {
    let book = Arc::new(Book::default());
    let server = Server::hanging().await;
    let replayer = Arc::new(start_with(book.registrar(), target(server.port)));
    let replaying = Arc::clone(&replayer);
    let task = tokio::spawn(async move { replaying.replay(get()).await });
    server.received(1).await;
    assert_eq!(book.counts(), (1, 1));
    task.abort();
    let _ = task.await;
    wait_for(&book, (0, 1)).await;
}

#[tokio::test]
async fn nothing_is_sent_on_a_connection_that_cannot_be_registered() {
    let server = Server::answering(OK).await;
    let full = Registrar::new(|_| Err::<(), _>(std::io::ErrorKind::StorageFull.into()));
    let replayer = start_with(full, target(server.port));
    for _ in 0..3 {
        assert_eq!(end(&replayer, get()).await, "dropped: socket");
    }
    assert_eq!(server.requests(), [""; 0]);
}

#[tokio::test]
async fn a_shared_connection_is_registered_once_and_until_it_is_closed() {
    let book = Arc::new(Book::default());
    let server = http2_server::Http2Server::answering(200, "ok").await;
    let replayer = start_with(book.registrar(), target(server.port));
    for _ in 0..3 {
        assert_eq!(end(&replayer, http2::get2()).await, "200");
        assert_eq!(book.counts(), (1, 1), "an idle connection stays registered");
    }
    replayer.shutdown(Duration::ZERO).await;
    drop(replayer);
    wait_for(&book, (0, 1)).await;
}

#[tokio::test]
async fn dropping_the_replayer_unregisters_shared_connections_too() {
    let book = Arc::new(Book::default());
    let server = http2_server::Http2Server::answering(200, "ok").await;
    let replayer = start_with(book.registrar(), target(server.port));
    assert_eq!(end(&replayer, http2::get2()).await, "200");
    drop(replayer);
    wait_for(&book, (0, 1)).await;
}

async fn wait_for(book: &Book, counts: (usize, usize)) {
    let reached = async {
        while book.counts() != counts {
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    let in_time = tokio::time::timeout(LONG, reached).await;
    assert!(in_time.is_ok(), "{:?} instead of {counts:?}", book.counts());
}
