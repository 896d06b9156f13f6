//! Takes bodies in parts apart (RFC 2046, section 5.1; forms: RFC 7578), and puts them together again: boundaries, the heads
//! of parts and whatever is not masked stay byte by byte. What is in any doubt is not taken apart.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem;
use regex::bytes::Regex;

use crate::exchange::{Headers, SkipReason};
use crate::policy::target::percent_decode;

/// Parts of one body; one with more is not taken apart.
pub(super) const MAX_PARTS: usize = 1024;

/// The longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// A parameter of a head called name, and what it is (RFC 2231 has it with an asterisk).
#[expect(clippy::expect_used, reason = "a constant pattern; tests of this module compile it")]
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?i-u)(?:^|[;\s])name\*?[ \t]*=[ \t]*(?:"(?P<quoted>(?:\\[^\r\n]|[^"\\\r\n])*)|(?P<plain>[^;\r\n \t"]*))"#,
    )
    .expect("the pattern is valid")
});

/// A body in parts.
#[derive(Debug)]
pub(super) struct Multipart<'a> {
    whole: &'a [u8],
    parts: Vec<Part<'a>>,
}

/// One part.
pub(super) struct Part<'a> {
    /// Its header fields.
    pub head: &'a [u8],
    /// Its content.
    pub body: &'a [u8],
    /// What its head calls it.
    pub names: Vec<String>,
    /// Its media type in lower case; empty when it has none.
    pub media_type: String,
    /// Whether it is a file.
    pub is_file: bool,
    /// Whether its content is coded, or in parts again.
    pub is_encoded: bool,
    at: usize,
}

impl std::fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Part({} head bytes, {} body bytes)", self.head.len(), self.body.len())
    }
}

impl<'a> Multipart<'a> {
    /// The parts of a body that its head says is in parts; `None` when it does not, or the body is not exactly that.
    pub(super) fn parse(headers: &Headers, whole: &'a [u8]) -> Option<Multipart<'a>> {
        let delimiter = [b"--", boundary(headers)?.as_bytes()].concat();
        let mut rest = whole.strip_prefix(&delimiter[..])?;
        let mut parts = Vec::new();
        let delimiter = [b"\r\n", &delimiter[..]].concat();
        loop {
            if let Some(epilogue) = rest.strip_prefix(b"--") {
                let is_blank = epilogue.iter().all(u8::is_ascii_whitespace);
                return (is_blank && !parts.is_empty()).then_some(Multipart { whole, parts });
            }
            let line = memmem::find(rest, b"\r\n")?;
            if parts.len() == MAX_PARTS || !rest.get(..line)?.iter().all(|byte| b" \t".contains(byte)) {
                return None;
            }
            let end = memmem::find(rest.get(line..)?, &delimiter)? + line;
            let at = whole.len() - rest.len() + line + 2;
            // A part without a head begins with an empty line.
            let part = match rest.get(line + 2..end) {
                Some(part) => part,
                None => rest.get(line..end).filter(|part| part.is_empty())?,
            };
            // What looks like a boundary in another way of ending lines may be one to somebody.
            if memmem::find(part, delimiter.get(2..)?).is_some() {
                return None;
            }
            parts.push(Part::parse(part, at)?);
            rest = rest.get(end + delimiter.len()..)?;
        }
    }

    /// The parts.
    pub(super) fn parts(&self) -> &[Part<'a>] {
        &self.parts
    }

    /// The whole with the content of every part replaced that `mask` gives another content for; `None` when that is none.
    pub(super) fn masked(
        &self,
        mask: &dyn Fn(&Part<'_>) -> Result<Option<Bytes>, SkipReason>,
    ) -> Result<Option<Bytes>, SkipReason> {
        let mut masked = Vec::new();
        let mut done = 0;
        for part in &self.parts {
            let Some(body) = mask(part)? else { continue };
            // A length of its own would be wrong, and who states one may go by it.
            if memmem::find(&part.head.to_ascii_lowercase(), b"content-length").is_some() {
                return Err(SkipReason::Unmaskable);
            }
            masked.extend_from_slice(self.whole.get(done..part.at).unwrap_or_default());
            masked.extend_from_slice(&body);
            done = part.at + part.body.len();
        }
        if done == 0 {
            return Ok(None);
        }
        masked.extend_from_slice(self.whole.get(done..).unwrap_or_default());
        Ok(Some(masked.into()))
    }
}

impl<'a> Part<'a> {
    fn parse(part: &'a [u8], at: usize) -> Option<Part<'a>> {
        let (head, body) = match part.strip_prefix(b"\r\n") {
            Some(body) => (&b""[..], body),
            None => {
                let end = memmem::find(part, b"\r\n\r\n")?;
                (part.get(..end)?, part.get(end + 4..)?)
            }
        };
        // A bare line feed ends lines for some.
        let lines = memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head.get(at - 1) == Some(&b'\r'));
        if !lines {
            return None;
        }
        let unfolded = String::from_utf8_lossy(head).replace("\r\n ", "  ").replace("\r\n\t", "  ");
        let field = |name: &str| {
            unfolded.lines().find_map(|line| {
                let (field, value) = line.split_once(':')?;
                field.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
            })
        };
        let disposition = field("content-disposition").unwrap_or_default();
        let media_type = field("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let coding = field("content-transfer-encoding").unwrap_or_default();
        let is_plain = matches!(coding.as_str(), "" | "7bit" | "8bit" | "binary");
        Some(Part {
            head,
            body,
            names: names(head),
            is_file: disposition.contains("filename"),
            is_encoded: !is_plain || media_type.starts_with("multipart/"),
            media_type,
            at: at + part.len() - body.len(),
        })
    }
}

/// The boundary that the head of a message states, as it is written there.
fn boundary(headers: &Headers) -> Option<String> {
    let value = std::str::from_utf8(headers.get("content-type")?).ok()?;
    let (essence, parameters) = value.split_once(';')?;
    if !essence.trim().to_ascii_lowercase().starts_with("multipart/") {
        return None;
    }
    let mut found = parameters.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    });
    let boundary = found.next()?;
    // Who says two means either.
    let fits = !boundary.is_empty() && boundary.len() <= MAX_BOUNDARY && found.next().is_none();
    fits.then_some(boundary)
}

/// What a head calls its part: a form has one name (RFC 7578, section 4.2), and whoever writes two means either.
fn names(head: &[u8]) -> Vec<String> {
    let all = NAME.captures_iter(head).filter_map(|found| {
        let name = found.name("quoted").or_else(|| found.name("plain"))?.as_bytes();
        let name: Vec<u8> = name.iter().copied().filter(|&byte| byte != b'\\').collect();
        // Behind the charset and the language, if it has those.
        let name = String::from_utf8_lossy(&percent_decode(&name)).into_owned();
        name.trim_end_matches('\'').rsplit('\'').next().map(str::to_owned)
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> Headers {
        Headers(vec![(Bytes::from_static(b"Content-Type"), Bytes::from(kind.to_owned()))])
    }

    /// The names and contents of the parts of a form whose boundary is b.
    fn parts(body: &str) -> Option<Vec<(String, String)>> {
        let headers = headers("multipart/form-data; boundary=b");
        let parsed = Multipart::parse(&headers, body.as_bytes())?;
        let text = |part: &Part<'_>| (part.names.join(","), String::from_utf8_lossy(part.body).into_owned());
        Some(parsed.parts().iter().map(text).collect())
    }

    fn part(head: &str, body: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
    }

    #[test]
    fn parts_are_found_by_their_boundary() {
        let two = part("name=\"a\"", "1\r\n2") + &part("filename=\"f\"; name=c\r\nX: y", "");
        let expected = vec![("a".to_owned(), "1\r\n2".to_owned()), ("c".to_owned(), String::new())];
        for end in ["--b--", "--b--\r\n", "--b--\r\n\r\n"] {
            assert_eq!(parts(&format!("{two}{end}")), Some(expected.clone()));
        }
        let named = [
            ("name*=utf-8'en'a%20b", "a b"),
            ("NAME = a", "a"),
            ("name=\"a\\\"b\"", "a\"b"),
            ("name=a; name=b", "a,b"),
        ];
        for (head, name) in named {
            let body = part(head, "x") + "--b--";
            assert_eq!(parts(&body), Some(vec![(name.to_owned(), "x".to_owned())]), "{head}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_not_taken_apart() {
        let one = part("name=a", "x");
        for body in [
            "",
            "--b--",
            &one,
            &format!("preamble\r\n{one}--b--"),
            &format!("{one}--b--epilogue"),
            &format!("{}--b--", one.replace("\r\n", "\n")),
            &part("name=a", "x\n--b\ny"),
            "--b\r\nno end of head\r\n--b--",
            &format!("{}--b--", one.replace("form-data", "form-data\n")),
            "--bc\r\n\r\nx\r\n--b--",
        ] {
            assert_eq!(parts(body), None, "{body}");
        }
        let body = one + "--b--";
        for (kind, taken) in [
            ("multipart/form-data; boundary=\"b\"", true),
            ("Multipart/Mixed; x=y; BOUNDARY=b", true),
            ("multipart/form-data", false),
            ("multipart/form-data; boundary=b; boundary=c", false),
            ("text/plain; boundary=b", false),
        ] {
            assert_eq!(Multipart::parse(&headers(kind), body.as_bytes()).is_some(), taken, "{kind}");
        }
    }

    #[test]
    fn parts_and_boundaries_are_bounded() {
        for (count, taken) in [(MAX_PARTS, true), (MAX_PARTS + 1, false)] {
            assert_eq!(parts(&(part("name=a", "x").repeat(count) + "--b--")).is_some(), taken);
        }
        for (length, taken) in [(MAX_BOUNDARY, true), (MAX_BOUNDARY + 1, false)] {
            let boundary = "b".repeat(length);
            let body = format!("--{boundary}\r\n\r\nx\r\n--{boundary}--");
            let headers = headers(&format!("multipart/form-data; boundary={boundary}"));
            assert_eq!(Multipart::parse(&headers, body.as_bytes()).is_some(), taken);
        }
    }

    #[test]
    fn what_is_not_masked_stays_byte_by_byte() {
        let body = part("name=a", "1") + &part("name=b\r\nX: y", "2") + &part("name=a", "") + "--b--\r\n";
        let headers = headers("multipart/form-data; boundary=b");
        let parsed = Multipart::parse(&headers, body.as_bytes()).unwrap();
        let mask = |part: &Part<'_>| Ok((part.names == ["a"]).then(|| Bytes::from_static(b"XX")));
        let expected =
            part("name=a", "XX") + &part("name=b\r\nX: y", "2") + &part("name=a", "XX") + "--b--\r\n";
        assert_eq!(parsed.masked(&mask).unwrap().unwrap(), expected);
        assert_eq!(parsed.masked(&|_| Ok(None)), Ok(None));
        let stated = part("name=a\r\nContent-Length: 1", "1") + "--b--";
        let parsed = Multipart::parse(&headers, stated.as_bytes()).unwrap();
        assert_eq!(parsed.masked(&mask), Err(SkipReason::Unmaskable));
    }
}
