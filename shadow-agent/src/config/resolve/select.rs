//! Resolves `select`: methods, rules, and what becomes of stateful requests.

use globset::GlobBuilder;
use http::Method;

use super::super::file::{self, Text};
use super::super::{
    Condition, ConfigError, Problem, RecordOnly, Select, SelectRule, Share, Sizes, Source, Stateful, units,
};
use super::rules::{MAX_RULES, header_name, names};
use super::{at_most, count, list, parse, read, size, wrong};
use crate::record::Kind;

const MAX_METHODS: usize = 32;
/// Entries of each list of a rule.
const MAX_ENTRIES: usize = 32;
/// Characters of one glob.
const MAX_GLOB: usize = 1024;
const MAX_FILES: u64 = 1_000_000;

pub(super) fn select(raw: &file::Select, default: Select) -> Result<Select, ConfigError> {
    let methods = match &raw.methods {
        Some(texts) if texts.is_empty() => {
            let remedy = "list at least one method, such as GET, or leave the key out";
            return Err(wrong("select.methods", Source::Missing, Problem::Required(remedy)));
        }
        Some(texts) => list("select.methods", texts, MAX_METHODS, method)?.into_iter().collect(),
        None => default.methods,
    };
    let only = names("select.only", raw.only.as_deref(), default.only, path_glob)?;
    let rules = raw.rules.as_deref().unwrap_or_default();
    at_most("select.rules", rules.first().map(source), rules.len(), MAX_RULES)?;
    let rules: Result<_, _> =
        rules.iter().enumerate().map(|(index, raw)| rule(&format!("select.rules[{index}]"), raw)).collect();
    let stateful = read("select.stateful", raw.stateful.as_ref(), None, |text| stateful(text).map(Some))?;
    Ok(Select { methods, only, rules: rules?, stateful, record: record(&raw.record)? })
}

/// A method (RFC 9110, section 9.1) that makes sense to replay; tunnels do not.
fn method(text: &str) -> Result<String, Problem> {
    let is_upper = text.bytes().all(|b| !b.is_ascii_lowercase());
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if is_upper && method != Method::CONNECT => Ok(text.to_owned()),
        _ => Err(Problem::Method(text.to_owned())),
    }
}

fn stateful(text: &str) -> Result<Stateful, Problem> {
    let named = Stateful::ALL.into_iter().find(|mode| mode.as_str() == text);
    let possible = "skip, send, dry-run or record-only";
    named.ok_or_else(|| Problem::Choice { value: text.to_owned(), possible })
}

/// Where a rule is: where the first thing that it says is.
pub(in crate::config) fn source(rule: &file::Rule) -> Source {
    let lists = [&rule.methods, &rule.status, &rule.request_type, &rule.response_type];
    let lists = lists.into_iter().filter_map(|list| list.as_ref()?.first());
    let single = [&rule.path, &rule.skip, &rule.sample, &rule.mode];
    let sizes = [&rule.request_body, &rule.response_body].into_iter();
    let sizes = sizes.flat_map(|sizes| sizes.min.iter().chain(&sizes.max));
    let all = single.into_iter().flatten().chain(lists).chain(rule.headers.values()).chain(sizes);
    all.map(|text| text.source).next().unwrap_or_default()
}

fn rule(key: &str, raw: &file::Rule) -> Result<SelectRule, ConfigError> {
    let condition = condition(key, raw)?;
    let skip = read(&format!("{key}.skip"), raw.skip.as_ref(), false, units::boolean)?;
    let share =
        raw.sample.as_ref().map(|text| parse(&format!("{key}.sample"), text, units::share)).transpose()?;
    let mode = read(&format!("{key}.mode"), raw.mode.as_ref(), None, |text| stateful(text).map(Some))?;
    let share = match (skip, share, mode) {
        (true, None, None) => Share(0.0),
        (false, Some(share), _) => share,
        (false, None, Some(_)) => Share::ALL,
        _ => {
            let what = condition.path.unwrap_or_else(|| "every path".to_owned());
            return Err(wrong(key, source(raw), Problem::Rule(what)));
        }
    };
    Ok(SelectRule { condition, share, mode })
}

fn condition(key: &str, raw: &file::Rule) -> Result<Condition, ConfigError> {
    let within = |part: &str| format!("{key}.{part}");
    fn entries<T>(
        key: &str,
        texts: Option<&Vec<Text>>,
        how: fn(&str) -> Result<T, Problem>,
    ) -> Result<Vec<T>, ConfigError> {
        list(key, texts.map(Vec::as_slice).unwrap_or_default(), MAX_ENTRIES, how)
    }
    at_most(
        &within("headers"),
        raw.headers.values().next().map(|glob| glob.source),
        raw.headers.len(),
        MAX_ENTRIES,
    )?;
    let headers = raw.headers.iter().map(|(name, glob)| {
        let key = within(&format!("headers.{name}"));
        let name = header_name(name).map_err(|problem| wrong(&*key, glob.source, problem))?;
        Ok((name, parse(&key, glob, value_glob)?))
    });
    Ok(Condition {
        methods: entries(&within("methods"), raw.methods.as_ref(), method)?.into_iter().collect(),
        path: raw.path.as_ref().map(|text| parse(&within("path"), text, path_glob)).transpose()?,
        headers: headers.collect::<Result<_, _>>()?,
        status: entries(&within("status"), raw.status.as_ref(), status)?,
        request_body: sizes(&within("request_body"), &raw.request_body)?,
        response_body: sizes(&within("response_body"), &raw.response_body)?,
        request_type: entries(&within("request_type"), raw.request_type.as_ref(), type_glob)?,
        response_type: entries(&within("response_type"), raw.response_type.as_ref(), type_glob)?,
    })
}

fn sizes(key: &str, raw: &file::Sizes) -> Result<Sizes, ConfigError> {
    let default = Sizes::default();
    let min = read(&format!("{key}.min"), raw.min.as_ref(), default.min, units::size)?;
    let max = read(&format!("{key}.max"), raw.max.as_ref(), default.max, units::size)?;
    match (min > max, &raw.min) {
        (true, Some(text)) => Err(wrong(key, text.source, Problem::Sizes)),
        _ => Ok(Sizes { min, max }),
    }
}

/// A status (RFC 9110, section 15), a class of them, or a range.
fn status(text: &str) -> Result<(u16, u16), Problem> {
    let refused = || Problem::Status(text.to_owned());
    let code = |text: &str| match text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u16>().ok().filter(|&code| code >= 100),
        false => None,
    };
    if let Some(class) = text.strip_suffix("xx") {
        let first = code(&format!("{class}00")).ok_or_else(refused)?;
        return Ok((first, first + 99));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(refused()),
    }
}

fn path_glob(text: &str) -> Result<String, Problem> {
    if !text.starts_with(['/', '*', '{', '[', '?']) {
        return Err(Problem::NoSlash(text.to_owned()));
    }
    glob(text, true)
}

fn value_glob(text: &str) -> Result<String, Problem> {
    glob(text, false)
}

fn type_glob(text: &str) -> Result<String, Problem> {
    match text.contains(['/', '*']) && !text.contains([';', ' ']) {
        true => glob(&text.to_ascii_lowercase(), false),
        false => Err(Problem::MediaType(text.to_owned())),
    }
}

fn glob(text: &str, by_segment: bool) -> Result<String, Problem> {
    if text.chars().count() > MAX_GLOB {
        return Err(Problem::GlobLength(MAX_GLOB));
    }
    match GlobBuilder::new(text).literal_separator(by_segment).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Problem::Glob { value: text.to_owned(), problem: error.kind().to_string() }),
    }
}

fn record(raw: &file::RecordOnly) -> Result<Option<RecordOnly>, ConfigError> {
    let rotate_size = read(
        "select.record.rotate_size",
        raw.rotate_size.as_ref(),
        Select::ROTATE_SIZE,
        size(64 << 10..=1 << 40),
    )?;
    let keep = read("select.record.keep", raw.keep.as_ref(), Select::KEEP, count(1..=MAX_FILES))?;
    read("select.record.out", raw.out.as_ref(), None, |text| match Kind::of(text.as_ref()) {
        Ok(_) => Ok(Some(RecordOnly { out: text.into(), rotate_size, keep })),
        Err(_) => Err(Problem::RecordKind(text.to_owned())),
    })
}
