//! Accepts connections and serves them, within bounds. Knows nothing of what is served.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections served at once; further ones wait in the kernel's backlog.
pub(super) const CONNECTIONS: usize = 64;
/// From the opening of a connection, or the end of an answer on it, to the end of the next request head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// After this a connection ends behind its current answer.
const LIFETIME: Duration = Duration::from_secs(120);
/// For the current answer to reach a slow reader, at the end of a connection's life and at shutdown.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// For answers under way at shutdown.
const DRAIN: Duration = Duration::from_millis(500);
/// Bytes of a request head.
const HEAD_BYTES: usize = 16 << 10;
/// After a failed `accept` (out of file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener cannot be used");
            return;
        }
    };
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tasks.spawn(async move {
                    connection(stream, Peer(peer), router, stop).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}

/// Where a connection came from; every request on it carries that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

async fn connection(stream: TcpStream, peer: Peer, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        service.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Errors here are the client's: it went away, was too slow, or spoke no HTTP.
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(LIFETIME) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
}
