//! The resources: what each path answers. Every refusal is JSON with an `error` and a `remedy`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::access::{Access, Refusal, Sensitivity};
use super::{AdminState, Status};
use crate::metrics;

/// Bytes of a request body.
pub(super) const BODY_BYTES: usize = 4 << 10;
/// For a request body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

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

/// A refusal: what is wrong, and what to do about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) error: String,
    pub(super) remedy: String,
}

struct Shared {
    state: AdminState,
    access: Access,
}

type Api = State<Arc<Shared>>;

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
        .route("/api/v1/capture", put(capture))
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

async fn guard(State(shared): Api, request: Request, next: Next) -> Response {
    let asked = sensitivity(request.uri().path());
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
    Json(Status::of(&shared.state, shared.state.sources.report.now()))
}

async fn endpoints(State(shared): Api) -> Response {
    let ledger = shared.state.sources.ledger.snapshot();
    let kernel = (shared.state.sources.kernel)();
    Json(shared.state.sources.report.summary(&ledger, &kernel).endpoints).into_response()
}

#[derive(Debug, Deserialize)]
struct WhichRun {
    run: Option<String>,
}

async fn verdict(State(shared): Api, Query(WhichRun { run }): Query<WhichRun>) -> Response {
    let report = &shared.state.sources.report;
    if run.is_some_and(|run| run != report.label()) {
        return problem(
            StatusCode::NOT_FOUND,
            "there is no such run here",
            "leave `run` out to get the run under way, whose label /api/v1/status tells",
        );
    }
    Json(report.verdict(&shared.state.sources.ledger.snapshot())).into_response()
}

async fn capture(State(shared): Api, headers: HeaderMap, body: Body) -> Response {
    let json = headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !json {
        return problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is not declared as JSON",
            "send `Content-Type: application/json`",
        );
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return problem(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {BODY_BYTES} bytes or broke off"),
                "send {\"enabled\": true} or {\"enabled\": false}",
            );
        }
        Err(_) => {
            return problem(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
                "send the request again",
            );
        }
    };
    let Ok(Switch { enabled }) = serde_json::from_slice(&body) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "the body is not what this takes",
            "send {\"enabled\": true} or {\"enabled\": false}",
        );
    };
    // Off first, remembered second: a full disk must not keep capture on.
    let changed = shared.state.sources.control.set_enabled(enabled);
    tracing::info!(enabled, changed, "capture was switched through the admin API");
    if let Some(file) = &shared.state.switch
        && let Err(error) = file.remember(enabled)
    {
        tracing::error!(%error, "the switch is not remembered");
        let remedy = "make the directory given with --state writable, and send the request again";
        return problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), remedy);
    }
    Json(Switched { enabled, changed, persistent: shared.state.switch.is_some() }).into_response()
}

async fn unknown() -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "there is nothing at this path",
        "ask for /livez, /readyz, /metrics, or /api/v1/ followed by status, endpoints, verdict or capture",
    )
}

async fn wrong_method() -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take that method",
        "the Allow header names those it takes",
    )
}

fn problem(status: StatusCode, error: impl Into<String>, remedy: impl Into<String>) -> Response {
    (status, Json(Problem { error: error.into(), remedy: remedy.into() })).into_response()
}
