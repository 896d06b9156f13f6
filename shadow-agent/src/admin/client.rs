//! The other end of the API, for `shadow-agent ctl`: asks a running agent and says clearly when it cannot.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpStream;

use super::actions::{NewRun, Sample};
use super::api::{Problem, Switch};
pub use super::api::{Sampled, Switched};
pub use super::operate::{Reloaded, RunStarted};
use super::status::Status;

/// For connecting, and again for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const ANSWER_BYTES: usize = 8 << 20;

/// Why the agent did not do what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is not one that can be asked.
    #[error("{base} is not the address of an admin API: give it as http://HOST:PORT")]
    Address {
        /// The address given.
        base: String,
    },
    /// The token has characters that no header may hold.
    #[error("the token is not usable: it may hold visible ASCII characters only")]
    Token,
    /// Nothing listens there.
    #[error(
        "no agent answers at {base} ({source}): start one with shadow-agent run, or name another address with --admin"
    )]
    Unreachable {
        /// The address asked.
        base: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something listens and does not answer.
    #[error("the agent at {base} did not answer within {} s: look at its log", TIMEOUT.as_secs())]
    Timeout {
        /// The address asked.
        base: String,
    },
    /// The connection broke, or what came back is no HTTP.
    #[error("the answer of {base} cannot be read ({source}): is it a shadow-agent that listens there?")]
    Protocol {
        /// The address asked.
        base: String,
        /// What the HTTP library said.
        source: hyper::Error,
    },
    /// What came back is HTTP, and not this API.
    #[error(
        "the answer of {base} is not that of a shadow-agent of this version ({status}): check the address"
    )]
    Strange {
        /// The address asked.
        base: String,
        /// The status answered.
        status: StatusCode,
    },
    /// The agent refused, and said why.
    #[error("the agent at {base} refuses: {error}; {remedy}")]
    Refused {
        /// The address asked.
        base: String,
        /// The status answered.
        status: StatusCode,
        /// What is wrong.
        error: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Asks one agent.
#[derive(Debug)]
pub struct Client {
    base: String,
    host: String,
    port: u16,
    authority: HeaderValue,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the API at `base`, such as `http://127.0.0.1:9465`; nothing is sent yet.
    ///
    /// # Errors
    /// When the address is not an `http` one, has a path, or the token cannot be sent.
    pub fn new(base: Uri, token: Option<&str>) -> Result<Client, ClientError> {
        let usable = base.scheme() == Some(&Scheme::HTTP) && base.query().is_none() && base.path() == "/";
        let authority = base.authority().filter(|authority| usable && !authority.as_str().contains('@'));
        let Some(authority) = authority else { return Err(ClientError::Address { base: base.to_string() }) };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(80);
        let Ok(authority) = HeaderValue::from_str(authority.as_str()) else {
            return Err(ClientError::Address { base: base.to_string() });
        };
        let authorization = token
            .map(|token| {
                let mut value =
                    HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        Ok(Client {
            base: base.to_string().trim_end_matches('/').to_owned(),
            host,
            port,
            authority,
            authorization,
        })
    }

    /// How the agent stands.
    ///
    /// # Errors
    /// When it cannot be asked, or refuses.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/api/v1/status", None::<&()>).await
    }

    /// Throws the kill switch.
    ///
    /// # Errors
    /// When the agent cannot be asked, or refuses. After a refusal with status 500 the switch is thrown, and not
    /// remembered.
    pub async fn set_enabled(&self, enabled: bool) -> Result<Switched, ClientError> {
        self.ask(Method::PUT, "/api/v1/capture", Some(&Switch { enabled })).await
    }

    /// Sets the share of flows captured, such as `10%`.
    ///
    /// # Errors
    /// When the agent cannot be asked, or refuses.
    pub async fn set_sample(&self, sample: &str) -> Result<Sampled, ClientError> {
        self.ask(Method::PUT, "/api/v1/sample", Some(&Sample { sample: sample.to_owned() })).await
    }

    /// Has the configuration read anew.
    ///
    /// # Errors
    /// When the agent cannot be asked, or refuses; then the configuration before stays in force.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.ask(Method::POST, "/api/v1/reload", None::<&()>).await
    }

    /// Begins another run.
    ///
    /// # Errors
    /// When the agent cannot be asked, or refuses.
    pub async fn start_run(&self, label: &str) -> Result<RunStarted, ClientError> {
        self.ask(Method::POST, "/api/v1/runs", Some(&NewRun { label: label.to_owned() })).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &'static str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let connect = tokio::time::timeout(TIMEOUT, TcpStream::connect((self.host.as_str(), self.port)));
        let stream = connect
            .await
            .map_err(|_| self.timeout())?
            .map_err(|source| ClientError::Unreachable { base: self.base.clone(), source })?;
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(stream, self.request(method, path, body)));
        let (status, body) = answer.await.map_err(|_| self.timeout())??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| self.strange(status));
        }
        let Problem { error, remedy } = serde_json::from_slice(&body).map_err(|_| self.strange(status))?;
        Err(ClientError::Refused { base: self.base.clone(), status, error, remedy })
    }

    fn request(
        &self,
        method: Method,
        path: &'static str,
        body: Option<&impl Serialize>,
    ) -> Request<Full<Bytes>> {
        // What is sent are our own plain types; they have no key that JSON cannot express.
        let body = body.and_then(|body| serde_json::to_vec(body).ok()).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static(path);
        request.headers_mut().insert(HOST, self.authority.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |source| ClientError::Protocol { base: self.base.clone(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            let body = body.map_err(|_| self.strange(status))?;
            Ok((status, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end before its last bytes were taken from it.
            _ = connection => answer.await,
        }
    }

    fn timeout(&self) -> ClientError {
        ClientError::Timeout { base: self.base.clone() }
    }

    fn strange(&self, status: StatusCode) -> ClientError {
        ClientError::Strange { base: self.base.clone(), status }
    }
}
