//! Resolves `replay`.

use std::time::Duration;

use http::{HeaderValue, Uri};

use super::super::file::{self, Text};
use super::super::overlay::Overrides;
use super::super::{ConfigError, Credentials, Problem, Replay, Target, units};
use super::rules::header_name;
use super::{at_most, count, list, parse, read, session, target, within, wrong};

const MAX_TARGETS: usize = 8;
/// Every target and the baseline can be paused by a guard.
const _: () = assert!(MAX_TARGETS < crate::control::TARGETS);
pub(super) const MAX_HEADERS: usize = 64;
const MAX_NAME: usize = 63;
const MAX_CONCURRENCY: u64 = 4096;
const MAX_RATE: f64 = 1e6;
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);

/// Headers that replay writes: framing (RFC 9112, section 6), the connection, and the marks.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-shadow-exchange",
    "x-shadow-request",
];

pub(super) fn replay(raw: &file::Replay, overrides: &Overrides) -> Result<Replay, ConfigError> {
    let targets = raw.targets.as_deref().unwrap_or_default();
    at_most("replay.targets", targets.first().map(|target| target.url.source), targets.len(), MAX_TARGETS)?;
    let resolved: Result<Vec<_>, _> = targets
        .iter()
        .enumerate()
        .map(|(index, one)| one_target(&format!("replay.targets[{index}]"), one, raw, overrides))
        .collect();
    let baseline = raw.baseline.as_ref().map(|one| one_target("replay.baseline", one, raw, overrides));
    Ok(Replay {
        credentials: read("replay.credentials", raw.credentials.as_ref(), Credentials::Skip, credentials)?,
        targets: resolved?,
        baseline: baseline.transpose()?,
        dry_run: dry_run(&raw.dry_run, Replay::default().dry_run)?,
        order: session::order(raw)?,
        tokens: session::tokens(raw.tokens.as_deref())?,
    })
}

fn dry_run(raw: &file::DryRun, default: (String, String)) -> Result<(String, String), ConfigError> {
    let value = |text: &str| match HeaderValue::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Problem::HeaderValue),
    };
    Ok((
        read("replay.dry_run.header", raw.header.as_ref(), default.0, own_header)?,
        read("replay.dry_run.value", raw.value.as_ref(), default.1, value)?,
    ))
}

fn credentials(text: &str) -> Result<Credentials, Problem> {
    let possible = "skip, forward, strip or replace";
    match text {
        "skip" => Ok(Credentials::Skip),
        "forward" => Ok(Credentials::Forward),
        "strip" => Ok(Credentials::Strip),
        "replace" => Ok(Credentials::Replace),
        _ => Err(Problem::Choice { value: text.to_owned(), possible }),
    }
}

fn one_target(
    key: &str,
    raw: &file::Target,
    section: &file::Replay,
    overrides: &Overrides,
) -> Result<Target, ConfigError> {
    let default = Target::default();
    for (part, text, remedy) in [
        ("name", &raw.name, "give the target a name for reports, such as candidate"),
        ("url", &raw.url, "give the target a URL such as http://10.0.0.9:8080"),
    ] {
        if text.text.is_empty() {
            return Err(wrong(format!("{key}.{part}"), text.source, Problem::Required(remedy)));
        }
    }
    let url = parse(&format!("{key}.url"), &raw.url, url)?;
    Ok(Target {
        name: parse(&format!("{key}.name"), &raw.name, name)?,
        tls: target::tls(key, &raw.tls, &raw.url, &url)?,
        http: read(&format!("{key}.http"), raw.http.as_ref(), default.http, target::http)?,
        host: read(&format!("{key}.host"), raw.host.as_ref(), default.host, target::host)?,
        dns_refresh: {
            let (key, text) = nearest(key, "dns_refresh", &None, &raw.dns_refresh, &section.dns_refresh);
            read(&key, text, default.dns_refresh, target::dns_refresh)?
        },
        breaker: target::breaker(&format!("{key}.breaker"), &raw.breaker)?,
        idempotency_header: {
            let layers = (&raw.idempotency_header, &section.idempotency_header);
            let (key, text) = nearest(key, "idempotency_header", &None, layers.0, layers.1);
            read(&key, text, default.idempotency_header, |text| match text {
                "off" => Ok(None),
                _ => own_header(text).map(Some),
            })?
        },
        credentials: target::credentials(&format!("{key}.credentials"), &raw.credentials)?,
        url,
        isolated: {
            let (key, text) = nearest(key, "isolated", &overrides.isolated, &raw.isolated, &None);
            read(&key, text, default.isolated, units::boolean)?
        },
        dry_run: read(&format!("{key}.dry_run"), raw.dry_run.as_ref(), default.dry_run, units::boolean)?,
        rate: {
            let (key, text) = nearest(key, "rate", &overrides.rate, &raw.rate, &section.rate);
            read(&key, text, default.rate, rate)?
        },
        concurrency: {
            let layers = (&overrides.concurrency, &raw.concurrency, &section.concurrency);
            let (key, text) = nearest(key, "concurrency", layers.0, layers.1, layers.2);
            read(&key, text, default.concurrency, count(1..=MAX_CONCURRENCY))?
        },
        timeout: {
            let (key, text) = nearest(key, "timeout", &None, &raw.timeout, &section.timeout);
            read(&key, text, default.timeout, |text| {
                within(text, units::duration(text)?, TIMEOUT, |time| units::write_duration(*time))
            })?
        },
        set_headers: set_headers(&format!("{key}.headers.set"), &raw.headers)?,
        remove_headers: list(
            &format!("{key}.headers.remove"),
            raw.headers.remove.as_deref().unwrap_or_default(),
            MAX_HEADERS,
            own_header,
        )?,
    })
}

/// The value that counts for a target: given on the way for all, of the target itself, of the section; and its key.
fn nearest<'a>(
    key: &str,
    name: &str,
    given: &'a Option<Text>,
    own: &'a Option<Text>,
    section: &'a Option<Text>,
) -> (String, Option<&'a Text>) {
    match (given, own) {
        (Some(text), _) => (format!("replay.{name}"), Some(text)),
        (None, Some(text)) => (format!("{key}.{name}"), Some(text)),
        (None, None) => (format!("replay.{name}"), section.as_ref()),
    }
}

fn name(text: &str) -> Result<String, Problem> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    match text.len() <= MAX_NAME && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(Problem::TargetName(text.to_owned())),
    }
}

pub(super) fn rate(text: &str) -> Result<Option<f64>, Problem> {
    let rate = units::rate(text)?;
    if let Some(rate) = rate {
        within(text, rate, 0.001..=MAX_RATE, |rate| units::write_rate(Some(*rate)))?;
    }
    Ok(rate)
}

/// An `http` or `https` URL (RFC 3986) with a host and perhaps a port and a path prefix.
pub(super) fn url(text: &str) -> Result<Uri, Problem> {
    if text.contains('@') {
        return Err(Problem::UrlUser);
    }
    if text.contains(['?', '#']) {
        return Err(Problem::UrlQuery(text.to_owned()));
    }
    let refused = || Problem::Url(text.to_owned());
    let uri: Uri = text.parse().map_err(|_| refused())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refused());
    }
    let authority = uri.authority().ok_or_else(refused)?;
    // `http://host:` and `http://host:99999` parse, without a port.
    let port_is_lost =
        !authority.as_str().ends_with(']') && authority.as_str().contains(':') && uri.port_u16().is_none();
    if authority.host().is_empty() || port_is_lost || uri.port_u16() == Some(0) {
        return Err(refused());
    }
    Ok(uri)
}

fn set_headers(key: &str, raw: &file::Headers) -> Result<Vec<(String, String)>, ConfigError> {
    at_most(key, raw.set.values().next().map(|text| text.source), raw.set.len(), MAX_HEADERS)?;
    let set = raw.set.iter().map(|(name, value)| {
        let key = format!("{key}.{name}");
        let name = own_header(name).map_err(|problem| wrong(&*key, value.source, problem))?;
        HeaderValue::from_str(&value.text)
            .map_err(|_| wrong(&*key, value.source, Problem::HeaderValue))
            .map(|_| (name, value.text.clone()))
    });
    set.collect()
}

pub(super) fn own_header(text: &str) -> Result<String, Problem> {
    let name = header_name(text)?;
    match RESERVED.contains(&name.as_str()) {
        true => Err(Problem::HeaderReserved(name)),
        false => Ok(name),
    }
}
