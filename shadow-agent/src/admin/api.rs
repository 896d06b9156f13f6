//! The resources: what each path answers. Every refusal is JSON with an `error` and a `remedy`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Extension, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::access::{Access, Refusal, Sensitivity};
use super::actions;
use super::serve::Peer;
use super::{AdminState, Status};
use crate::audit::{Action, Actor};
use crate::metrics;

/// The position of the kill switch, as `PUT /api/v1/capture` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    pub(super) enabled: bool,
}

/// What `PUT /api/v1/capture` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// The position of the kill switch.
    pub enabled: bool,
    /// Whether that was another one before.
    pub changed: bool,
    /// Whether it outlives a restart.
    pub persistent: bool,
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.enabled { "enabled" } else { "disabled" };
        let before = if self.changed { "" } else { " already" };
        let lasting =
            if self.persistent { "" } else { "; a restart forgets it (run with --state DIR to keep it)" };
        write!(f, "capture is{before} {state}{lasting}")
    }
}

/// What `PUT /api/v1/sample` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// The share of flows asked for.
    pub sample: String,
    /// The share asked for before.
    pub before: String,
    /// The share captured, which guards may hold lower.
    pub effective: String,
}

impl fmt::Display for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sampled { sample, before, effective } = self;
        write!(f, "{sample} of flows are asked for instead of {before}, until a restart")?;
        if sample != effective {
            write!(f, "; guards hold it at {effective}")?;
        }
        Ok(())
    }
}

/// A refusal: what is wrong, and what to do about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) error: String,
    pub(super) remedy: String,
}

/// Who asked, where the connection does not say.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) struct Shared {
    pub(super) state: AdminState,
    access: Access,
}

pub(super) type Api = State<Arc<Shared>>;

/// Everything that is served.
pub(super) fn router(state: AdminState, access: Access) -> Router {
    let shared = Arc::new(Shared { state, access });
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .route("/api/v1/status", get(status))
        .route("/api/v1/endpoints", get(endpoints))
        .route("/api/v1/verdict", get(verdict))
        .route("/api/v1/capture", put(actions::capture))
        .route("/api/v1/sample", put(actions::sample))
        .route("/api/v1/reload", post(actions::reload))
        .route("/api/v1/runs", post(actions::runs))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

fn sensitivity(path: &str) -> Sensitivity {
    match path {
        "/livez" | "/readyz" | "/metrics" => Sensitivity::Open,
        "/api/v1/endpoints" => Sensitivity::Bodies,
        _ => Sensitivity::Normal,
    }
}

async fn guard(State(shared): Api, mut request: Request, next: Next) -> Response {
    let asked = sensitivity(request.uri().path());
    let peer = request.extensions().get::<Peer>().map_or(UNKNOWN, |peer| peer.0);
    let actor = Actor::Api { peer, token: shared.access.has_token(request.headers()) };
    request.extensions_mut().insert(actor);
    let mut response = match shared.access.check(asked, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refusal::Host) => problem(
            StatusCode::FORBIDDEN,
            "the Host header is not a name of this host's loopback interface",
            "ask for it as 127.0.0.1, [::1] or localhost",
        ),
        Err(Refusal::Origin) => problem(
            StatusCode::FORBIDDEN,
            "the request comes from a page of another origin",
            "use shadow-agent ctl or curl, or a page that this agent serves",
        ),
        Err(Refusal::Token) => {
            let mut response = problem(
                StatusCode::UNAUTHORIZED,
                "this needs the bearer token",
                "send the token of admin.token_file as `Authorization: Bearer TOKEN`",
            );
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(shared): Api) -> Response {
    let waiting = shared.state.readiness.waiting();
    if waiting.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", waiting.join(", "))).into_response()
    }
}

async fn prometheus(State(shared): Api) -> Response {
    match shared.state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "see the agent's log"),
    }
}

async fn status(State(shared): Api) -> Json<Status> {
    Json(Status::of(&shared.state, shared.state.sources.runs.current().report().now()))
}

async fn endpoints(State(shared): Api, Extension(actor): Extension<Actor>) -> Response {
    let sources = &shared.state.sources;
    sources.audit.record(actor, Action::BodyViewed { resource: "/api/v1/endpoints" });
    let (ledger, kernel) = (sources.ledger.snapshot(), (sources.kernel)());
    Json(sources.runs.current().summary(ledger, kernel).endpoints).into_response()
}

#[derive(Debug, Deserialize)]
struct WhichRun {
    run: Option<String>,
}

async fn verdict(State(shared): Api, Query(WhichRun { run }): Query<WhichRun>) -> Response {
    let sources = &shared.state.sources;
    let asked = match run {
        Some(label) => sources.runs.find(&label),
        None => Some(sources.runs.current()),
    };
    match asked {
        Some(run) => Json(run.verdict(sources.ledger.snapshot())).into_response(),
        None => problem(
            StatusCode::NOT_FOUND,
            "there is no such run here, or it ended too long ago",
            "leave `run` out to get the run under way, or give one of those that /api/v1/status lists under `runs`",
        ),
    }
}

async fn unknown() -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "there is nothing at this path",
        "ask for /livez, /readyz, /metrics, or /api/v1/ followed by status, endpoints, verdict, capture, sample, \
         reload or runs",
    )
}

async fn wrong_method() -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take that method",
        "the Allow header names those it takes",
    )
}

pub(super) fn problem(status: StatusCode, error: impl Into<String>, remedy: impl Into<String>) -> Response {
    (status, Json(Problem { error: error.into(), remedy: remedy.into() })).into_response()
}
