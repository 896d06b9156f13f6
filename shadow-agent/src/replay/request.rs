//! Makes the request that one target is sent from the request that may be sent. Pure.
//!
//! What belongs to production's connection is left behind (RFC 9110, section 7.6.1): hop-by-hop fields, `Expect`, the
//! framing of the body. Trailer fields are sent by HTTP/2 only: with a known length, HTTP/1.1 has no place for them.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use http_body_util::Full;

use super::credentials::Credentials;
use super::unsendable::Unsendable;
use super::{Key, ReplayError, idempotency, marks};
use crate::config;
use crate::exchange::Headers;
use crate::policy::mask::{Compartment, Sendable};
use crate::traces::Contexts;

const KEY: Key = Key::new();

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that the marks and field lines of our own add, at most.
const OWN_FIELDS: usize = 11;

/// What one target wants to be different from the request as captured.
#[derive(Debug)]
pub(super) struct Rewrite {
    /// Put before each target; without the slash at its end.
    prefix: Bytes,
    scheme: Scheme,
    /// The `Host` of requests that have none (HTTP/1.0).
    host: HeaderValue,
    /// The `Host` of all requests.
    fixed_host: Option<HeaderValue>,
    /// The field that makes unsafe requests idempotent.
    idempotency: Option<HeaderName>,
    credentials: Credentials,
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
    /// The target's name, by which its requests have trace contexts and idempotency keys of their own.
    target: String,
    traces: Contexts,
    /// What says that a request is a dry run, if the target understands it.
    dry_run: Option<(HeaderName, HeaderValue)>,
}

/// A request as it is sent by HTTP/2.
#[derive(Debug)]
pub(super) struct Http2Request {
    /// Everything but body and trailers; `:scheme`, `:authority` and `:path` are in the URI.
    pub(super) head: Request<()>,
    pub(super) body: Bytes,
    /// Not there when there are no fields.
    pub(super) trailers: Option<HeaderMap>,
}

impl Rewrite {
    /// Checks what is configured for `target`.
    ///
    /// # Errors
    /// When a header is not valid or not for the operator to set, or the URL has a query or
    /// credentials.
    pub(super) fn new(target: &config::Target, traces: Contexts) -> Result<Rewrite, ReplayError> {
        let url_error = || ReplayError::url(target);
        let authority = target.url.authority().ok_or_else(url_error)?;
        if target.url.query().is_some() || authority.as_str().contains('@') {
            return Err(url_error());
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| url_error())?;
        let name = |name: &str| {
            let error = || ReplayError::Header { target: target.name.clone(), name: name.to_owned() };
            HeaderName::try_from(name).map_err(|_| error())
        };
        let mut set = Vec::with_capacity(target.set_headers.len());
        for (header, value) in &target.set_headers {
            let error = || ReplayError::Header { target: target.name.clone(), name: header.clone() };
            let header = name(header)?;
            if is_hop_by_hop(&header) {
                return Err(error());
            }
            set.push((header, HeaderValue::from_str(value).map_err(|_| error())?));
        }
        let remove = target.remove_headers.iter().map(|header| name(header)).collect::<Result<_, _>>()?;
        let prefix = target.url.path().trim_end_matches('/');
        let fixed_host = match &target.host {
            config::HostHeader::Preserve => None,
            config::HostHeader::Target => Some(host.clone()),
            config::HostHeader::Name(name) => Some(HeaderValue::from_str(name).map_err(|_| {
                ReplayError::Header { target: target.name.clone(), name: header::HOST.to_string() }
            })?),
        };
        let idempotency = target.idempotency_header.as_deref().map(name).transpose()?;
        Ok(Rewrite {
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            scheme: if target.is_tls() { Scheme::HTTPS } else { Scheme::HTTP },
            host,
            fixed_host,
            set,
            remove,
            idempotency,
            credentials: Credentials::new(target)
                .map_err(|error| ReplayError::Credentials { target: target.name.clone(), error })?,
            dry_run: None,
            target: target.name.clone(),
            traces,
        })
    }

    /// Has dry runs carry this field.
    ///
    /// # Errors
    /// When it is not valid, or belongs to the connection.
    pub(super) fn understand_dry_runs(
        &mut self,
        target: &str,
        (name, value): &(String, String),
    ) -> Result<(), ReplayError> {
        let error = || ReplayError::Header { target: target.to_owned(), name: name.clone() };
        let field = HeaderName::try_from(name).ok().filter(|name| !is_hop_by_hop(name)).ok_or_else(error)?;
        self.dry_run = Some((field, HeaderValue::from_str(value).map_err(|_| error())?));
        Ok(())
    }

    /// Whether the target understands what a dry run is.
    pub(super) fn has_dry_run(&self) -> bool {
        self.dry_run.is_some()
    }

    /// Whether the target has credentials of its own that can change.
    pub(super) fn has_credentials(&self) -> bool {
        self.credentials.can_change()
    }

    /// Reads those credentials of the target again that have changed; blocks.
    pub(super) fn reread(&self) {
        self.credentials.reread();
    }

    /// The request as this target is sent it, marks included.
    ///
    /// # Errors
    /// When HTTP/1.1 cannot express it: gRPC needs HTTP/2 for the trailers of its answers.
    pub(super) fn apply(&self, request: &Sendable) -> Result<Request<Full<Bytes>>, Unsendable> {
        let grpc = |value: &Bytes| value.to_ascii_lowercase().starts_with(b"application/grpc");
        if request.version() == Version::HTTP_2 && request.headers().get("content-type").is_some_and(grpc) {
            return Err(Unsendable::Grpc);
        }
        self.rewritten(request)
    }

    fn rewritten(&self, request: &Sendable) -> Result<Request<Full<Bytes>>, Unsendable> {
        if request.method() == Method::CONNECT {
            return Err(Unsendable::Method(Method::CONNECT));
        }
        let mut message = Request::new(Full::new(request.body().clone()));
        *message.method_mut() = request.method().clone();
        let mut headers = match request.credentials().open(&KEY) {
            Compartment::Nothing => {
                *message.uri_mut() = self.target(request.target())?;
                end_to_end(request.headers())?
            }
            Compartment::Forward(withheld) => {
                *message.uri_mut() = self.target(withheld.target().unwrap_or(request.target()))?;
                end_to_end(&withheld.headers(request.headers()))?
            }
            Compartment::Replace => {
                *message.uri_mut() = self.target(&self.credentials.in_target(request.target()))?;
                end_to_end(request.headers())?
            }
        };
        if let Some(host) = &self.fixed_host {
            headers.try_insert(header::HOST, host.clone())?;
        }
        if let Some(length) = content_length(request) {
            headers.try_insert(header::CONTENT_LENGTH, length)?;
        }
        for name in self.remove.iter().chain(self.set.iter().map(|(name, _)| name)) {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.try_append(name, value.clone())?;
        }
        if !headers.contains_key(header::HOST) {
            headers.try_insert(header::HOST, self.host.clone())?;
        }
        if let Compartment::Replace = request.credentials().open(&KEY) {
            self.credentials.put(&mut headers)?;
        }
        if let Some(name) = &self.idempotency
            && !request.method().is_safe()
            && !headers.contains_key(name)
        {
            headers.try_insert(name, idempotency::key(request.id(), request.seen(), &self.target)?)?;
        }
        if let (true, Some((name, value))) = (request.is_dry_run(), &self.dry_run) {
            headers.try_insert(name, value.clone())?;
        }
        marks::put(&mut headers, request, &self.traces, &self.target)?;
        *message.headers_mut() = headers;
        Ok(message)
    }

    /// The same request for HTTP/2 (RFC 9113, section 8.3.1): `Host` is `:authority`, no field belongs to the connection
    /// (section 8.2.2, which leaves `TE: trailers`), the length is stated only where it was, and trailers are sent.
    ///
    /// # Errors
    /// When HTTP/2 cannot express it.
    pub(super) fn apply_http2(&self, request: &Sendable) -> Result<Http2Request, Unsendable> {
        let (mut head, _) = self.rewritten(request)?.into_parts();
        head.headers.remove(header::CONNECTION);
        if !request.headers().contains("content-length") {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let host = head.headers.remove(header::HOST).unwrap_or_else(|| self.host.clone());
        let authority = Authority::try_from(host.as_bytes())?;
        if authority.as_str().contains('@') {
            return Err(Unsendable::UserInfo);
        }
        let mut parts = head.uri.into_parts();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(authority));
        head.uri = Uri::from_parts(parts)?;
        head.version = Version::HTTP_2;
        let mut trailers = match request.credentials().open(&KEY) {
            Compartment::Forward(withheld) => end_to_end(&withheld.trailers(request.trailers()))?,
            Compartment::Nothing | Compartment::Replace => end_to_end(request.trailers())?,
        };
        for name in self.remove.iter().chain(&[header::CONNECTION, header::HOST, header::TE]) {
            trailers.remove(name);
        }
        let trailers = if trailers.is_empty() { None } else { Some(trailers) };
        Ok(Http2Request { head: Request::from_parts(head, ()), body: request.body().clone(), trailers })
    }

    fn target(&self, target: &Bytes) -> Result<Uri, Unsendable> {
        // Parsing would cut a fragment off, and so ask for another resource.
        if target.contains(&b'#') {
            return Err(Unsendable::Fragment);
        }
        let lacks_slash = target.first().is_none_or(|&byte| byte == b'?');
        if target == "*" || self.prefix.is_empty() && !lacks_slash {
            return uri(target.clone());
        }
        let mut whole = BytesMut::with_capacity(self.prefix.len() + 1 + target.len());
        whole.put_slice(&self.prefix);
        if lacks_slash {
            whole.put_u8(b'/');
        }
        whole.put_slice(target);
        uri(whole.freeze())
    }
}

/// The bytes of credentials that a request carries apart.
pub(super) fn withheld(request: &Sendable) -> usize {
    match request.credentials().open(&KEY) {
        Compartment::Forward(withheld) => withheld.size(),
        Compartment::Nothing | Compartment::Replace => 0,
    }
}

/// The target as it is, or, where browsers send bytes that RFC 3986 does not allow, with these percent-encoded.
fn uri(target: Bytes) -> Result<Uri, Unsendable> {
    let parsed = PathAndQuery::from_maybe_shared(target.clone())
        .or_else(|_| PathAndQuery::from_maybe_shared(Bytes::from(percent_encoded(&target))));
    Ok(Uri::from(parsed?))
}

/// Encodes what is neither a control character nor allowed in a URI (RFC 3986, section 2); every server decodes it to
/// the byte that stood there.
fn percent_encoded(target: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(target.len() + 16);
    for &byte in target {
        if byte >= 0x80 || b"\"<>\\^`{|}".contains(&byte) {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            encoded.push(byte);
        }
    }
    encoded
}

/// The fields that go from end to end; repeated ones stay repeated.
fn end_to_end(headers: &Headers) -> Result<HeaderMap, Unsendable> {
    let mut kept = HeaderMap::try_with_capacity(headers.len() + OWN_FIELDS)?;
    let (mut reads_trailers, mut nominates) = (false, false);
    for (name, value) in headers.iter() {
        let name = HeaderName::from_bytes(name)?;
        if is_hop_by_hop(&name) {
            reads_trailers |= name == header::TE && has_token(value, "trailers");
            nominates |= name == header::CONNECTION;
            continue;
        }
        kept.try_append(name, HeaderValue::from_maybe_shared(value.clone())?)?;
    }
    if nominates {
        remove_nominated(headers, &mut kept);
    }
    if reads_trailers {
        kept.try_insert(header::TE, HeaderValue::from_static("trailers"))?;
        kept.try_insert(header::CONNECTION, HeaderValue::from_static("te"))?;
    }
    Ok(kept)
}

/// Removes what `Connection` names (RFC 9110, section 7.6.1); `Host` is no field of the connection, whoever says so.
fn remove_nominated(headers: &Headers, kept: &mut HeaderMap) {
    for value in headers.all("connection") {
        for token in tokens(value) {
            if let Ok(name) = HeaderName::from_bytes(token)
                && name != header::HOST
            {
                kept.remove(name);
            }
        }
    }
}

/// Fields that are for one connection, or about the framing of one message.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    const STANDARD: [HeaderName; 7] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    STANDARD.contains(name) || *name == KEEP_ALIVE || *name == PROXY_CONNECTION
}

/// The length of the body; none where production's request had neither body nor framing.
fn content_length(request: &Sendable) -> Option<HeaderValue> {
    let headers = request.headers();
    let length = request.body().len();
    let framed = length > 0 || headers.contains("content-length") || headers.contains("transfer-encoding");
    framed.then(|| HeaderValue::from(length))
}

fn has_token(value: &[u8], wanted: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()))
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests;
