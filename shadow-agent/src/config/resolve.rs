//! Turns text into values, one section of the configuration after the other. Looks at one value at a time; what
//! several values mean together is the business of `check`.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::file::{NotYet, Raw, Text};
use super::overlay::Overrides;
use super::{
    Admin, Audit, AuditPlace, Config, ConfigError, Limits, Place, Problem, Share, Source, TraceContext,
    Traces, Verdict, units,
};

mod capture;
mod descriptors;
mod guards;
pub(super) mod mask;
mod replay;
mod rules;
mod select;
mod session;
mod target;

pub(super) use select::source as rule_source;

/// A body larger than this is not mirrored by any agent that shares a host with production.
const MAX_BODY: u64 = 1 << 30;
const MAX_FLOWS: u64 = 4 << 20;
const MAX_BUFFER: u64 = 64 << 30;
const EXCHANGE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// One percent of a core is less than an agent without traffic may need for an instant.
const CPU: RangeInclusive<Share> = Share(0.01)..=Share(64.0);
/// The least holds a few entries; the most is more than anyone reads.
const AUDIT_SIZE: RangeInclusive<u64> = 4 << 10..=1 << 30;
const AUDIT_KEEP: RangeInclusive<u64> = 1..=100;
const RATIO: RangeInclusive<f64> = 0.01..=1000.0;
/// Certainty cannot be had, and below one half a bound says nothing.
const CONFIDENCE: RangeInclusive<Share> = Share(0.5)..=Share(0.9999);

/// The configuration that `raw` says, every value within its own bounds.
pub(super) fn resolve(raw: &Raw, overrides: &Overrides) -> Result<Config, ConfigError> {
    not_yet("metrics", raw.metrics.as_ref())?;
    not_yet("store", raw.store.as_ref())?;
    let default = Config::default();
    Ok(Config {
        enabled: read("enabled", raw.enabled.as_ref(), default.enabled, units::boolean)?,
        capture: capture::capture(&raw.capture)?,
        limits: limits(&raw.limits, default.limits)?,
        select: select::select(&raw.select, default.select)?,
        mask: mask::mask(&raw.mask, default.mask)?,
        replay: replay::replay(&raw.replay, overrides)?,
        compare: rules::compare(&raw.compare, default.compare)?,
        verdict: verdict(&raw.verdict, default.verdict)?,
        admin: admin(&raw.admin, default.admin)?,
        traces: traces(&raw.traces)?,
        audit: audit(&raw.audit, default.audit)?,
        portion: guards::portion(&raw.replay)?,
        guards: guards::guards(&raw.guards, default.guards, &raw.replay)?,
    })
}

/// An error about the value of `key`.
pub(super) fn wrong(key: impl Into<String>, source: Source, problem: Problem) -> ConfigError {
    ConfigError::Value { place: Box::new(Place { key: key.into(), source, file: None }), problem }
}

fn parse<T>(
    key: &str,
    text: &Text,
    parse: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<T, ConfigError> {
    let value = if text.text.is_empty() { Err(Problem::Empty) } else { parse(&text.text) };
    value.map_err(|problem| wrong(key, text.source, problem))
}

fn read<T>(
    key: &str,
    text: Option<&Text>,
    default: T,
    how: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<T, ConfigError> {
    text.map_or(Ok(default), |text| parse(key, text, how))
}

/// The entries of a list; `key` is the list's, and an error names the entry by its index.
fn list<T>(
    key: &str,
    texts: &[Text],
    most: usize,
    how: impl Fn(&str) -> Result<T, Problem>,
) -> Result<Vec<T>, ConfigError> {
    at_most(key, texts.first().map(|text| text.source), texts.len(), most)?;
    texts.iter().enumerate().map(|(index, text)| parse(&format!("{key}[{index}]"), text, &how)).collect()
}

fn at_most(key: &str, source: Option<Source>, count: usize, most: usize) -> Result<(), ConfigError> {
    match count > most {
        true => Err(wrong(key, source.unwrap_or_default(), Problem::TooMany { count, most })),
        false => Ok(()),
    }
}

fn not_yet(key: &str, found: Option<&NotYet>) -> Result<(), ConfigError> {
    found.map_or(Ok(()), |found| Err(wrong(key, found.0, Problem::Unsupported)))
}

fn within<T: PartialOrd>(
    text: &str,
    value: T,
    bounds: RangeInclusive<T>,
    write: impl Fn(&T) -> String,
) -> Result<T, Problem> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (write(bounds.start()), write(bounds.end()));
    Err(Problem::Bounds { value: text.to_owned(), least, most })
}

fn show(value: &impl Display) -> String {
    value.to_string()
}

fn count(bounds: RangeInclusive<u64>) -> impl Fn(&str) -> Result<usize, Problem> {
    move |text| {
        within(text, units::number(text)?, bounds.clone(), show)
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    }
}

fn size(bounds: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, Problem> {
    move |text| within(text, units::size(text)?, bounds.clone(), |bytes| units::write_size(*bytes))
}

fn buffer(bounds: RangeInclusive<u64>) -> impl Fn(&str) -> Result<usize, Problem> {
    let size = size(bounds);
    move |text| size(text).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn limits(raw: &super::file::Limits, default: Limits) -> Result<Limits, ConfigError> {
    Ok(Limits {
        flows: read("limits.flows", raw.flows.as_ref(), default.flows, count(1..=MAX_FLOWS))?,
        flow_buffer: read(
            "limits.flow_buffer",
            raw.flow_buffer.as_ref(),
            default.flow_buffer,
            buffer(4 << 10..=MAX_BODY),
        )?,
        total_buffer: read(
            "limits.total_buffer",
            raw.total_buffer.as_ref(),
            default.total_buffer,
            buffer(1 << 20..=MAX_BUFFER),
        )?,
        body: read("limits.body", raw.body.as_ref(), default.body, buffer(1..=MAX_BODY))?,
        exchange_timeout: read(
            "limits.exchange_timeout",
            raw.exchange_timeout.as_ref(),
            default.exchange_timeout,
            |text| {
                within(text, units::duration(text)?, EXCHANGE_TIMEOUT, |time| units::write_duration(*time))
            },
        )?,
        cpu: read("limits.cpu", raw.cpu.as_ref(), default.cpu, |text| match text {
            "unlimited" => Ok(None),
            _ => within(text, units::cores(text)?, CPU, |share| units::write_share(*share)).map(Some),
        })?,
    })
}

fn verdict(raw: &super::file::Verdict, default: Verdict) -> Result<Verdict, ConfigError> {
    not_yet("verdict.on_insufficient", raw.on_insufficient.as_ref())?;
    let limits = &raw.limits;
    let ratio = |text: &str| within(text, units::decimal(text)?, RATIO, show);
    Ok(Verdict {
        mismatch: read("verdict.limits.mismatch", limits.mismatch.as_ref(), default.mismatch, units::share)?,
        mismatch_per_endpoint: read(
            "verdict.limits.mismatch_per_endpoint",
            limits.mismatch_per_endpoint.as_ref(),
            default.mismatch_per_endpoint,
            units::share,
        )?,
        error_ratio: read(
            "verdict.limits.error_ratio",
            limits.error_ratio.as_ref(),
            default.error_ratio,
            ratio,
        )?,
        latency_ratio_p95: read(
            "verdict.limits.latency_ratio_p95",
            limits.latency_ratio_p95.as_ref(),
            default.latency_ratio_p95,
            ratio,
        )?,
        loss: read("verdict.limits.loss", limits.loss.as_ref(), default.loss, units::share)?,
        confidence: read("verdict.confidence", raw.confidence.as_ref(), default.confidence, |text| {
            within(text, units::share(text)?, CONFIDENCE, |share| units::write_share(*share))
        })?,
    })
}

fn admin(raw: &super::file::Admin, default: Admin) -> Result<Admin, ConfigError> {
    Ok(Admin {
        listen: read("admin.listen", raw.listen.as_ref(), default.listen, |text| match text {
            "off" => Ok(None),
            _ => text.parse().map(Some).map_err(|_| Problem::Listen(text.to_owned())),
        })?,
        token_file: read("admin.token_file", raw.token_file.as_ref(), None, |text| Ok(Some(text.into())))?,
    })
}

fn traces(raw: &super::file::Traces) -> Result<Traces, ConfigError> {
    Ok(Traces {
        context: read("traces.context", raw.context.as_ref(), TraceContext::default(), |text| match text {
            "mint" => Ok(TraceContext::Mint),
            "propagate" => Ok(TraceContext::Propagate),
            _ => Err(Problem::Choice { value: text.to_owned(), possible: "mint or propagate" }),
        })?,
        otlp: read("traces.otlp", raw.otlp.as_ref(), None, |text| match text {
            "off" => Ok(None),
            _ => replay::url(text).map(Some),
        })?,
    })
}

fn audit(raw: &super::file::Audit, default: Audit) -> Result<Audit, ConfigError> {
    Ok(Audit {
        place: read("audit.path", raw.path.as_ref(), default.place, |text| match text {
            "off" => Ok(AuditPlace::Off),
            path => Ok(AuditPlace::File(path.into())),
        })?,
        max_size: read("audit.max_size", raw.max_size.as_ref(), default.max_size, size(AUDIT_SIZE))?,
        keep: read("audit.keep", raw.keep.as_ref(), default.keep, count(AUDIT_KEEP))?,
    })
}
