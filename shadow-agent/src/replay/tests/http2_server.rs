//! A shadow host that speaks HTTP/2 and does what a test tells it, stream by stream.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A listening server; it ends with the test's runtime.
pub(super) struct Http2Server {
    pub(super) port: u16,
    connections: Arc<AtomicUsize>,
    calls: Arc<Calls>,
}

#[derive(Default)]
struct Calls {
    log: Mutex<Vec<Request<()>>>,
    count: watch::Sender<usize>,
}

/// One request, and the way to answer it.
pub(super) struct Call {
    /// 1 for the first connection accepted.
    pub(super) connection: usize,
    /// 1 for the first request of all connections.
    pub(super) number: usize,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
}

impl Http2Server {
    /// Runs `script` on each connection that has the preface and the settings behind it.
    pub(super) async fn scripted<F, S>(builder: Builder, script: S) -> Http2Server
    where
        S: Fn(usize, Connection<TcpStream, Bytes>) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let server = Http2Server { port, connections: Arc::clone(&connections), calls: Arc::default() };
        let script = Arc::new(script);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (builder, script) = (builder.clone(), Arc::clone(&script));
                tokio::spawn(async move {
                    if let Ok(connection) = builder.handshake(stream).await {
                        script(number, connection).await;
                    }
                });
            }
        });
        server
    }

    /// Runs `handler` on each request, many at once.
    pub(super) async fn start<F, S>(builder: Builder, handler: S) -> Http2Server
    where
        S: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let calls: Arc<Calls> = Arc::default();
        let log = Arc::clone(&calls);
        let handler = Arc::new(handler);
        let server = Http2Server::scripted(builder, move |number, mut connection| {
            let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
            async move {
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let call = log.enter(number, request, respond);
                    tokio::spawn(handler(call));
                }
            }
        })
        .await;
        Http2Server { calls, ..server }
    }

    /// Answers every request with these, keeping connections open.
    pub(super) async fn answering(status: u16, body: &'static str) -> Http2Server {
        Http2Server::start(Builder::new(), move |call| call.answer(status, body)).await
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The head of every request so far.
    pub(super) fn requests(&self) -> Vec<Request<()>> {
        self.calls.log.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub(super) async fn received(&self, count: usize) {
        let mut watcher = self.calls.count.subscribe();
        let waiting = watcher.wait_for(|received| *received >= count);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("requests come").unwrap();
    }
}

impl Calls {
    fn enter(&self, connection: usize, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Call {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        let mut log = self.log.lock().unwrap();
        log.push(head);
        self.count.send_replace(log.len());
        Call { connection, number: log.len(), request, respond }
    }
}

impl Call {
    /// Answers with a whole response.
    pub(super) async fn answer(mut self, status: u16, body: &'static str) {
        let mut stream = self.begin(status, body.is_empty());
        if !body.is_empty() {
            // A client that has gone away is for the test to notice.
            let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
        }
    }

    /// Sends the headers of a response.
    pub(super) fn begin(&mut self, status: u16, end: bool) -> SendStream<Bytes> {
        let response = Response::builder().status(status).body(()).unwrap();
        self.respond.send_response(response, end).unwrap()
    }

    /// Reads the request to its end: body and trailers.
    pub(super) async fn rest(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let mut whole = Vec::new();
        let body = self.request.body_mut();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            whole.extend_from_slice(&data);
        }
        (whole, body.trailers().await.unwrap())
    }
}
