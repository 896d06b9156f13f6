//! The demo service: a small shop, in the version that runs in production and in the one that is about to.
//!
//! The candidate has four regressions ([`REGRESSIONS`]); everything else about it is harmless: timestamps, request
//! ids, the order of map entries, session cookies. Production, candidate and baseline are this one program.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

mod login;

/// The largest request body accepted, in bytes.
const MAX_BODY: usize = 64 << 20;
/// What a search takes in production.
const SEARCH: Duration = Duration::from_millis(15);

/// What the candidate does wrong: the endpoint, and the place in its response; `None` where it is slower only.
pub const REGRESSIONS: [(&str, Option<&str>); 4] = [
    ("/products/{id}", Some("body:$.price.gross")),
    ("/users/{id}", Some("body:$.loyalty")),
    ("/coupons/{id}", Some("status")),
    ("/search", None),
];

/// Which version of the service to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// The one that users see.
    Production,
    /// The new one, with the planted regressions.
    Candidate,
}

/// How to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Which version to be; a baseline is production's version.
    #[arg(long, value_enum)]
    pub version: Version,
    /// The port to listen on, IPv4 and IPv6.
    #[arg(long)]
    pub port: u16,
    /// Write one JSON object a request to this file.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Wait this many milliseconds before each response.
    #[arg(long, default_value_t = 0)]
    pub delay: u64,
}

struct Shop {
    version: Version,
    delay: Duration,
    log: Option<Mutex<File>>,
    issued: login::Issued,
}

type Shared = State<Arc<Shop>>;

/// Serves until the process ends.
///
/// # Errors
/// When the log cannot be made or the port is taken.
pub async fn serve(options: Options) -> Result<()> {
    let log = match &options.log {
        Some(path) => {
            Some(Mutex::new(File::create(path).with_context(|| format!("creating {}", path.display()))?))
        }
        None => None,
    };
    let shop = Arc::new(Shop {
        version: options.version,
        delay: Duration::from_millis(options.delay),
        log,
        issued: login::Issued::default(),
    });
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on port {} (--port)", options.port))?
        .tap_io(|stream| {
            // Without it small responses wait for acknowledgments; the connection works all the same.
            let _ = stream.set_nodelay(true);
        });
    axum::serve(listener, router(shop)).await.context("serving")
}

fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/products/{id}", get(product))
        .route("/users/{id}", get(user))
        .route("/coupons/{id}", get(coupon))
        .route("/search", get(search))
        .route("/catalog", get(catalog))
        .route("/cart", get(cart))
        .route("/old/{id}", get(moved))
        .route("/app.js", get(script))
        .route("/export", get(export))
        .route("/large", get(large))
        .route("/orders", post(order))
        .route("/echo", post(echo))
        .merge(login::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&shop), record))
        .with_state(shop)
}

/// Reads the whole request, writes it to the log, and adds what differs from response to response.
async fn record(State(shop): Shared, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let user = parts.headers.get("x-user").map(|user| String::from_utf8_lossy(user.as_bytes()).into_owned());
    let under_way = user.as_deref().map(|user| shop.issued.begins(user));
    if let Some(log) = &shop.log {
        let headers: Vec<(&str, String)> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let target = parts.uri.path_and_query().map_or("*", |target| target.as_str());
        let line = json!({
            "method": parts.method.as_str(),
            "target": target,
            "headers": headers,
            "body_len": body.len(),
            "body_sha256": digest(&body),
            "under_way": under_way,
        });
        if let Ok(mut file) = log.lock() {
            // A log that cannot be written shows in the test that reads it.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }
    if !shop.delay.is_zero() {
        tokio::time::sleep(shop.delay).await;
    }
    let mut response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if let Some(user) = user {
        shop.issued.ends(&user);
    }
    if let Ok(id) = random_id().parse() {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

async fn home() -> impl IntoResponse {
    let page = "<!doctype html>\n<title>Shop</title>\n<h1>Welcome</h1>\n<p>Ten new products this week.</p>\n";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "max-age=60")], page)
}

async fn product(State(shop): Shared, Path(id): Path<u32>) -> Json<Value> {
    let net = 999 + 37 * u64::from(id);
    let taxed = net * 119;
    let gross = match shop.version {
        Version::Production => (taxed + 50) / 100,
        Version::Candidate => taxed / 100,
    };
    Json(noisy(json!({
        "id": id,
        "name": format!("Product {id}"),
        "price": { "net": net as f64 / 100.0, "gross": gross as f64 / 100.0, "currency": "EUR" },
        "tags": ["new", "sale"],
    })))
}

async fn user(State(shop): Shared, Path(id): Path<u32>) -> Json<Value> {
    let mut user = json!({
        "id": id,
        "name": format!("User {id}"),
        "email": format!("user{id}@shop.example"),
        "loyalty": { "points": id * 10, "tier": if id % 2 == 0 { "gold" } else { "silver" } },
    });
    if let (Version::Candidate, Some(fields)) = (shop.version, user.as_object_mut()) {
        fields.remove("loyalty");
    }
    Json(noisy(user))
}

async fn coupon(State(shop): Shared, Path(id): Path<u32>) -> Response {
    if id % 2 == 0 {
        return Json(json!({ "id": id, "percent": 10 })).into_response();
    }
    let status = match shop.version {
        Version::Production => StatusCode::GONE,
        Version::Candidate => StatusCode::NOT_FOUND,
    };
    (status, Json(json!({ "error": "expired" }))).into_response()
}

async fn search(State(shop): Shared, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let time = match shop.version {
        Version::Production => SEARCH,
        Version::Candidate => SEARCH * 3,
    };
    tokio::time::sleep(time).await;
    Json(noisy(json!({ "query": query.get("q"), "hits": [3, 5, 8] })))
}

/// A map written in whatever order the hasher of this moment gives.
async fn catalog() -> impl IntoResponse {
    let categories: HashMap<&str, u32> =
        [("books", 12), ("games", 7), ("music", 31), ("tools", 4), ("toys", 19)].into_iter().collect();
    let fields: Vec<String> = categories.iter().map(|(name, count)| format!("\"{name}\":{count}")).collect();
    ([(header::CONTENT_TYPE, "application/json")], format!("{{\"categories\":{{{}}}}}", fields.join(",")))
}

async fn cart() -> impl IntoResponse {
    let cookie = format!("session={}; Path=/; HttpOnly", random_id());
    ([(header::SET_COOKIE, cookie)], Json(json!({ "items": [], "total": 0 })))
}

async fn moved(Path(id): Path<u32>) -> impl IntoResponse {
    (StatusCode::FOUND, [(header::LOCATION, format!("/products/{id}"))])
}

/// Compressed when the client takes it.
async fn script(headers: HeaderMap) -> Response {
    let text = "export function add(a, b) { return a + b; }\n".repeat(200);
    let kind = (header::CONTENT_TYPE, "text/javascript");
    let accepts = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    if !accepts.is_some_and(|value| value.contains("gzip")) {
        return ([kind], text).into_response();
    }
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    match encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()) {
        Ok(bytes) => ([kind, (header::CONTENT_ENCODING, "gzip")], bytes).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A response in chunks.
async fn export() -> impl IntoResponse {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
    tokio::spawn(async move {
        for row in 0..40 {
            if sender.send(Bytes::from(format!("{row};Product {row};{}\n", row * 37))).await.is_err() {
                return;
            }
        }
    });
    ([(header::CONTENT_TYPE, "text/csv")], Body::new(Chunks(receiver)))
}

struct Chunks(tokio::sync::mpsc::Receiver<Bytes>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(hyper::body::Frame::data(bytes))))
    }
}

/// `size` bytes that differ from place to place, always the same.
async fn large(Query(query): Query<HashMap<String, usize>>) -> impl IntoResponse {
    let size = query.get("size").copied().unwrap_or(1 << 20).min(MAX_BODY);
    ([(header::CONTENT_TYPE, "application/octet-stream")], filler(size))
}

async fn order(body: Bytes) -> impl IntoResponse {
    (StatusCode::CREATED, Json(noisy(json!({ "state": "accepted", "size": body.len() }))))
}

async fn echo(body: Bytes) -> Json<Value> {
    Json(json!({ "length": body.len(), "sha256": digest(&body) }))
}

/// Adds what differs each time and means nothing.
fn noisy(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        fields.insert("request_id".to_owned(), random_id().into());
        fields.insert("generated_at".to_owned(), format!("{:.6}", now.as_secs_f64()).into());
    }
    value
}

fn random_id() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// `size` bytes without a short period, the same at every call.
#[must_use]
pub fn filler(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..size).map(next).collect()
}

/// SHA-256 in lower-case hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
