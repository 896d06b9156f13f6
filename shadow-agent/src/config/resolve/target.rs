//! Resolves what a target says of TLS, protocol, host, breaker and credentials. Reads no file.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;

use super::super::file::{self, Text};
use super::super::{
    Breaker, ConfigError, HostHeader, Http, OwnCredentials, Problem, Secret, Share, Source, Tls, units,
};
use super::replay::{MAX_HEADERS, own_header};
use super::{at_most, parse, read, within, wrong};
use crate::replay::is_server_name;

const REFRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const LATENCY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
const FAILURES: RangeInclusive<Share> = Share(0.01)..=Share::ALL;
const MAX_PARAMETER: usize = 256;

/// `tls` of a target with this URL.
pub(super) fn tls(key: &str, raw: &file::Tls, text: &Text, url: &Uri) -> Result<Tls, ConfigError> {
    let key = format!("{key}.tls");
    let given = [&raw.ca, &raw.cert, &raw.key, &raw.server_name, &raw.verify].into_iter().flatten().next();
    if let Some(given) = given.filter(|_| url.scheme_str() != Some("https")) {
        return Err(wrong(key, given.source, Problem::TlsUnused(text.text.clone())));
    }
    if let (Some(one), None) | (None, Some(one)) = (&raw.cert, &raw.key) {
        return Err(wrong(key, one.source, Problem::TlsPair));
    }
    let path = |name: &str, text: &Option<Text>| {
        read(&format!("{key}.{name}"), text.as_ref(), None, |text| Ok(Some(PathBuf::from(text))))
    };
    Ok(Tls {
        ca: path("ca", &raw.ca)?,
        cert: path("cert", &raw.cert)?,
        key: path("key", &raw.key)?,
        server_name: read(&format!("{key}.server_name"), raw.server_name.as_ref(), None, |text| {
            match is_server_name(text) {
                true => Ok(Some(text.to_owned())),
                false => Err(Problem::ServerName(text.to_owned())),
            }
        })?,
        verify: read(&format!("{key}.verify"), raw.verify.as_ref(), true, units::boolean)?,
    })
}

pub(super) fn http(text: &str) -> Result<Http, Problem> {
    match text {
        "auto" => Ok(Http::Auto),
        "1.1" => Ok(Http::One),
        "2" => Ok(Http::Two),
        _ => Err(Problem::Choice { value: text.to_owned(), possible: "auto, 1.1 or 2" }),
    }
}

pub(super) fn host(text: &str) -> Result<HostHeader, Problem> {
    match text {
        "preserve" => Ok(HostHeader::Preserve),
        "target" => Ok(HostHeader::Target),
        _ => match text.parse::<Authority>() {
            Ok(host) if !host.as_str().contains('@') && !host.host().is_empty() => {
                Ok(HostHeader::Name(text.to_owned()))
            }
            _ => Err(Problem::Host(text.to_owned())),
        },
    }
}

pub(super) fn dns_refresh(text: &str) -> Result<Duration, Problem> {
    within(text, units::duration(text)?, REFRESH, |time| units::write_duration(*time))
}

pub(super) fn breaker(key: &str, raw: &file::Breaker) -> Result<Option<Breaker>, ConfigError> {
    let default = Breaker::default();
    let raw = match raw {
        file::Breaker::Keys(keys) => keys,
        file::Breaker::Word(word) if word.text == "off" => return Ok(None),
        file::Breaker::Word(word) => {
            let possible = "off, or keys such as { failures: 50%, pause: 2s }";
            return Err(wrong(key, word.source, Problem::Choice { value: word.text.clone(), possible }));
        }
    };
    Ok(Some(Breaker {
        failures: read(&format!("{key}.failures"), raw.failures.as_ref(), default.failures, |text| {
            within(text, units::share(text)?, FAILURES, |share| units::write_share(*share))
        })?,
        latency: read(&format!("{key}.latency"), raw.latency.as_ref(), default.latency, |text| match text {
            "off" => Ok(None),
            _ => within(text, units::duration(text)?, LATENCY, |time| units::write_duration(*time)).map(Some),
        })?,
        pause: read(&format!("{key}.pause"), raw.pause.as_ref(), default.pause, |text| {
            within(text, units::duration(text)?, PAUSE, |time| units::write_duration(*time))
        })?,
    }))
}

pub(super) fn credentials(key: &str, raw: &file::Credentials) -> Result<OwnCredentials, ConfigError> {
    Ok(OwnCredentials {
        headers: secrets(&format!("{key}.headers"), &raw.headers, own_header)?,
        query: secrets(&format!("{key}.query"), &raw.query, parameter)?,
    })
}

fn secrets(
    key: &str,
    raw: &BTreeMap<String, file::Secret>,
    name: impl Fn(&str) -> Result<String, Problem>,
) -> Result<Vec<(String, Secret)>, ConfigError> {
    let source = |secret: &file::Secret| {
        secret.file.as_ref().or(secret.env.as_ref()).map_or(Source::Missing, |text| text.source)
    };
    at_most(key, raw.values().next().map(source), raw.len(), MAX_HEADERS)?;
    let all = raw.iter().map(|(named, secret)| {
        let key = format!("{key}.{named}");
        let named = name(named).map_err(|problem| wrong(&*key, source(secret), problem))?;
        let secret = match (&secret.file, &secret.env) {
            (Some(file), None) => {
                parse(&format!("{key}.file"), file, |text| Ok(Secret::File(PathBuf::from(text))))?
            }
            (None, Some(env)) => parse(&format!("{key}.env"), env, |text| Ok(Secret::Env(text.to_owned())))?,
            _ => return Err(wrong(key, source(secret), Problem::SecretSource)),
        };
        Ok((named, secret))
    });
    all.collect()
}

/// The name of a query parameter that stands for itself.
fn parameter(text: &str) -> Result<String, Problem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~[]".contains(&b);
    match (1..=MAX_PARAMETER).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(Problem::ParameterName(text.to_owned())),
    }
}
