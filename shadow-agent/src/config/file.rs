//! The configuration file as written: every key of it, every value still text with the line it came from.
//!
//! The same form is filled by the environment and by flags (`overlay`), and by `show`. Nothing is interpreted here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_saphyr::{Error, Spanned};

use super::{ConfigError, Source};

/// One value as text, with its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) source: Source,
}

impl Text {
    pub(super) fn new(text: impl Into<String>, source: Source) -> Text {
        Text { text: text.into(), source }
    }
}

struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
        }
        deserializer.deserialize_string(Any)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        let spanned = Spanned::<Scalar>::deserialize(deserializer)?;
        Ok(Text { text: spanned.value.0, source: Source::File { line: spanned.referenced.line() } })
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.text.parse::<u64>(), self.text.parse::<bool>()) {
            (Ok(number), _) if number.to_string() == self.text => serializer.serialize_u64(number),
            (_, Ok(boolean)) => serializer.serialize_bool(boolean),
            _ => serializer.serialize_str(&self.text),
        }
    }
}

/// A key that is planned and that this version does not honour: any value, remembered by its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotYet(pub(super) Source);

impl<'de> Deserialize<'de> for NotYet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NotYet, D::Error> {
        let spanned = Spanned::<IgnoredAny>::deserialize(deserializer)?;
        Ok(NotYet(Source::File { line: spanned.referenced.line() }))
    }
}

impl Serialize for NotYet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

/// A breaker: one word, or its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    Word(Text),
    Keys(Circuit),
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker::Keys(Circuit::default())
    }
}

impl<'de> Deserialize<'de> for Breaker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Breaker, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Breaker;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off`, or keys with values")
            }

            fn visit_str<E>(self, word: &str) -> Result<Breaker, E> {
                Ok(Breaker::Word(Text::new(word, Source::Missing)))
            }

            // What YAML 1.1 makes of `off`.
            fn visit_bool<E>(self, on: bool) -> Result<Breaker, E> {
                Ok(Breaker::Word(Text::new(if on { "on" } else { "off" }, Source::Missing)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Breaker, A::Error> {
                Circuit::deserialize(MapAccessDeserializer::new(map)).map(Breaker::Keys)
            }
        }
        struct Whole(Breaker);
        impl<'de> Deserialize<'de> for Whole {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole, D::Error> {
                deserializer.deserialize_any(Either).map(Whole)
            }
        }
        let spanned = Spanned::<Whole>::deserialize(deserializer)?;
        Ok(match spanned.value.0 {
            Breaker::Word(Text { text, .. }) => {
                Breaker::Word(Text { text, source: Source::File { line: spanned.referenced.line() } })
            }
            keys => keys,
        })
    }
}

/// A name alone, or with what is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Name(Text),
    Keys(EntryKeys, Source),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        enum Either {
            Scalar(String),
            Keys(EntryKeys),
        }
        impl<'de> Deserialize<'de> for Either {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Either, D::Error> {
                deserializer.deserialize_any(Any)
            }
        }
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Either;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or keys such as `name: email, action: hash`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Either, E> {
                Ok(Either::Scalar(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Either, E> {
                Ok(Either::Scalar(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Either, E> {
                Ok(Either::Scalar(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Either, E> {
                Ok(Either::Scalar(value.to_string()))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Either, M::Error> {
                EntryKeys::deserialize(MapAccessDeserializer::new(map)).map(Either::Keys)
            }
        }
        let spanned = Spanned::<Either>::deserialize(deserializer)?;
        let source = Source::File { line: spanned.referenced.line() };
        Ok(match spanned.value {
            Either::Scalar(text) => Entry::Name(Text { text, source }),
            Either::Keys(keys) => Entry::Keys(keys, source),
        })
    }
}

impl Serialize for Breaker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Breaker::Word(word) => word.serialize(serializer),
            Breaker::Keys(keys) => keys.serialize(serializer),
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Entry::Name(name) => name.serialize(serializer),
            Entry::Keys(keys, _) => keys.serialize(serializer),
        }
    }
}

/// A section that is there without content is a section that is not there.
fn section<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares structs of which every field may be missing, and no other may be there.
macro_rules! raw {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $(
            #[serde(deserialize_with = "section", skip_serializing_if = "is_default")]
            pub(super) $field: $type,
        )* }
    )* };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

raw! {
    /// The whole file.
    Raw {
        enabled: Option<Text>,
        capture: Capture,
        limits: Limits,
        select: Select,
        mask: Mask,
        replay: Replay,
        compare: Compare,
        verdict: Verdict,
        admin: Admin,
        traces: Traces,
        audit: Audit,
        guards: Guards,
        metrics: Option<NotYet>,
        store: Option<NotYet>,
    }
    Capture {
        interfaces: Option<Vec<Text>>,
        netns: Option<Text>,
        mode: Option<Text>,
        xdp: Option<Text>,
        ports: Option<Vec<Text>>,
        side: Option<Text>,
        polarity: Option<Text>,
        cidrs: Cidrs,
        seed: Option<Text>,
        mark: Option<Text>,
        sample: Option<Text>,
        budget: Option<Text>,
        rings: Rings,
        kernel_log: Option<Text>,
    }
    Cidrs { server: Networks, client: Networks, }
    Networks { include: Option<Vec<Text>>, exclude: Option<Vec<Text>>, }
    Rings { size: Option<Text>, shards: Option<Text>, }
    Limits {
        flows: Option<Text>,
        flow_buffer: Option<Text>,
        total_buffer: Option<Text>,
        body: Option<Text>,
        exchange_timeout: Option<Text>,
        cpu: Option<Text>,
    }
    Select {
        methods: Option<Vec<Text>>,
        only: Option<Vec<Text>>,
        rules: Option<Vec<Rule>>,
        stateful: Option<Text>,
        record: RecordOnly,
    }
    Rule {
        methods: Option<Vec<Text>>,
        path: Option<Text>,
        headers: BTreeMap<String, Text>,
        status: Option<Vec<Text>>,
        request_body: Sizes,
        response_body: Sizes,
        request_type: Option<Vec<Text>>,
        response_type: Option<Vec<Text>>,
        sample: Option<Text>,
        skip: Option<Text>,
        mode: Option<Text>,
    }
    Sizes { min: Option<Text>, max: Option<Text>, }
    RecordOnly { out: Option<Text>, rotate_size: Option<Text>, keep: Option<Text>, }
    Mask { keep: MaskRules, send: MaskRules, }
    MaskRules {
        action: Option<Text>,
        headers: Option<Vec<Entry>>,
        cookies: Option<Vec<Entry>>,
        query: Option<Vec<Entry>>,
        form: Option<Vec<Entry>>,
        fields: Option<Vec<Entry>>,
        patterns: Option<Vec<Pattern>>,
        detectors: Detectors,
    }
    EntryKeys { name: Option<Text>, path: Option<Text>, action: Option<Text>, }
    Pattern { name: Text, regex: Text, action: Option<Text>, }
    Detectors {
        email: Option<Text>,
        card: Option<Text>,
        iban: Option<Text>,
        token: Option<Text>,
        private_key: Option<Text>,
        user: Option<Text>,
    }
    Replay {
        credentials: Option<Text>,
        rate: Option<Text>,
        concurrency: Option<Text>,
        timeout: Option<Text>,
        dns_refresh: Option<Text>,
        idempotency_header: Option<Text>,
        targets: Option<Vec<Target>>,
        baseline: Option<Target>,
        ramp: Option<Vec<Text>>,
        budget: Option<Text>,
        dry_run: DryRun,
        order: Option<Text>,
        session: Place,
        tokens: Option<Vec<Token>>,
    }
    Token { name: Text, issued: Place, carried: Place, missing: Option<Text>, }
    Place {
        cookie: Option<Text>,
        header: Option<Text>,
        query: Option<Text>,
        field: Option<Text>,
        path: Option<Text>,
    }
    DryRun { header: Option<Text>, value: Option<Text>, }
    Target {
        name: Text,
        url: Text,
        isolated: Option<Text>,
        dry_run: Option<Text>,
        rate: Option<Text>,
        concurrency: Option<Text>,
        timeout: Option<Text>,
        headers: Headers,
        tls: Tls,
        http: Option<Text>,
        host: Option<Text>,
        dns_refresh: Option<Text>,
        breaker: Breaker,
        idempotency_header: Option<Text>,
        credentials: Credentials,
    }
    Tls {
        ca: Option<Text>,
        cert: Option<Text>,
        key: Option<Text>,
        server_name: Option<Text>,
        verify: Option<Text>,
    }
    Circuit { failures: Option<Text>, latency: Option<Text>, pause: Option<Text>, }
    Credentials { headers: BTreeMap<String, Secret>, query: BTreeMap<String, Secret>, }
    Secret { file: Option<Text>, env: Option<Text>, }
    Headers { set: BTreeMap<String, Text>, remove: Option<Vec<Text>>, }
    Compare {
        headers: Option<Vec<Text>>,
        ignore: Option<Vec<Text>>,
        descriptors: Option<Text>,
        tolerance: Option<NotYet>,
        unordered: Option<NotYet>,
        endpoints: Option<Vec<Endpoint>>,
        max_endpoints: Option<Text>,
    }
    Endpoint {
        path: Text,
        limits: EndpointLimits,
        critical: Option<NotYet>,
        owner: Option<NotYet>,
    }
    EndpointLimits { mismatch: Option<Text>, }
    Verdict { limits: VerdictLimits, confidence: Option<Text>, on_insufficient: Option<NotYet>, }
    VerdictLimits {
        mismatch: Option<Text>,
        mismatch_per_endpoint: Option<Text>,
        error_ratio: Option<Text>,
        latency_ratio_p95: Option<Text>,
        loss: Option<Text>,
    }
    Admin { listen: Option<Text>, token_file: Option<Text>, }
    Traces { context: Option<Text>, otlp: Option<Text>, }
    Audit { path: Option<Text>, max_size: Option<Text>, keep: Option<Text>, }
    Guards {
        pause: Option<Text>,
        production_latency: Guard,
        production_errors: Guard,
        shadow_errors: Guard,
        shadow_latency: Guard,
        memory: Guard,
        ring_losses: Guard,
        mask_failures: Guard,
    }
    Guard { threshold: Option<Text>, window: Option<Text>, action: Option<Text>, }
}

/// Reads the text of a file.
///
/// # Errors
/// When it is not YAML, or a key is unknown, twice there, or of another shape.
pub(super) fn parse(text: &str, path: &Path) -> Result<Raw, ConfigError> {
    let raw: Result<Option<Raw>, Error> = serde_saphyr::from_str(text);
    raw.map(Option::unwrap_or_default).map_err(|error| explain(error.without_snippet(), path))
}

fn explain(error: &Error, path: &Path) -> ConfigError {
    let line = error.location().map_or(0, |location| location.line());
    let path = path.to_owned();
    match error {
        Error::SerdeUnknownField { field, expected, .. } => ConfigError::UnknownKey {
            path,
            line,
            key: field.clone(),
            suggestion: nearest(field, expected),
            known: expected.clone(),
        },
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            let problem = format!("the key `{key}` is there twice; leave one of them out");
            ConfigError::Shape { path, line, problem }
        }
        Error::MultipleDocuments { .. } => {
            let problem = "a second document begins here; leave `---` out".to_owned();
            ConfigError::Shape { path, line, problem }
        }
        other => ConfigError::Shape { path, line, problem: in_plain_words(&other.to_string()) },
    }
}

/// What the parser said, without the position, which is said already, and without the parser's own terms.
fn in_plain_words(said: &str) -> String {
    let said = said.split(" at line ").next().unwrap_or(said);
    match said {
        "expected mapping start" => "keys with values are expected here, such as `key: value`".to_owned(),
        "expected sequence start" => "a list is expected here, such as `[a, b]`".to_owned(),
        "expected string scalar" => "a single value is expected here, not a list and not keys".to_owned(),
        other => other.lines().collect::<Vec<_>>().join(" "),
    }
}

/// The name that a person who typed `word` most likely meant.
pub(super) fn nearest(word: &str, names: &[&'static str]) -> Option<&'static str> {
    let word: Cow<'_, str> = word.replace('-', "_").into();
    let near = names.iter().map(|name| (strsim::jaro_winkler(&word, name), *name));
    near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8).map(|(_, name)| name)
}
