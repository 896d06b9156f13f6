//! Who may ask what.
//!
//! - On loopback: anyone on this host, under a loopback name (`Host`), so that a page whose name was rebound to this
//!   address gets nothing. What shows values from bodies needs the token once one is configured.
//! - Off loopback: probes and metrics are open, everything else needs the bearer token (RFC 6750, section 2.1).
//! - Everywhere: a request that a page of another origin made (`Origin`) is refused.
//!
//! It decides; it answers nothing.

use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use sha2::{Digest, Sha256};

use super::AdminError;

/// The shortest token accepted, in characters.
pub(super) const TOKEN_MIN: usize = 16;
/// The longest token accepted, in characters.
pub(super) const TOKEN_MAX: usize = 1_024;

/// The digest of the bearer token; the token itself is not kept.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl Token {
    /// Reads the token from its file, without the white space around it.
    pub(super) fn read(path: &Path) -> Result<Token, AdminError> {
        let most = TOKEN_MAX as u64 + 2;
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
        read.map_err(|source: io::Error| AdminError::TokenFile { path: path.to_owned(), source })?;
        let token = bytes.trim_ascii();
        let usable = (TOKEN_MIN..=TOKEN_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if usable { Ok(Token::new(token)) } else { Err(AdminError::Token { path: path.to_owned() }) }
    }

    fn new(token: &[u8]) -> Token {
        Token(Sha256::digest(token).into())
    }

    /// Compares in constant time: whoever guesses controls neither digest, and every byte is looked at.
    fn matches(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        let difference = self.0.iter().zip(given).fold(0u8, |all, (ours, theirs)| all | (ours ^ theirs));
        std::hint::black_box(difference) == 0
    }
}

/// How much a path shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sensitivity {
    /// Probes and metrics.
    Open,
    /// Status and control.
    Normal,
    /// Values from bodies.
    Bodies,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `Host` is missing or no loopback name.
    Host,
    /// `Origin` is another origin.
    Origin,
    /// There is no token, or not the right one.
    Token,
}

/// The rules for one listener.
#[derive(Clone)]
pub(super) struct Access {
    loopback: bool,
    token: Option<Token>,
}

impl Access {
    pub(super) fn new(loopback: bool, token: Option<Token>) -> Access {
        Access { loopback, token }
    }

    /// Whether a request may be answered.
    pub(super) fn check(&self, asked: Sensitivity, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = authority(uri, headers);
        if self.loopback && !host.as_ref().is_some_and(is_loopback_name) {
            return Err(Refusal::Host);
        }
        if asked == Sensitivity::Open {
            return Ok(());
        }
        if !headers
            .get_all(header::ORIGIN)
            .iter()
            .all(|origin| is_same_origin(origin.as_bytes(), host.as_ref()))
        {
            return Err(Refusal::Origin);
        }
        match &self.token {
            Some(_) if !self.loopback || asked == Sensitivity::Bodies => {
                if self.has_token(headers) {
                    Ok(())
                } else {
                    Err(Refusal::Token)
                }
            }
            None if !self.loopback => Err(Refusal::Token),
            _ => Ok(()),
        }
    }
}

impl Access {
    /// Whether a request brings the token.
    pub(super) fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        self.token.as_ref().zip(given).is_some_and(|(token, given)| token.matches(given))
    }
}

/// What the request calls this server: an absolute-form target beats `Host` (RFC 9112, section 3.2.2).
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next()?;
    if hosts.next().is_some() {
        return None;
    }
    Authority::try_from(host.as_bytes()).ok()
}

fn is_loopback_name(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn is_same_origin(origin: &[u8], host: Option<&Authority>) -> bool {
    let origin = Uri::try_from(origin).ok();
    let origin = origin.as_ref().filter(|uri| uri.scheme_str() == Some("http")).and_then(Uri::authority);
    match (origin, host) {
        (Some(origin), Some(host)) => origin == host,
        _ => false,
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::Scratch;

    const SECRET: &str = "0123456789abcdef";

    fn check(access: &Access, asked: Sensitivity, fields: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        access.check(asked, &Uri::from_static("/x"), &headers)
    }

    fn access(loopback: bool, token: bool) -> Access {
        Access::new(loopback, token.then(|| Token::new(SECRET.as_bytes())))
    }

    #[test]
    fn loopback_goes_by_name() {
        let cases = [
            ("127.0.0.1:9465", Ok(())),
            ("localhost:9465", Ok(())),
            ("LocalHost", Ok(())),
            ("127.9.9.9", Ok(())),
            ("[::1]:80", Ok(())),
            ("[::ffff:127.0.0.1]", Ok(())),
            ("evil.example:9465", Err(Refusal::Host)),
            ("localhost.evil.example", Err(Refusal::Host)),
            ("10.0.0.1", Err(Refusal::Host)),
            ("not a host", Err(Refusal::Host)),
            ("", Err(Refusal::Host)),
        ];
        for asked in [Sensitivity::Open, Sensitivity::Normal] {
            for (host, expected) in cases {
                assert_eq!(check(&access(true, false), asked, &[("host", host)]), expected, "{host}");
            }
            assert_eq!(check(&access(true, false), asked, &[]), Err(Refusal::Host));
            let twice = [("host", "localhost"), ("host", "evil.example")];
            assert_eq!(check(&access(true, false), asked, &twice), Err(Refusal::Host));
        }
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "localhost".parse().unwrap());
        let evil = Uri::from_static("http://evil.example/x");
        assert_eq!(access(true, false).check(Sensitivity::Normal, &evil, &headers), Err(Refusal::Host));
    }

    #[test]
    fn another_origin_is_refused() {
        let cases = [
            ("http://127.0.0.1:9465", Ok(())),
            ("http://127.0.0.1:8080", Err(Refusal::Origin)),
            ("https://127.0.0.1:9465", Err(Refusal::Origin)),
            ("http://evil.example", Err(Refusal::Origin)),
            ("null", Err(Refusal::Origin)),
            ("", Err(Refusal::Origin)),
        ];
        for (origin, expected) in cases {
            let fields = [("host", "127.0.0.1:9465"), ("origin", origin)];
            assert_eq!(check(&access(true, false), Sensitivity::Normal, &fields), expected, "{origin}");
        }
    }

    #[test]
    fn off_loopback_all_but_probes_needs_the_token() {
        let right = format!("Bearer {SECRET}");
        let lower = format!("bearer {SECRET}");
        let longer = format!("Bearer {SECRET}0");
        let cases = [
            (Sensitivity::Open, "", Ok(())),
            (Sensitivity::Normal, "", Err(Refusal::Token)),
            (Sensitivity::Normal, "Bearer ", Err(Refusal::Token)),
            (Sensitivity::Normal, "Bearer 0123456789abcdeX", Err(Refusal::Token)),
            (Sensitivity::Normal, longer.as_str(), Err(Refusal::Token)),
            (Sensitivity::Normal, "Basic MDEyMw==", Err(Refusal::Token)),
            (Sensitivity::Normal, right.as_str(), Ok(())),
            (Sensitivity::Normal, lower.as_str(), Ok(())),
            (Sensitivity::Bodies, right.as_str(), Ok(())),
        ];
        for (asked, authorization, expected) in cases {
            let fields = [("host", "agent.example"), ("authorization", authorization)];
            assert_eq!(
                check(&access(false, true), asked, &fields),
                expected,
                "{asked:?} with {authorization:?}"
            );
        }
        assert_eq!(check(&access(false, false), Sensitivity::Normal, &[]), Err(Refusal::Token));
    }

    #[test]
    fn on_loopback_a_configured_token_guards_bodies_only() {
        let local = ("host", "localhost");
        let right = format!("Bearer {SECRET}");
        assert_eq!(check(&access(true, true), Sensitivity::Normal, &[local]), Ok(()));
        assert_eq!(check(&access(true, true), Sensitivity::Bodies, &[local]), Err(Refusal::Token));
        assert_eq!(
            check(&access(true, true), Sensitivity::Bodies, &[local, ("authorization", &right)]),
            Ok(())
        );
        assert_eq!(check(&access(true, false), Sensitivity::Bodies, &[local]), Ok(()));
    }

    #[test]
    fn token_files() {
        let scratch = Scratch::new("token");
        let path = scratch.path().join("token");
        let cases = [
            (format!("{SECRET}\n"), true),
            (format!("{}\r\n", "x".repeat(TOKEN_MAX)), true),
            ("x".repeat(TOKEN_MAX + 1), false),
            ("x".repeat(TOKEN_MIN), true),
            ("x".repeat(TOKEN_MIN - 1), false),
            ("\n".to_owned(), false),
            (format!("{SECRET}\n{SECRET}"), false),
            (format!("{SECRET}\u{e9}"), false),
        ];
        for (content, usable) in cases {
            std::fs::write(&path, &content).unwrap();
            assert_eq!(Token::read(&path).is_ok(), usable, "{content:?}");
        }
        let error = Token::read(&scratch.path().join("missing")).err().unwrap().to_string();
        assert!(error.contains("missing") && error.contains("cannot be read"), "{error}");
    }
}
