//! What can be configured of one target beside its name and its limits: TLS, protocol, host, breaker, credentials.

use std::path::PathBuf;
use std::time::Duration;

use super::{Share, Target};

/// How a target with an `https` URL is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates that alone are trusted; `None` trusts what this host trusts.
    pub ca: Option<PathBuf>,
    /// The agent's own certificate, with those that lead to its authority, as PEM.
    pub cert: Option<PathBuf>,
    /// The key of `cert`, as PEM.
    pub key: Option<PathBuf>,
    /// The name that the target is asked for and that its certificate must be for; `None` is the URL's host.
    pub server_name: Option<String>,
    /// Whether the target's certificate is checked at all.
    pub verify: bool,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls { ca: None, cert: None, key: None, server_name: None, verify: true }
    }
}

/// The protocol version that a target is asked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http {
    /// That of production's request; over TLS, what the target chooses of both.
    #[default]
    Auto,
    /// Always HTTP/1.1.
    One,
    /// Always HTTP/2.
    Two,
}

/// The `Host` that a target is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// That of production's request.
    #[default]
    Preserve,
    /// That of the target's URL.
    Target,
    /// This one.
    Name(String),
}

/// When a target is left alone for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// The share of requests that fail from which on it is.
    pub failures: Share,
    /// Answers slower than this count as well, by the same share; `None` lets them be as slow as they are.
    pub latency: Option<Duration>,
    /// For how long nothing is sent.
    pub pause: Duration,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker { failures: Share(0.5), latency: None, pause: Duration::from_secs(2) }
    }
}

/// Where a secret is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// From a file, again whenever it changes.
    File(PathBuf),
    /// From an environment variable, once.
    Env(String),
}

/// What a target is sent in the place of production's credentials, with `replay.credentials: replace`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnCredentials {
    /// By header name, lower case.
    pub headers: Vec<(String, Secret)>,
    /// By the name of the query parameter.
    pub query: Vec<(String, Secret)>,
}

impl OwnCredentials {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.query.is_empty()
    }
}

impl Target {
    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == Some(&http::uri::Scheme::HTTPS)
    }

    /// The port that its URL leads to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }
}
