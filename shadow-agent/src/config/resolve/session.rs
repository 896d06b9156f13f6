//! Resolves `replay.order`, `replay.session` and `replay.tokens`.

use super::super::file::{self, Text};
use super::super::{ConfigError, Missing, Order, Problem, Source, TokenPlace as Place, TokenRule};
use super::rules::{header_name, json_path};
use super::{at_most, read, wrong};

const MAX_TOKENS: usize = 32;
/// The longest name of a token, cookie or parameter, in bytes.
const MAX_NAME: usize = 256;

const SESSION: &str = "one of cookie, header and field, such as { cookie: sid }";
const ISSUED: &str = "one or more of cookie, header and field, such as { cookie: sid }";
const CARRIED: &str = "one or more of cookie, header, query, field and path, such as { header: x-csrf }";

pub(super) fn order(raw: &file::Replay) -> Result<Order, ConfigError> {
    let source = |text: Option<&Text>| text.map(|text| text.source).unwrap_or_default();
    let (mut places, first) = places("replay.session", &raw.session, false, SESSION)?;
    let place = match (places.pop(), places.is_empty()) {
        (place, true) => place,
        _ => return Err(wrong("replay.session", first, Problem::Places(SESSION))),
    };
    let word = raw.order.as_ref().map(|text| text.text.as_str());
    match (word, place) {
        (None | Some("session"), Some(place)) => Ok(Order::Session(place)),
        (None, None) | (Some("none"), _) => Ok(Order::None),
        (Some("connection"), _) => Ok(Order::Connection),
        (Some("session"), None) => {
            Err(wrong("replay.session", source(raw.order.as_ref()), Problem::Places(SESSION)))
        }
        (Some(other), _) => {
            let possible = "none, connection or session";
            let problem = Problem::Choice { value: other.to_owned(), possible };
            Err(wrong("replay.order", source(raw.order.as_ref()), problem))
        }
    }
}

pub(super) fn tokens(raw: Option<&[file::Token]>) -> Result<Vec<TokenRule>, ConfigError> {
    let raw = raw.unwrap_or_default();
    at_most("replay.tokens", raw.first().map(|token| token.name.source), raw.len(), MAX_TOKENS)?;
    raw.iter().enumerate().map(|(index, raw)| token(&format!("replay.tokens[{index}]"), raw)).collect()
}

fn token(key: &str, raw: &file::Token) -> Result<TokenRule, ConfigError> {
    if raw.name.text.is_empty() {
        let remedy = "give the token a name, such as sid";
        return Err(wrong(format!("{key}.name"), raw.name.source, Problem::Required(remedy)));
    }
    let named = |part: &str, raw_place: &file::Place, carried: bool, possible: &'static str| {
        let key = format!("{key}.{part}");
        match places(&key, raw_place, carried, possible)? {
            (places, _) if !places.is_empty() => Ok(places),
            (_, _) => Err(wrong(key, raw.name.source, Problem::Places(possible))),
        }
    };
    Ok(TokenRule {
        name: raw.name.text.clone(),
        issued: named("issued", &raw.issued, false, ISSUED)?,
        carried: named("carried", &raw.carried, true, CARRIED)?,
        missing: read(&format!("{key}.missing"), raw.missing.as_ref(), Missing::Drop, missing)?,
    })
}

fn missing(text: &str) -> Result<Missing, Problem> {
    match text {
        "drop" => Ok(Missing::Drop),
        "send" => Ok(Missing::Send),
        _ => Err(Problem::Choice { value: text.to_owned(), possible: "drop or send" }),
    }
}

/// Every place that is named, and where the first is.
fn places(
    key: &str,
    raw: &file::Place,
    carried: bool,
    possible: &'static str,
) -> Result<(Vec<Place>, Source), ConfigError> {
    type How = fn(&str) -> Result<Place, Problem>;
    let all: [(&str, &Option<Text>, How, bool); 5] = [
        ("cookie", &raw.cookie, |text| name(text).map(Place::Cookie), true),
        ("header", &raw.header, |text| header_name(text).map(Place::Header), true),
        ("query", &raw.query, |text| name(text).map(Place::Query), carried),
        ("field", &raw.field, |text| json_path(text).map(Place::Field), true),
        ("path", &raw.path, |text| path(text).map(Place::Path), carried),
    ];
    let (mut places, mut first) = (Vec::new(), None);
    for (part, text, how, is_possible) in all {
        let Some(text) = text else { continue };
        let key = format!("{key}.{part}");
        if !is_possible {
            return Err(wrong(key, text.source, Problem::Places(possible)));
        }
        first.get_or_insert(text.source);
        places.extend(read(&key, Some(text), None, |text| how(text).map(Some))?);
    }
    Ok((places, first.unwrap_or_default()))
}

fn name(text: &str) -> Result<String, Problem> {
    match text.len() <= MAX_NAME && text.bytes().all(|b| b.is_ascii_graphic() && !b";,=".contains(&b)) {
        true => Ok(text.to_owned()),
        false => Err(Problem::PlaceName(text.to_owned())),
    }
}

/// A pattern with a segment `{token}`.
fn path(text: &str) -> Result<String, Problem> {
    let refused = || Problem::TokenPath(text.to_owned());
    let segments: Vec<&str> = text.strip_prefix('/').ok_or_else(refused)?.split('/').collect();
    let last = segments.len() - 1;
    let is_sound = |(at, segment): (usize, &&str)| match *segment {
        "{token}" | "*" => true,
        "**" => at == last,
        other => !other.contains(['*', '{', '}', '?', '#']),
    };
    let tokens = segments.iter().filter(|segment| **segment == "{token}").count();
    match tokens == 1 && segments.iter().enumerate().all(is_sound) {
        true => Ok(text.to_owned()),
        false => Err(refused()),
    }
}
