//! The nouns that cross stages: exchanges, answers, and the reasons for which one is not used.
//!
//! Plain data. Nothing here parses, decides or does I/O.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Version};

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

/// Declares an enum of reasons with a stable snake-case name each, as used in metric labels and reports.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of declaration; its position is `reason as usize`.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The name in labels and reports.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why an exchange is deliberately not replayed.
    SkipReason {
        /// The method is not selected.
        Method = "method",
        /// A selection rule, built-in or configured, skips the path.
        Rule = "rule",
        /// Sampled out in userspace by a rule's share.
        Sampled = "sampled",
        /// The request carries credentials and the operator has not decided what to do with them.
        Credentials = "credentials",
        /// The request is a replayed one, or was caused by one.
        Marked = "marked",
        /// The kill switch is off.
        Disabled = "disabled",
        /// Production answered 304: there is nothing to compare.
        NotModified = "not_modified",
        /// The response is an event stream.
        Streaming = "streaming",
        /// A body is larger than `limits.body`.
        BodyTooLarge = "body_too_large",
        /// The connection is TLS.
        Tls = "tls",
        /// A header field of HTTP/2 refers to what was sent before capture began, or in a gap.
        HeaderTable = "header_table",
        /// The connection changed protocol (101) or became a tunnel (CONNECT).
        Upgrade = "upgrade",
        /// The connection is not HTTP.
        NotHttp = "not_http",
        /// Masking for the shadow could not be applied to the body (fail closed).
        Unmaskable = "unmaskable",
        /// Its connection is outside of the share that the ramp replays at present.
        Ramp = "ramp",
        /// Its request is not sent; it is kept in a file instead.
        Recorded = "recorded",
        /// It was to be kept in a file, and could not be written.
        NotRecorded = "not_recorded",
        /// A masking rule with the action `drop-exchange` found something.
        DropExchange = "drop_exchange",
        /// The self-check found something that masking should have hidden (fail closed).
        MaskFailed = "mask_failed",
    }
}

reasons! {
    /// Why an exchange that should have been whole is not.
    LostReason {
        /// Bytes of the stream are missing.
        Gap = "gap",
        /// The connection ended before the response did.
        Truncated = "truncated",
        /// The connection was reset before the response ended.
        Reset = "reset",
        /// The flow was evicted: table full, buffers full, or idle for too long.
        Evicted = "evicted",
        /// No response within `limits.exchange_timeout`.
        Timeout = "timeout",
        /// The bytes violate the protocol.
        Malformed = "malformed",
        /// A response without the request it belongs to.
        Unpaired = "unpaired",
        /// The asynchronous side did not keep up.
        Backlog = "backlog",
        /// The agent stopped while the exchange was under way.
        Shutdown = "shutdown",
        /// Sampling was lowered while the exchange was under way, and left its flow out.
        SampledOut = "sampled_out",
        /// The byte budget left its flow out while the exchange was under way.
        Shed = "shed",
    }
}

reasons! {
    /// Why a request was not sent to a target at all.
    DropReason {
        /// The target's queue is full.
        Queue = "queue",
        /// The target's rate limit is used up.
        Rate = "rate",
        /// The target's circuit breaker is open.
        Breaker = "breaker",
        /// No slot under the concurrency limit became free in time.
        Concurrency = "concurrency",
        /// Answers that wait for those of another target fill the memory that they may take.
        Memory = "memory",
        /// The agent's own host had no connection for it: no file descriptor or port, or no room to register it.
        Socket = "socket",
        /// The kill switch was thrown before sending.
        Disabled = "disabled",
        /// The agent stopped before sending.
        Shutdown = "shutdown",
        /// A guard paused the target.
        Paused = "paused",
        /// It is a dry run, and the target does not declare that it understands what that is.
        DryRun = "dry_run",
        /// Its turn in its session did not come in time, or too many of the session waited already.
        Order = "order",
        /// It carries a value that production issued, and the target has issued none in its place.
        Token = "token",
    }
}

reasons! {
    /// Why a request that was sent got no usable answer.
    FailReason {
        /// No connection could be made.
        Connect = "connect",
        /// No complete answer within the target's timeout.
        Timeout = "timeout",
        /// The connection was closed or reset before the answer ended.
        Closed = "closed",
        /// The answer is not valid HTTP.
        Malformed = "malformed",
        /// The answer's body is larger than `limits.body`.
        BodyTooLarge = "body_too_large",
        /// The request cannot be expressed to the shadow.
        Request = "request",
        /// The agent stopped before the answer ended.
        Shutdown = "shutdown",
        /// The agent itself stood still meanwhile, so that nobody knows what the target would have done.
        Stalled = "stalled",
        /// There is no TLS with the target: an invalid certificate, an alert, or no protocol in common.
        Tls = "tls",
    }
}

reasons! {
    /// Why an answer cannot be compared.
    UncomparableReason {
        /// The request was altered by masking and there is no baseline to compare with.
        MaskedRequest = "masked_request",
        /// Production's response was masked when it was recorded, and the answer cannot be masked like it.
        MaskedResponse = "masked_response",
        /// A body cannot be decoded: broken or unknown content-encoding.
        Encoding = "encoding",
        /// A decoded body is larger than the cap, or made of more gRPC messages than are compared.
        TooLarge = "too_large",
        /// A gRPC body is not a sequence of whole messages.
        Framing = "framing",
        /// The baseline did not answer, so a difference cannot be told from noise.
        NoBaseline = "no_baseline",
    }
}

pub(crate) use reasons;

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
