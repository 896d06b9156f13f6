//! Makes the request that one target is sent from the request that may be sent. Pure.
//!
//! What belongs to production's connection is left behind (RFC 9110, section 7.6.1): hop-by-hop fields, `Expect`, the
//! framing of the body. Trailer fields are sent by HTTP/2 only: with a known length, HTTP/1.1 has no place for them.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use http_body_util::Full;

use super::unsendable::Unsendable;
use super::{ReplayError, marks};
use crate::config;
use crate::exchange::Headers;
use crate::policy::mask::Sendable;
use crate::traces::Contexts;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that the marks and field lines of our own add, at most.
const OWN_FIELDS: usize = 11;

/// What one target wants to be different from the request as captured.
#[derive(Debug)]
pub(super) struct Rewrite {
    /// Put before each target; without the slash at its end.
    prefix: Bytes,
    /// The `Host` of requests that have none (HTTP/1.0).
    host: HeaderValue,
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
    /// The target's name, by which its requests have trace contexts of their own.
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
        let prefix = Bytes::copy_from_slice(prefix.as_bytes());
        let target = target.name.clone();
        Ok(Rewrite { prefix, host, set, remove, dry_run: None, target, traces })
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

    /// The request as this target is sent it, marks included.
    ///
    /// # Errors
    /// When HTTP/1.1 cannot express it.
    pub(super) fn apply(&self, request: &Sendable) -> Result<Request<Full<Bytes>>, Unsendable> {
        if request.method() == Method::CONNECT {
            return Err(Unsendable::Method(Method::CONNECT));
        }
        let mut message = Request::new(Full::new(request.body().clone()));
        *message.method_mut() = request.method().clone();
        *message.uri_mut() = self.target(request.target())?;
        let mut headers = end_to_end(request.headers())?;
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
        let (mut head, _) = self.apply(request)?.into_parts();
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
        (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(authority));
        head.uri = Uri::from_parts(parts)?;
        head.version = Version::HTTP_2;
        let mut trailers = end_to_end(request.trailers())?;
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
mod tests {
    use super::super::tests::{sendable, target};
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    /// The message made of a request for a target that was changed.
    fn made(
        change: impl FnOnce(&mut config::Target),
        method: &str,
        path: &str,
        headers: Fields<'_>,
        body: &str,
    ) -> Result<Request<Full<Bytes>>, Unsendable> {
        let mut target = target(80);
        change(&mut target);
        Rewrite::new(&target, Contexts::new(config::TraceContext::Mint, 0))
            .unwrap()
            .apply(&sendable(method, path, headers, body))
    }

    fn values<'a>(message: &'a Request<Full<Bytes>>, name: &str) -> Vec<&'a [u8]> {
        message.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }

    #[test]
    fn a_dry_run_says_so_in_one_field_and_no_other_request_does() {
        let mut rewrite = Rewrite::new(&target(80), Contexts::new(config::TraceContext::Mint, 0)).unwrap();
        assert!(!rewrite.has_dry_run());
        let field = ("x-dry-run".to_owned(), "yes".to_owned());
        rewrite.understand_dry_runs("candidate", &field).unwrap();
        let request = Sendable::clone(&sendable("POST", "/", &[("x-dry-run", "no"), ("X-Dry-Run", "2")], ""));
        let sent = rewrite.apply(&request).unwrap();
        assert_eq!(values(&sent, "x-dry-run"), [b"no".as_slice(), b"2"], "what the client said");
        let sent = rewrite.apply(&request.as_dry_run()).unwrap();
        assert_eq!(values(&sent, "x-dry-run"), [b"yes"]);
        let refused = rewrite.understand_dry_runs("candidate", &("connection".to_owned(), "x".to_owned()));
        assert!(refused.is_err());
    }

    #[test]
    fn the_prefix_stands_before_every_target_but_the_asterisk() {
        let cases = [
            ("http://h", "/a?b=1", "/a?b=1"),
            ("http://h/", "/", "/"),
            ("http://h/", "//a//b", "//a//b"),
            ("http://h/v2", "/a", "/v2/a"),
            ("http://h/v2/", "/a", "/v2/a"),
            ("http://h/v2", "/", "/v2/"),
            ("http://h/v2", "?x", "/v2/?x"),
            ("http://h", "?x", "/?x"),
            ("http://h/v2", "*", "*"),
            ("http://h", "/{}\u{e9}?a|b", "/{}\u{e9}?a|b"),
            ("http://h/v2", "/a^b?c=<%20>&\u{e9}", "/v2/a%5Eb?c=%3C%20%3E&%C3%A9"),
        ];
        for (url, path, expected) in cases {
            let message = made(|target| target.url = url.parse().unwrap(), "OPTIONS", path, &[], "");
            assert_eq!(message.unwrap().uri().to_string(), expected, "{path} at {url}");
        }
    }

    #[test]
    fn what_http_cannot_express_is_an_error() {
        let long = format!("/{}", "x".repeat(1 << 16));
        let cases: [(&str, &str, Fields<'_>); 9] = [
            ("CONNECT", "h:80", &[]),
            ("GET", "/a b", &[]),
            ("GET", "/a\u{1}b", &[]),
            ("GET", "/a#b", &[]),
            ("GET", &long, &[]),
            ("GET", "relative", &[]),
            ("GET", "/", &[("na me", "x")]),
            ("GET", "/", &[("", "x")]),
            ("GET", "/", &[("x", "a\u{1}b")]),
        ];
        for (method, path, headers) in cases {
            let made = made(|_| {}, method, path, headers, "");
            assert!(made.is_err(), "{method} {:.20} {headers:?}", path);
        }
    }

    #[test]
    fn too_many_fields_are_an_error_and_no_panic() {
        let names: Vec<String> = (0..40_000).map(|number| format!("x-{number}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert!(matches!(made(|_| {}, "GET", "/", &headers, ""), Err(Unsendable::Fields(_))));
    }

    #[test]
    fn hop_by_hop_fields_stay_behind() {
        let headers = [
            ("host", "h"),
            ("Connection", "close, X-One , host,"),
            ("connection", "x-two"),
            ("X-One", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("Keep-Alive", "1"),
            ("Proxy-Connection", "1"),
            ("TE", "gzip"),
            ("Trailer", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("Expect", "100-continue"),
            ("Content-Length", "77"),
        ];
        let message = made(|_| {}, "POST", "/", &headers, "ab").unwrap();
        let mut names: Vec<_> = message.headers().keys().map(HeaderName::as_str).collect();
        names.retain(|name| !name.starts_with("x-shadow") && !["baggage", "traceparent"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host", "x-three"]);
        assert_eq!(values(&message, "content-length"), [b"2"]);
    }

    #[test]
    fn a_client_that_reads_trailers_still_says_so() {
        let headers = [("Connection", "TE"), ("TE", "gzip;q=0.5, Trailers")];
        let message = made(|_| {}, "GET", "/", &headers, "").unwrap();
        assert_eq!(values(&message, "te"), [b"trailers"]);
        assert_eq!(values(&message, "connection"), [b"te"]);
    }

    #[test]
    fn the_length_is_that_of_the_body_where_there_was_framing() {
        let cases: [(&str, Fields<'_>, &str, &[&str]); 5] = [
            ("GET", &[], "", &[]),
            ("POST", &[("content-length", "0")], "", &["0"]),
            ("POST", &[("transfer-encoding", "chunked")], "", &["0"]),
            ("POST", &[("content-length", "9"), ("content-length", "9")], "abc", &["3"]),
            ("GET", &[("transfer-encoding", "chunked")], "abc", &["3"]),
        ];
        for (method, headers, body, expected) in cases {
            let message = made(|_| {}, method, "/", headers, body).unwrap();
            let expected: Vec<_> = expected.iter().map(|length| length.as_bytes()).collect();
            assert_eq!(values(&message, "content-length"), expected, "{method} {headers:?} {body:?}");
        }
    }

    #[test]
    fn the_operator_sets_and_removes_and_the_marks_come_last() {
        let change = |target: &mut config::Target| {
            target.remove_headers = vec!["x-internal".into(), "x-shadow-request".into()];
            target.set_headers = vec![
                ("X-Env".into(), "a".into()),
                ("x-env".into(), "b".into()),
                ("host".into(), "other".into()),
            ];
        };
        let headers = [("X-Internal", "1"), ("x-env", "production"), ("Host", "shop"), ("accept", "*/*")];
        let message = made(change, "GET", "/", &headers, "").unwrap();
        assert_eq!(values(&message, "x-env"), [b"a", b"b"]);
        assert_eq!(values(&message, "host"), [b"other"]);
        assert_eq!(values(&message, "x-internal"), [b""; 0]);
        assert_eq!(values(&message, "accept"), [b"*/*"]);
        assert_eq!(values(&message, "x-shadow-request"), [b"1"]);
    }

    #[test]
    fn the_host_is_kept_and_given_where_there_was_none() {
        let port = |target: &mut config::Target| target.url = "http://10.0.0.9:8080".parse().unwrap();
        for (headers, expected) in [(&[("HOST", "shop")][..], "shop"), (&[][..], "10.0.0.9:8080")] {
            let message = made(port, "GET", "/", headers, "").unwrap();
            assert_eq!(values(&message, "host"), [expected.as_bytes()]);
        }
    }
}
