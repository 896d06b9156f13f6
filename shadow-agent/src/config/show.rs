//! Writes a configuration as a file would say it, without secrets.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;

use super::file::{self, Raw, Text};
use super::units::{write_byte_rate, write_duration, write_ports, write_rate, write_share, write_size};
use super::{
    AuditPlace, Breaker, Config, Credentials, Detector, GuardRule, Guards, HostHeader, Http, MaskAction,
    MaskRule, MaskRules, Missing, Mode, Networks, Order, Polarity, RecordOnly, Secret, SelectRule, Share,
    Side, Sizes, Source, Target, Tls, TokenPlace, TokenRule, TraceContext, XdpMode,
};
use crate::ramp::Stage;

/// What stands for the value of a configured header: any may be a secret.
const HIDDEN: &str = "<hidden>";

/// The effective configuration as YAML; values of configured headers are hidden, and the token is a path only.
///
/// # Errors
/// When the serializer fails, which it does for no configuration known.
pub fn yaml(config: &Config) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(&raw(config))
}

/// The same as a value in which keys can be looked up.
pub(super) fn value(config: &Config) -> serde_json::Value {
    // It is made of maps, lists and texts only.
    serde_json::to_value(raw(config)).unwrap_or_default()
}

fn text(text: impl ToString) -> Text {
    Text::new(text.to_string(), Source::Missing)
}

fn some(value: impl ToString) -> Option<Text> {
    Some(text(value))
}

fn all<T: ToString>(values: impl IntoIterator<Item = T>) -> Option<Vec<Text>> {
    Some(values.into_iter().map(text).collect())
}

fn raw(config: &Config) -> Raw {
    let (capture, limits, replay) = (&config.capture, &config.limits, &config.replay);
    Raw {
        enabled: some(config.enabled),
        capture: file::Capture {
            interfaces: all(&capture.interfaces),
            netns: capture.netns.as_ref().and_then(some),
            mode: some(match capture.mode {
                Mode::Tc => "tc",
                Mode::Xdp(_) => "xdp",
            }),
            xdp: match capture.mode {
                Mode::Tc => None,
                Mode::Xdp(XdpMode::Generic) => some("generic"),
                Mode::Xdp(XdpMode::Native) => some("native"),
            },
            ports: all(capture.ports.iter().copied().map(write_ports)),
            side: some(match capture.side {
                Side::Server => "server",
                Side::Client => "client",
                Side::Both => "both",
            }),
            polarity: some(match capture.polarity {
                Polarity::Auto => "auto",
                Polarity::Ingress => "ingress",
                Polarity::Egress => "egress",
            }),
            cidrs: file::Cidrs { server: networks(&capture.server), client: networks(&capture.client) },
            seed: some(capture.seed),
            mark: some(format!("{:#06X}", capture.mark).replace("0X", "0x")),
            sample: some(write_share(capture.sample)),
            rings: file::Rings {
                size: some(write_size(capture.ring_size)),
                shards: some(capture.shards.map_or_else(|| "auto".to_owned(), |shards| shards.to_string())),
            },
            kernel_log: some(capture.kernel_log),
            budget: some(write_byte_rate(capture.budget)),
        },
        limits: file::Limits {
            flows: some(limits.flows),
            flow_buffer: some(write_size(limits.flow_buffer as u64)),
            total_buffer: some(write_size(limits.total_buffer as u64)),
            body: some(write_size(limits.body as u64)),
            exchange_timeout: some(write_duration(limits.exchange_timeout)),
            cpu: some(limits.cpu.map_or_else(|| "unlimited".to_owned(), write_share)),
        },
        select: file::Select {
            methods: all(&config.select.methods),
            only: all(&config.select.only),
            rules: Some(config.select.rules.iter().map(rule_of).collect()),
            stateful: config.select.stateful.and_then(some),
            record: config.select.record.as_ref().map(record).unwrap_or_default(),
        },
        mask: file::Mask { keep: mask_rules(&config.mask.keep), send: mask_rules(&config.mask.send) },
        replay: file::Replay {
            credentials: some(match replay.credentials {
                Credentials::Skip => "skip",
                Credentials::Forward => "forward",
                Credentials::Strip => "strip",
                Credentials::Replace => "replace",
            }),
            targets: Some(replay.targets.iter().map(target).collect()),
            baseline: replay.baseline.as_ref().map(target),
            ramp: all(config.portion.ramp.iter().map(stage)),
            budget: some(write_rate(config.portion.budget)),
            dry_run: file::DryRun { header: some(&replay.dry_run.0), value: some(&replay.dry_run.1) },
            order: some(match replay.order {
                Order::None => "none",
                Order::Connection => "connection",
                Order::Session(_) => "session",
            }),
            session: match &replay.order {
                Order::Session(session) => places([session]),
                Order::None | Order::Connection => file::Place::default(),
            },
            tokens: Some(replay.tokens.iter().map(token).collect()),
            ..file::Replay::default()
        },
        compare: file::Compare {
            headers: all(&config.compare.headers),
            ignore: all(&config.compare.ignore),
            descriptors: config.compare.descriptors.as_ref().map(|file| text(file.path.display())),
            endpoints: Some(
                config.compare.endpoints.iter().map(|rule| endpoint(&rule.path, rule.mismatch)).collect(),
            ),
            max_endpoints: some(config.compare.max_endpoints),
            ..file::Compare::default()
        },
        verdict: file::Verdict {
            limits: file::VerdictLimits {
                mismatch: some(write_share(config.verdict.mismatch)),
                mismatch_per_endpoint: some(write_share(config.verdict.mismatch_per_endpoint)),
                error_ratio: some(config.verdict.error_ratio),
                latency_ratio_p95: some(config.verdict.latency_ratio_p95),
                loss: some(write_share(config.verdict.loss)),
            },
            confidence: some(write_share(config.verdict.confidence)),
            on_insufficient: None,
        },
        admin: file::Admin {
            listen: some(config.admin.listen.map_or_else(|| "off".to_owned(), |address| address.to_string())),
            token_file: config.admin.token_file.as_ref().map(|path| text(path.display())),
        },
        traces: file::Traces {
            context: some(match config.traces.context {
                TraceContext::Mint => "mint",
                TraceContext::Propagate => "propagate",
            }),
            otlp: some(config.traces.otlp.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string)),
        },
        audit: file::Audit {
            path: match &config.audit.place {
                AuditPlace::State => None,
                AuditPlace::Off => some("off"),
                AuditPlace::File(path) => some(path.display()),
            },
            max_size: some(write_size(config.audit.max_size)),
            keep: some(config.audit.keep),
        },
        guards: guards(&config.guards),
        metrics: None,
        store: None,
    }
}

fn stage(stage: &Stage) -> String {
    let share = write_share(stage.share);
    stage.hold.map_or_else(|| share.clone(), |hold| format!("{share} {}", write_duration(hold)))
}

fn guards(guards: &Guards) -> file::Guards {
    file::Guards {
        pause: some(write_duration(guards.pause)),
        production_latency: guard(&guards.production_latency, f64::to_string),
        production_errors: guard(&guards.production_errors, |share| write_share(*share)),
        shadow_errors: guard(&guards.shadow_errors, |share| write_share(*share)),
        shadow_latency: guard(&guards.shadow_latency, |time| write_duration(*time)),
        memory: guard(&guards.memory, |bytes| bytes.map_or_else(|| "auto".to_owned(), write_size)),
        ring_losses: guard(&guards.ring_losses, |share| write_share(*share)),
        mask_failures: file::Guard { action: some(guards.mask_failures.as_str()), ..file::Guard::default() },
    }
}

fn guard<T>(rule: &GuardRule<T>, write: impl Fn(&T) -> String) -> file::Guard {
    file::Guard {
        threshold: some(write(&rule.threshold)),
        window: some(write_duration(rule.window)),
        action: some(rule.action.as_str()),
    }
}

fn networks(networks: &Networks) -> file::Networks {
    file::Networks { include: all(&networks.include), exclude: all(&networks.exclude) }
}

fn mask_rules(rules: &MaskRules) -> file::MaskRules {
    let on = |detector| match rules.detectors.get(detector) {
        None => some(false),
        Some(MaskAction::Redact) => some(true),
        Some(action) => some(action.as_str()),
    };
    let patterns = rules.patterns.iter().map(|pattern| file::Pattern {
        name: text(&pattern.name),
        regex: text(&pattern.regex),
        action: other_than_redact(pattern.action),
    });
    file::MaskRules {
        action: None,
        headers: entries(&rules.headers),
        cookies: entries(&rules.cookies),
        query: entries(&rules.query),
        form: entries(&rules.form),
        fields: entries(&rules.fields),
        patterns: Some(patterns.collect()),
        detectors: file::Detectors {
            email: on(Detector::Email),
            card: on(Detector::Card),
            iban: on(Detector::Iban),
            token: on(Detector::Token),
            private_key: on(Detector::PrivateKey),
            user: on(Detector::User),
        },
    }
}

fn other_than_redact(action: MaskAction) -> Option<Text> {
    if action == MaskAction::Redact { None } else { some(action.as_str()) }
}

fn entries(rules: &[MaskRule]) -> Option<Vec<file::Entry>> {
    let entry = |rule: &MaskRule| match other_than_redact(rule.action) {
        None => file::Entry::Name(text(&rule.name)),
        action => {
            let keys = file::EntryKeys { name: some(&rule.name), path: None, action };
            file::Entry::Keys(keys, Source::Missing)
        }
    };
    Some(rules.iter().map(entry).collect())
}

fn rule_of(rule: &SelectRule) -> file::Rule {
    let condition = &rule.condition;
    file::Rule {
        methods: listed(&condition.methods),
        path: condition.path.as_ref().and_then(some),
        headers: condition.headers.iter().map(|(name, glob)| (name.clone(), text(glob))).collect(),
        status: listed(&condition.status.iter().copied().map(write_status).collect::<Vec<_>>()),
        request_body: sizes(condition.request_body),
        response_body: sizes(condition.response_body),
        request_type: listed(&condition.request_type),
        response_type: listed(&condition.response_type),
        sample: some(write_share(rule.share)),
        skip: None,
        mode: rule.mode.and_then(some),
    }
}

fn listed<'a, T: Display + 'a>(values: impl IntoIterator<Item = &'a T>) -> Option<Vec<Text>> {
    all(values).filter(|values| !values.is_empty())
}

fn write_status((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn sizes(sizes: Sizes) -> file::Sizes {
    let default = Sizes::default();
    let given = |size: u64, default: u64| (size != default).then(|| text(write_size(size)));
    file::Sizes { min: given(sizes.min, default.min), max: given(sizes.max, default.max) }
}

fn record(record: &RecordOnly) -> file::RecordOnly {
    file::RecordOnly {
        out: some(record.out.display()),
        rotate_size: some(write_size(record.rotate_size)),
        keep: some(record.keep),
    }
}

fn token(rule: &TokenRule) -> file::Token {
    file::Token {
        name: text(&rule.name),
        issued: places(&rule.issued),
        carried: places(&rule.carried),
        missing: some(match rule.missing {
            Missing::Drop => "drop",
            Missing::Send => "send",
        }),
    }
}

fn places<'a>(places: impl IntoIterator<Item = &'a TokenPlace>) -> file::Place {
    let mut raw = file::Place::default();
    for place in places {
        match place {
            TokenPlace::Cookie(name) => raw.cookie = some(name),
            TokenPlace::Header(name) => raw.header = some(name),
            TokenPlace::Query(name) => raw.query = some(name),
            TokenPlace::Field(path) => raw.field = some(path),
            TokenPlace::Path(pattern) => raw.path = some(pattern),
        }
    }
    raw
}

fn endpoint(path: &str, mismatch: Option<Share>) -> file::Endpoint {
    let limits = file::EndpointLimits { mismatch: mismatch.map(|share| text(write_share(share))) };
    file::Endpoint { path: text(path), limits, ..file::Endpoint::default() }
}

fn target(target: &Target) -> file::Target {
    let set = target.set_headers.iter().map(|(name, _)| (name.clone(), text(HIDDEN))).collect();
    file::Target {
        name: text(&target.name),
        url: text(&target.url),
        isolated: some(target.isolated),
        dry_run: some(target.dry_run),
        rate: some(write_rate(target.rate)),
        concurrency: some(target.concurrency),
        timeout: some(write_duration(target.timeout)),
        headers: file::Headers { set, remove: all(&target.remove_headers) },
        tls: match target.is_tls() {
            true => tls(&target.tls),
            false => file::Tls::default(),
        },
        http: some(match target.http {
            Http::Auto => "auto",
            Http::One => "1.1",
            Http::Two => "2",
        }),
        host: some(match &target.host {
            HostHeader::Preserve => "preserve",
            HostHeader::Target => "target",
            HostHeader::Name(name) => name,
        }),
        dns_refresh: some(write_duration(target.dns_refresh)),
        breaker: target.breaker.as_ref().map_or_else(|| file::Breaker::Word(text("off")), breaker),
        idempotency_header: some(target.idempotency_header.as_deref().unwrap_or("off")),
        credentials: file::Credentials {
            headers: secrets(&target.credentials.headers),
            query: secrets(&target.credentials.query),
        },
    }
}

fn tls(tls: &Tls) -> file::Tls {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| text(path.display()));
    file::Tls {
        ca: path(&tls.ca),
        cert: path(&tls.cert),
        key: path(&tls.key),
        server_name: tls.server_name.as_ref().and_then(some),
        verify: some(tls.verify),
    }
}

fn breaker(breaker: &Breaker) -> file::Breaker {
    file::Breaker::Keys(file::Circuit {
        failures: some(write_share(breaker.failures)),
        latency: some(breaker.latency.map_or_else(|| "off".to_owned(), write_duration)),
        pause: some(write_duration(breaker.pause)),
    })
}

/// Where secrets are read, never what they are.
fn secrets(secrets: &[(String, Secret)]) -> BTreeMap<String, file::Secret> {
    let shown = secrets.iter().map(|(name, secret)| {
        let shown = match secret {
            Secret::File(path) => file::Secret { file: some(path.display()), env: None },
            Secret::Env(variable) => file::Secret { file: None, env: some(variable) },
        };
        (name.clone(), shown)
    });
    shown.collect()
}
