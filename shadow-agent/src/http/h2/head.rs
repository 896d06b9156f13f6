//! Heads of HTTP/2 messages: what the fields of a header block are together (RFC 9113, section 8).
//!
//! Knows no connection and no table.

use bytes::Bytes;
use http::{Method, Version};

use super::hpack::Field;
use crate::exchange::{Headers, LostReason, Request, Response, SkipReason};
use crate::http::{Fate, MAX_FIELDS, MAX_HEAD};

/// What a field counts beside its name and value (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Why a head cannot be used, which concerns its stream only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A field refers to what was never seen.
    Unknown,
    /// It violates RFC 9113, or goes beyond [`MAX_HEAD`] or [`MAX_FIELDS`].
    Malformed,
    /// It asks for a tunnel, or for another protocol.
    Tunnel,
}

impl From<Refusal> for Fate {
    fn from(refusal: Refusal) -> Fate {
        match refusal {
            Refusal::Unknown => Fate::Skipped(SkipReason::HeaderTable),
            Refusal::Malformed => Fate::Lost(LostReason::Malformed),
            Refusal::Tunnel => Fate::Skipped(SkipReason::Upgrade),
        }
    }
}

/// The fields of one header block.
#[derive(Debug, Default)]
pub(super) struct Fields {
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<Bytes>,
    headers: Vec<(Bytes, Bytes)>,
    /// The place of the first `cookie` field.
    cookie: Option<usize>,
    /// All cookies together, if there are several such fields.
    cookies: Vec<u8>,
    size: usize,
    unknown: bool,
    malformed: bool,
}

/// A message's head.
#[derive(Debug)]
pub(super) struct Head<T> {
    /// The message, without body and trailers.
    pub(super) message: T,
    /// `content-length`.
    pub(super) length: Option<u64>,
    /// Bytes kept for it.
    pub(super) size: usize,
}

impl Fields {
    /// Takes the next field.
    pub(super) fn take(&mut self, field: Field) {
        let Field::Known(name, value) = field else {
            self.unknown = true;
            return;
        };
        self.size = self.size.saturating_add(name.len() + value.len() + FIELD_OVERHEAD);
        if self.size > MAX_HEAD {
            self.malformed = true;
        }
        if self.malformed {
            self.headers = Vec::new();
            return;
        }
        let fine = is_value(&value)
            && match name.first() {
                Some(b':') => self.pseudo(&name, value),
                _ => self.regular(name, value),
            };
        self.malformed = !fine;
    }

    /// Fields in front of all others, each once, and none but those that are defined (RFC 9113, section 8.3).
    fn pseudo(&mut self, name: &[u8], value: Bytes) -> bool {
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            b":status" => &mut self.status,
            _ => return false,
        };
        place.replace(value).is_none() && self.headers.is_empty()
    }

    fn regular(&mut self, name: Bytes, value: Bytes) -> bool {
        let fits = match &name[..] {
            // RFC 9113, section 8.2.2.
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => false,
            b"te" => value.eq_ignore_ascii_case(b"trailers"),
            _ => is_name(&name),
        };
        if !fits {
            return false;
        }
        if &name[..] == b"cookie" {
            if let Some((_, first)) = self.cookie.and_then(|at| self.headers.get(at)) {
                // Cookies may be sent one by one (RFC 9113, section 8.2.3).
                if self.cookies.is_empty() {
                    self.cookies.extend_from_slice(first);
                }
                self.cookies.extend_from_slice(b"; ");
                self.cookies.extend_from_slice(&value);
                return true;
            }
            self.cookie = Some(self.headers.len());
        }
        self.headers.push((name, value));
        self.headers.len() <= MAX_FIELDS
    }

    /// Whether the fields can be used; completes them.
    fn judge(&mut self) -> Result<(), Refusal> {
        if let Some((_, value)) = self.cookie.and_then(|at| self.headers.get_mut(at))
            && !self.cookies.is_empty()
        {
            *value = std::mem::take(&mut self.cookies).into();
        }
        match self {
            Fields { malformed: true, .. } => Err(Refusal::Malformed),
            Fields { unknown: true, .. } => Err(Refusal::Unknown),
            _ => Ok(()),
        }
    }

    /// The head of a request (RFC 9113, section 8.3.1). The authority becomes the field `host`.
    pub(super) fn request(mut self) -> Result<Head<Request>, Refusal> {
        self.judge()?;
        let method = self.method.take().and_then(|method| Method::from_bytes(&method).ok());
        let method = method.ok_or(Refusal::Malformed)?;
        if self.status.is_some() {
            return Err(Refusal::Malformed);
        }
        if method == Method::CONNECT {
            return Err(Refusal::Tunnel);
        }
        let (Some(_), Some(target), None) = (self.scheme.take(), self.path.take(), &self.protocol) else {
            return Err(Refusal::Malformed);
        };
        let in_form = match &target[..] {
            b"*" => method == Method::OPTIONS,
            target => target.first() == Some(&b'/') && target.iter().all(|&byte| is_visible(byte)),
        };
        if !in_form {
            return Err(Refusal::Malformed);
        }
        let length = self.length()?;
        let authority = self.authority.take().filter(|authority| !authority.is_empty());
        let mut headers = Headers(self.headers);
        if let Some(authority) = authority
            && !headers.contains("host")
        {
            headers.0.insert(0, (Bytes::from_static(b"host"), authority));
        }
        let (version, body, trailers) = (Version::HTTP_2, Bytes::new(), Headers::default());
        let message = Request { method, target, version, headers, body, trailers };
        Ok(Head { message, length, size: self.size })
    }

    /// The head of a response (RFC 9113, section 8.3.2), which may be an interim one; that need not be known whole.
    pub(super) fn response(mut self) -> Result<Head<Response>, Refusal> {
        self.unknown &= !self.status.as_ref().is_some_and(|status| status.starts_with(b"1"));
        self.judge()?;
        let status = self.status.take().ok_or(Refusal::Malformed)?;
        let status = match &status[..] {
            [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
                status.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
            }
            _ => return Err(Refusal::Malformed),
        };
        if self.has_pseudo() {
            return Err(Refusal::Malformed);
        }
        let length = self.length()?;
        let (version, body, trailers) = (Version::HTTP_2, Bytes::new(), Headers::default());
        let message = Response { status, version, headers: Headers(self.headers), body, trailers };
        Ok(Head { message, length, size: self.size })
    }

    /// A trailer section (RFC 9113, section 8.1).
    pub(super) fn trailers(mut self) -> Result<Head<Headers>, Refusal> {
        self.judge()?;
        if self.has_pseudo() {
            return Err(Refusal::Malformed);
        }
        Ok(Head { message: Headers(self.headers), length: None, size: self.size })
    }

    /// Whether there is any field that only heads have.
    pub(super) fn has_pseudo(&self) -> bool {
        let fields = [&self.method, &self.scheme, &self.authority, &self.path, &self.protocol, &self.status];
        fields.iter().any(|field| field.is_some())
    }

    /// Repeated values must agree (RFC 9110, section 8.6).
    fn length(&self) -> Result<Option<u64>, Refusal> {
        let mut length = None;
        for (_, value) in self.headers.iter().filter(|(name, _)| &name[..] == b"content-length") {
            for part in value.split(|&byte| byte == b',') {
                let digits = part.trim_ascii();
                let number = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'));
                let number =
                    number.and_then(|digits| digits.parse::<u64>().ok()).ok_or(Refusal::Malformed)?;
                if *length.get_or_insert(number) != number {
                    return Err(Refusal::Malformed);
                }
            }
        }
        Ok(length)
    }
}

/// Whether these bytes may be a field's name (RFC 9113, section 8.2.1): a token in lower case.
fn is_name(name: &[u8]) -> bool {
    let fine =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(fine)
}

/// Whether these bytes may be a field's value (RFC 9113, section 8.2.1).
fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
}

/// Whether a byte may stand in a target, as in HTTP/1.
fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 0x7F
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            let name = Bytes::from_static(name.as_bytes());
            fields.take(Field::Known(name, Bytes::copy_from_slice(value.as_bytes())));
        }
        fields
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":path", "/a?b"), (":authority", "h:80")];

    fn request(more: &[(&'static str, &str)]) -> Result<Head<Request>, Refusal> {
        fields(&[&GET[..], more].concat()).request()
    }

    #[test]
    fn a_request_has_its_authority_as_host_and_its_cookies_together() {
        let more = [("accept", "x"), ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")];
        let head = request(&more).unwrap();
        assert_eq!((head.message.method.as_str(), &head.message.target[..]), ("GET", &b"/a?b"[..]));
        let expected = [("host", "h:80"), ("accept", "x"), ("cookie", "a=1; b=2; c=3"), ("x", "y")];
        let found: Vec<_> = head.message.headers.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        assert_eq!(found, expected.map(|(n, v)| (n.into(), v.into())));
        let empty = request(&[("cookie", ""), ("cookie", ""), ("cookie", "a=1")]).unwrap();
        assert_eq!(empty.message.headers.get("cookie").unwrap(), "; ; a=1");
        let trailers = fields(&[("cookie", "a=1"), ("cookie", "b=2")]).trailers().unwrap();
        assert_eq!(trailers.message.get("cookie").unwrap(), "a=1; b=2");
        let named = request(&[("host", "other")]).unwrap();
        assert_eq!(named.message.headers.len(), 1, "a host of its own stays where it is");
        assert_eq!(named.message.headers.get("host").unwrap(), "other");
    }

    #[test]
    fn heads_that_rfc_9113_forbids_are_refused() {
        let bad: [&[(&'static str, &str)]; 14] = [
            &[("Accept", "x")],
            &[("", "x")],
            &[("a b", "x")],
            &[("a", "x\r\ny")],
            &[("a", "\0")],
            &[("connection", "close")],
            &[("transfer-encoding", "chunked")],
            &[("te", "gzip")],
            &[(":method", "GET")],
            &[(":other", "x")],
            &[(":status", "200")],
            &[("a", "b"), (":authority", "late")],
            &[("content-length", "1"), ("content-length", "2")],
            &[("content-length", "+1")],
        ];
        for more in bad {
            assert_eq!(request(more).map(|head| head.message), Err(Refusal::Malformed), "{more:?}");
        }
        for fine in [("te", "trailers"), ("a", ""), ("content-length", "1, 1")] {
            assert!(request(&[fine]).is_ok(), "{fine:?}");
        }
        for (missing, _) in &GET[..3] {
            let lines: Vec<_> = GET.into_iter().filter(|(name, _)| name != missing).collect();
            let refusal = fields(&lines).request().map(|head| head.message);
            assert_eq!(refusal, Err(Refusal::Malformed), "without {missing}");
        }
        for (method, path, fine) in [
            ("OPTIONS", "*", true),
            ("GET", "*", false),
            ("GET", "", false),
            ("GET", "a", false),
            ("GET", "/a b", false),
            ("GET", "http://h/", false),
            ("G T", "/", false),
        ] {
            let lines = [(":method", method), (":scheme", "http"), (":path", path)];
            assert_eq!(fields(&lines).request().is_ok(), fine, "{method} {path}");
        }
    }

    #[test]
    fn tunnels_and_what_is_unknown_are_told_apart_from_what_is_malformed() {
        let connect = [(":method", "CONNECT"), (":authority", "h:1")];
        assert_eq!(fields(&connect).request().map(|head| head.message), Err(Refusal::Tunnel));
        let extended = [&connect[..], &GET[1..3], &[(":protocol", "websocket")]].concat();
        assert_eq!(fields(&extended).request().map(|head| head.message), Err(Refusal::Tunnel));
        assert_eq!(
            request(&[])
                .map(|_| ())
                .and(fields(&[&[(":protocol", "x")], &GET[..]].concat()).request().map(|_| ())),
            Err(Refusal::Malformed)
        );
        let mut unknown = fields(&GET);
        unknown.take(Field::Unknown);
        assert_eq!(unknown.request().map(|head| head.message), Err(Refusal::Unknown));
    }

    #[test]
    fn responses_have_a_status_and_nothing_of_a_request() {
        for (status, expected) in [
            ("200", Ok(200)),
            ("103", Ok(103)),
            ("099", Err(())),
            ("20", Err(())),
            ("2000", Err(())),
            ("2x0", Err(())),
        ] {
            let head = fields(&[(":status", status), ("a", "b")]).response();
            assert_eq!(head.map(|head| head.message.status).map_err(drop), expected, "{status}");
        }
        for (status, fine) in [("103", true), ("200", false)] {
            let mut head = fields(&[(":status", status)]);
            head.take(Field::Unknown);
            assert_eq!(head.response().is_ok(), fine, "{status} with what is unknown");
        }
        assert!(fields(&[("a", "b")]).response().is_err());
        assert!(fields(&[(":status", "200"), (":path", "/")]).response().is_err());
        assert!(fields(&[("a", "b")]).trailers().is_ok());
        assert!(fields(&[(":status", "200")]).trailers().is_err());
    }

    #[test]
    fn many_cookies_are_put_together_once() {
        let mut fields = fields(&GET);
        let (name, value) = (Bytes::from_static(b"cookie"), Bytes::from(vec![b'v'; 38]));
        for _ in 0..3 {
            fields.take(Field::Known(name.clone(), value.clone()));
        }
        let place = fields.headers[0].1.as_ptr();
        assert_eq!(place, value.as_ptr(), "not copied with each cookie");
        let whole = fields.request().unwrap().message.headers.get("cookie").unwrap().to_vec();
        assert_eq!(whole.len(), 3 * 38 + 4);
    }

    #[test]
    fn the_number_of_fields_and_their_size_are_bounded() {
        for (count, fits) in [(MAX_FIELDS, true), (MAX_FIELDS + 1, false)] {
            assert_eq!(request(&vec![("a", "b"); count]).is_ok(), fits, "{count} fields");
        }
        let taken = request(&[("a", "")]).unwrap().size;
        for (size, fits) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
            let value = "v".repeat(size - taken);
            assert_eq!(request(&[("a", &value)]).is_ok(), fits, "{size} bytes");
        }
    }
}
