//! Writes a configuration as a file would say it, without secrets.

use super::file::{self, Raw, Text};
use super::units::{write_byte_rate, write_duration, write_ports, write_rate, write_share, write_size};
use super::{
    Config, Credentials, Detector, MaskAction, MaskRule, MaskRules, Mode, Networks, Polarity, Share, Side,
    Source, Target, XdpMode,
};

/// What stands for the value of a configured header: any may be a secret.
const HIDDEN: &str = "<hidden>";

/// The effective configuration as YAML; values of configured headers are hidden, and the token is a path only.
///
/// # Errors
/// When the serializer fails, which it does for no configuration known.
pub fn yaml(config: &Config) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(&raw(config))
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
            rules: Some(config.select.rules.iter().map(|rule| rule_of(&rule.path, rule.share)).collect()),
        },
        mask: file::Mask { keep: mask_rules(&config.mask.keep), send: mask_rules(&config.mask.send) },
        replay: file::Replay {
            credentials: some(match replay.credentials {
                Credentials::Skip => "skip",
                Credentials::Forward => "forward",
                Credentials::Strip => "strip",
            }),
            targets: Some(replay.targets.iter().map(target).collect()),
            baseline: replay.baseline.as_ref().map(target),
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
        metrics: None,
        store: None,
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

fn rule_of(path: &str, share: Share) -> file::Rule {
    file::Rule { path: text(path), sample: some(write_share(share)), skip: None }
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
        rate: some(write_rate(target.rate)),
        concurrency: some(target.concurrency),
        timeout: some(write_duration(target.timeout)),
        headers: file::Headers { set, remove: all(&target.remove_headers) },
    }
}
