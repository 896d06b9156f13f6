//! Carries what is no replay, such as spans to a collector, over connections that are made like those to targets: known as
//! the agent's own, and marked. One connection for each message; nothing is sent twice.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, Uri, Version};
use http_body_util::Full;
use opentelemetry_http::{HttpClient, HttpError};
use thiserror::Error;
use tokio_util::task::TaskTracker;

use super::ReplayError;
use super::connection::Connection;
use super::connector::{self, ConnectError, Connector, Means};
use super::gate::Gate;
use super::names::Lookup;
use super::own::Registrar;
use super::tls::Offer;
use crate::config;
use crate::control::Control;
use crate::exchange::FailReason;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Makes connections to one host.
#[derive(Debug)]
pub struct Courier {
    connector: Connector,
    host: HeaderValue,
}

/// Why there is no answer.
#[derive(Debug, Error)]
enum CourierError {
    /// There is no connection.
    #[error("it cannot be connected to: {0}")]
    Connect(String),
    /// The message is none that HTTP/1.1 can carry.
    #[error("the message has no path")]
    Path,
    /// The connection broke, or what came is not HTTP.
    #[error("it did not answer: {0}")]
    Answer(FailReason),
}

impl Courier {
    /// To the host of `url`, over TLS if it says so. The kill switch is for replays and has no say here.
    ///
    /// # Errors
    /// When it is no `http` or `https` URL with a host, or TLS cannot be had.
    pub fn new(url: &Uri, mark: u32, own: Registrar) -> Result<Courier, ReplayError> {
        let target =
            config::Target { name: "traces.otlp".to_owned(), url: url.clone(), ..Default::default() };
        let host = url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let host = host.ok_or_else(|| ReplayError::url(&target))?;
        let means = Means {
            mark: connector::usable_mark(mark),
            own,
            lookup: Lookup::system(),
            tasks: TaskTracker::new(),
            gate: Arc::new(Gate::new(Control::new(true))),
        };
        Ok(Courier { connector: Connector::new(&target, means)?, host })
    }

    async fn carry(&self, message: Request<Bytes>) -> Result<Response<Bytes>, CourierError> {
        let (mut head, body) = message.into_parts();
        let path = head.uri.path_and_query().ok_or(CourierError::Path)?;
        head.uri = Uri::from(path.clone());
        head.version = Version::HTTP_11;
        head.headers.insert(header::HOST, self.host.clone());
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let link = self.connector.connect(Offer::One).await.map_err(|error| {
            let (ConnectError::Target(error) | ConnectError::Tls(error) | ConnectError::Ours(error)) = error;
            CourierError::Connect(error.to_string())
        })?;
        let opened = Connection::open(link).await;
        let mut connection = opened.map_err(|error| CourierError::Connect(error.to_string()))?;
        let message = Request::from_parts(head, Full::new(body));
        let answer = connection.exchange(message, MAX_ANSWER).await;
        let answer = answer.map_err(|broken| CourierError::Answer(broken.reason))?.response;
        let mut response = Response::new(answer.body);
        *response.status_mut() =
            answer.status.try_into().map_err(|_| CourierError::Answer(FailReason::Malformed))?;
        Ok(response)
    }
}

#[async_trait::async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        Ok(self.carry(request).await?)
    }
}
