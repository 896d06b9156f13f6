//! The nouns that cross stages: exchanges, answers, and the reasons for which one is not used.
//!
//! Plain data. Nothing here parses, decides or does I/O.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Version};

mod reasons;

pub(crate) use reasons::reasons;
pub use reasons::{DropReason, FailReason, LostReason, SkipReason, UncomparableReason};

/// A point in time: nanoseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment by the wall clock, for what is measured by no other; stages that are pure are told the time.
    #[must_use]
    pub fn now() -> Timestamp {
        Timestamp::default().plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// The time between `earlier` and this point; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This point moved later by `span`, saturating at the end of time.
    #[must_use]
    pub fn plus(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// This point moved earlier by `span`, not before the epoch.
    #[must_use]
    pub fn before(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// RFC 3339, in UTC, with nanoseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.9}")
    }
}

/// Names one exchange in marks, reports and the store: 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names one captured connection; exchanges of one connection are not independent of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names what goes in order, such as all requests of one user, by a keyed hash; it says nothing else about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Header or trailer fields in the order received, names as received (compare them case-insensitively).
///
/// Cloning is cheap: names and values are slices of the received head. `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(Bytes, Bytes)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

impl Headers {
    /// The first value of the field `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Every value of the field `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> + 'a {
        self.0
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Whether any field is called `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The number of field lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A captured request, its body after transfer decoding and before content decoding. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, case-sensitive (RFC 9110, section 9.1).
    pub method: Method,
    /// The request target as received (RFC 9112, section 3.2).
    pub target: Bytes,
    /// The protocol version of the message.
    pub version: Version,
    /// The header fields.
    pub headers: Headers,
    /// The body, whole.
    pub body: Bytes,
    /// The trailer fields.
    pub trailers: Headers,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Request({} {} target bytes, {} body bytes)",
            self.method,
            self.target.len(),
            self.body.len()
        )
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} body bytes)", self.status, self.body.len())
    }
}

impl Request {
    /// The path of the target without query, for origin-form and absolute-form targets.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        let origin = self.origin_form();
        origin.split(|&byte| byte == b'?').next().unwrap_or(origin)
    }

    /// The query of the target, without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        let origin = self.origin_form();
        let mark = origin.iter().position(|&byte| byte == b'?')?;
        origin.get(mark + 1..)
    }

    /// The target in origin-form: an absolute-form target loses scheme and authority (RFC 9112, section 3.2.2).
    #[must_use]
    pub fn origin_form(&self) -> &[u8] {
        let target = self.target.as_ref();
        if target.first() == Some(&b'/') || target == b"*" {
            return target;
        }
        let Some(authority) = target.windows(3).position(|window| window == b"://").map(|at| at + 3) else {
            return target;
        };
        let rest = target.get(authority..).unwrap_or_default();
        match rest.iter().position(|&byte| byte == b'/' || byte == b'?') {
            Some(path) => rest.get(path..).unwrap_or(b"/"),
            None => b"/",
        }
    }
}

/// A final response (never 1xx), its body after transfer decoding and before content decoding. `Debug` shows no
/// content.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 to 999.
    pub status: u16,
    /// The protocol version of the message.
    pub version: Version,
    /// The header fields.
    pub headers: Headers,
    /// The body, whole.
    pub body: Bytes,
    /// The trailer fields.
    pub trailers: Headers,
}

/// When the parts of an exchange passed the capture point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// First byte of the request.
    pub started: Timestamp,
    /// Last byte of the request.
    pub request_done: Timestamp,
    /// First byte of the final response.
    pub response_started: Timestamp,
    /// Last byte of the final response.
    pub response_done: Timestamp,
}

/// One request and production's response to it, both whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name everywhere.
    pub id: ExchangeId,
    /// The connection that it was seen on.
    pub connection: ConnectionId,
    /// Who asked.
    pub client: SocketAddr,
    /// Who answered.
    pub server: SocketAddr,
    /// The request.
    pub request: Request,
    /// Production's response.
    pub response: Response,
    /// When its parts were seen.
    pub times: Times,
}

/// What is known of an exchange that should have been whole, and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why it is not.
    pub reason: LostReason,
    /// Its name, which nobody else has.
    pub id: ExchangeId,
    /// The connection that it was seen on.
    pub connection: ConnectionId,
    /// Who asked.
    pub client: SocketAddr,
    /// Who answered, or should have.
    pub server: SocketAddr,
    /// The request, if its head was seen whole. Its body is there only if [`Times::request_done`] is.
    pub request: Option<Request>,
    /// The response, likewise.
    pub response: Option<Response>,
    /// When its parts were seen; what was not seen has the time zero.
    pub times: Times,
}

/// What a shadow answered, whole, and how long it took.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The response.
    pub response: Response,
    /// From the last byte of the request on a connected socket to the first byte of the response; `None` when the agent
    /// itself stood still meanwhile.
    pub first_byte: Option<Duration>,
    /// When the last byte of the request was written.
    pub sent: Timestamp,
    /// When the last byte of the response was read.
    pub done: Timestamp,
}

/// What a shadow host is to the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The new version.
    Candidate,
    /// Production's own version, as a shadow.
    Baseline,
}

/// A shadow host, as stages behind `replay` know it: its position in every list of targets, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetInfo {
    /// Its name in labels and reports.
    pub name: String,
    /// What it is to the comparison. The baseline, if any, is the last of the targets.
    pub role: Role,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &'static str) -> Request {
        Request {
            method: Method::GET,
            target: Bytes::from_static(target.as_bytes()),
            version: Version::HTTP_11,
            headers: Headers::default(),
            body: Bytes::new(),
            trailers: Headers::default(),
        }
    }

    #[test]
    fn path_and_query_of_every_target_form() {
        let cases: [(&str, &str, Option<&str>); 7] = [
            ("/a/b?x=1", "/a/b", Some("x=1")),
            ("/a", "/a", None),
            ("/a?", "/a", Some("")),
            ("http://h:80/a?x", "/a", Some("x")),
            ("http://h", "/", None),
            ("http://h?x", "", Some("x")),
            ("*", "*", None),
        ];
        for (target, path, query) in cases {
            let request = request(target);
            assert_eq!(request.path(), path.as_bytes(), "path of {target}");
            assert_eq!(request.query(), query.map(str::as_bytes), "query of {target}");
        }
    }

    #[test]
    fn headers_are_found_whatever_their_case() {
        let headers = Headers(vec![
            (Bytes::from_static(b"Accept"), Bytes::from_static(b"a")),
            (Bytes::from_static(b"ACCEPT"), Bytes::from_static(b"b")),
        ]);
        let all: Vec<_> = headers.all("accept").cloned().collect();
        assert_eq!(all, ["a", "b"]);
        assert!(!headers.contains("host"));
    }

    #[test]
    fn reasons_stand_at_their_own_position() {
        for (position, reason) in SkipReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, position);
        }
    }
}
