//! The resources that change something: the kill switch, sampling, the configuration, runs. Each says in the audit log who
//! asked for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::api::{Api, Sampled, Switch, Switched, problem};
use super::operate::{Operate, Refusal};
use crate::audit::{Action, Actor};
use crate::config::Share;
use crate::config::units::{self, write_share};

/// Bytes of a request body.
pub(super) const BODY_BYTES: usize = 4 << 10;
/// For a request body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What `PUT /api/v1/sample` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sample {
    pub(super) sample: String,
}

/// What `POST /api/v1/runs` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRun {
    pub(super) label: String,
}

pub(super) async fn capture(
    State(shared): Api,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let example = "send {\"enabled\": true} or {\"enabled\": false}";
    let Switch { enabled } = match read(&headers, body, example).await {
        Ok(switch) => switch,
        Err(refused) => return *refused,
    };
    let switch = &shared.state.switch;
    match switch.throw(actor, enabled) {
        Ok(changed) => {
            tracing::info!(enabled, changed, "capture was switched through the admin API");
            Json(Switched { enabled, changed, persistent: switch.is_persistent() }).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the switch is not remembered");
            let remedy = "make the directory given with --state writable, and send the request again";
            problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), remedy)
        }
    }
}

pub(super) async fn sample(
    State(shared): Api,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let example = "send {\"sample\": \"10%\"}";
    let Sample { sample } = match read(&headers, body, example).await {
        Ok(sample) => sample,
        Err(refused) => return *refused,
    };
    let share: Share = match units::share(&sample) {
        Ok(share) => share,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string(), example),
    };
    let sources = &shared.state.sources;
    let before = sources.control.configure_sample(share);
    sources.audit.record(actor, Action::Sample { before, after: share });
    let (before, sample) = (write_share(before), write_share(share));
    tracing::info!(before, sample, "the share of flows captured was set through the admin API");
    Json(Sampled { sample, before, effective: write_share(sources.control.sample()) }).into_response()
}

pub(super) async fn reload(State(shared): Api, Extension(actor): Extension<Actor>) -> Response {
    operated(shared.state.operate.clone(), move |operate| operate.reload(actor)).await
}

pub(super) async fn runs(
    State(shared): Api,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let NewRun { label } = match read(&headers, body, "send {\"label\": \"v2\"}").await {
        Ok(run) => run,
        Err(refused) => return *refused,
    };
    operated(shared.state.operate.clone(), move |operate| operate.start_run(actor, &label)).await
}

/// Has something done that may block, while the API goes on answering.
async fn operated<T: Serialize + Send + 'static>(
    operate: Option<Arc<dyn Operate>>,
    deed: impl FnOnce(&dyn Operate) -> Result<T, Refusal> + Send + 'static,
) -> Response {
    let done = match operate {
        Some(operate) => tokio::task::spawn_blocking(move || deed(&*operate)).await,
        None => Ok(Err(Refusal::Settled)),
    };
    match done {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(refusal)) => {
            let status = match refusal {
                Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refusal::NeedsRestart(_) | Refusal::Settled => StatusCode::CONFLICT,
                Refusal::Busy => StatusCode::TOO_MANY_REQUESTS,
                Refusal::Label => StatusCode::BAD_REQUEST,
            };
            problem(status, refusal.to_string(), refusal.remedy())
        }
        Err(_) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "this panicked", "see the agent's log, and report it")
        }
    }
}

/// A body of JSON.
async fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    example: &str,
) -> Result<T, Box<Response>> {
    let json = headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    let refused = |status, error: String, remedy: &str| Err(Box::new(problem(status, error, remedy)));
    if !json {
        let error = "the body is not declared as JSON".to_owned();
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, error, "send `Content-Type: application/json`");
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let error = format!("the body is larger than {BODY_BYTES} bytes or broke off");
            return refused(StatusCode::PAYLOAD_TOO_LARGE, error, example);
        }
        Err(_) => {
            let error = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            return refused(StatusCode::REQUEST_TIMEOUT, error, "send the request again");
        }
    };
    match serde_json::from_slice(&body) {
        Ok(value) => Ok(value),
        Err(_) => refused(StatusCode::BAD_REQUEST, "the body is not what this takes".to_owned(), example),
    }
}
