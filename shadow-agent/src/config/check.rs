//! Checks what several values mean together, and what they mean on this host. Single values are checked before.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use shadow_ebpf::abi;

use super::file::{Raw, Text};
use super::overlay::Overrides;
use super::resolve::{rule_source, wrong};
use super::{
    Capture, Config, ConfigError, Credentials, Needs, Problem, Select, Side, Source, Stateful, Target, units,
    writes,
};
use crate::replay;

/// The length of a token, in bytes.
const TOKEN: std::ops::RangeInclusive<usize> = 16..=4096;

/// The least ring that holds the largest packets Linux builds.
const MIN_RING: u64 = 256 << 10;

/// The shadow is the service whose traffic is captured: every request would come back as another one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the target `{target}` ({url}) is the captured service itself: {address} is an address of this host and port {port} is \
     captured; give the URL of another host or port, or narrow the captured servers with --cidr"
)]
pub struct LoopError {
    /// The target's name.
    pub target: String,
    /// Its URL.
    pub url: String,
    /// The address of this host that the URL leads to.
    pub address: IpAddr,
    /// The captured port.
    pub port: u16,
}

/// Checks that no target is the captured service itself, resolving the targets' host names (which may block).
///
/// A name that does not resolve is no loop: the target may come up later.
///
/// # Errors
/// When a target leads to a captured port on one of `own_addresses` (those of the network namespace captured from), or
/// on a loopback address unless that is another namespace, within the captured server networks. With `side: client` the servers are elsewhere and nothing is checked.
pub fn check_loop(config: &Config, own_addresses: &[IpAddr]) -> Result<(), LoopError> {
    for target in config.replay.targets.iter().chain(&config.replay.baseline) {
        for address in addresses(target) {
            if leads_back(config, own_addresses, address) {
                let (name, url) = (target.name.clone(), target.url.to_string());
                return Err(LoopError { target: name, url, address: address.ip(), port: address.port() });
            }
        }
    }
    Ok(())
}

/// The addresses a target's URL leads to now; resolving a name may block.
#[must_use]
pub fn addresses(target: &Target) -> Vec<SocketAddr> {
    let host = target.url.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let port = target.port();
    (host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

fn leads_back(config: &Config, own_addresses: &[IpAddr], target: SocketAddr) -> bool {
    let capture = &config.capture;
    let ip = target.ip().to_canonical();
    let is_own = match ip.is_loopback() || ip.is_unspecified() {
        // In another namespace, what is captured on loopback is not what we reach there.
        true => capture.netns.is_none(),
        false => own_addresses.iter().any(|own| own.to_canonical() == ip),
    };
    let is_server = capture.side != Side::Client
        && (capture.server.include.is_empty() || capture.server.include.iter().any(|net| net.contains(&ip)))
        && !capture.server.exclude.iter().any(|net| net.contains(&ip));
    is_own && is_server && is_captured(config, target.port())
}

fn is_captured(config: &Config, port: u16) -> bool {
    config.capture.ports.iter().any(|&(first, last)| (first..=last).contains(&port))
}

/// Checks the whole, and that nothing is missing; `raw` and `overrides` say where each value came from.
pub(super) fn check(
    needs: Needs,
    config: &Config,
    raw: &Raw,
    overrides: &Overrides,
) -> Result<(), ConfigError> {
    complete(needs, config)?;
    names(config, raw)?;
    baseline(config, raw)?;
    stateful(config, raw)?;
    connections(config, raw, overrides)?;
    credentials(config, raw)?;
    if needs.targets {
        files(config, raw)?;
    }
    buffers(config, raw)?;
    rings(config, raw)?;
    admin(config, raw)
}

fn complete(needs: Needs, config: &Config) -> Result<(), ConfigError> {
    let Config { capture, replay, .. } = config;
    let interfaces = "name at least one interface or glob here or with --interface";
    let url = "give the URL of the new version here or with --shadow";
    for (needed, missing, key, remedy) in [
        (needs.capture, capture.interfaces.is_empty(), "capture.interfaces", interfaces),
        (
            needs.capture,
            capture.ports.is_empty(),
            "capture.ports",
            "name the server's port here or with --port",
        ),
        (needs.targets, replay.targets.is_empty(), "replay.targets", url),
    ] {
        if needed && missing {
            return Err(wrong(key, Source::default(), Problem::Required(remedy)));
        }
    }
    Ok(())
}

fn source(text: Option<&Text>) -> Source {
    text.map_or(Source::Missing, |text| text.source)
}

/// The targets and the baseline, with their keys and the sources of name and URL.
fn targets<'a>(
    config: &'a Config,
    raw: &'a Raw,
) -> impl Iterator<Item = (String, &'a Target, Source, Source)> {
    let keys = (0..config.replay.targets.len()).map(|index| format!("replay.targets[{index}]"));
    let raw = raw.replay.targets.iter().flatten().chain(&raw.replay.baseline);
    let resolved = config.replay.targets.iter().chain(&config.replay.baseline);
    keys.chain(["replay.baseline".to_owned()])
        .zip(resolved)
        .zip(raw)
        .map(|((key, target), raw)| (key, target, raw.name.source, raw.url.source))
}

fn names(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let mut seen = Vec::new();
    for (key, target, source, _) in targets(config, raw) {
        if seen.contains(&&target.name) {
            return Err(wrong(format!("{key}.name"), source, Problem::DuplicateName(target.name.clone())));
        }
        seen.push(&target.name);
    }
    Ok(())
}

fn baseline(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let Some(baseline) = &config.replay.baseline else { return Ok(()) };
    let place = |target: &Target| {
        let host = target.url.host().unwrap_or_default().to_ascii_lowercase();
        (host, target.port(), target.url.path().trim_end_matches('/').to_owned())
    };
    match config.replay.targets.iter().find(|target| place(target) == place(baseline)) {
        Some(candidate) => {
            let source = source(raw.replay.baseline.as_ref().map(|raw| &raw.url));
            let (url, candidate) = (baseline.url.to_string(), candidate.name.clone());
            Err(wrong("replay.baseline.url", source, Problem::BaselineIsCandidate { url, candidate }))
        }
        None => Ok(()),
    }
}

/// Unsafe methods go to isolated targets only, dry runs to those that understand them, and what is recorded has a file.
fn stateful(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let rule_source = |index: usize| {
        let rule = raw.select.rules.as_deref().and_then(|rules| rules.get(index));
        rule.map(rule_source).unwrap_or_default()
    };
    for (index, rule) in config.select.rules.iter().enumerate() {
        let is_said = rule.share.0 <= 0.0 || rule.mode.or(config.select.stateful).is_some();
        let mut listed = Select::unsafe_among(&rule.condition.methods);
        if let Some(method) = listed.find(|method| !is_said && !config.select.methods.contains(*method)) {
            let problem = Problem::RuleWithoutMode(method.clone());
            return Err(wrong(format!("select.rules[{index}].methods"), rule_source(index), problem));
        }
    }
    for write in writes::writes(config) {
        let place = |key: &str| match write.rule {
            Some(index) => (format!("select.rules[{index}]"), rule_source(index)),
            None => (format!("select.{key}"), source(raw.select.stateful.as_ref())),
        };
        match write.mode {
            Stateful::Skip => {}
            Stateful::Send => {
                let target = write.to.iter().find(|target| !target.isolated);
                let method = write.methods.iter().flatten().next();
                let (Some(target), Some(method)) = (target, method) else { continue };
                let listed = raw.select.methods.iter().flatten().find(|text| text.text == *method);
                let (key, source) = match write.rule {
                    Some(_) => place("rules"),
                    None => ("select.methods".to_owned(), source(listed)),
                };
                let problem = Problem::UnsafeMethod { method: method.clone(), target: target.name.clone() };
                return Err(wrong(key, source, problem));
            }
            Stateful::DryRun if write.to.is_empty() && !write.not_to.is_empty() => {
                let (key, source) = place("stateful");
                return Err(wrong(key, source, Problem::NoDryRun));
            }
            Stateful::RecordOnly if write.file.is_none() => {
                let (_, source) = place("stateful");
                return Err(wrong("select.record.out", source, Problem::NoRecord));
            }
            Stateful::DryRun | Stateful::RecordOnly => {}
        }
    }
    Ok(())
}

/// A target with credentials of its own, which it would not be sent.
fn credentials(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let unused = targets(config, raw).find(|(_, target, ..)| !target.credentials.is_empty());
    match unused {
        Some((key, _, _, source)) if config.replay.credentials != Credentials::Replace => {
            Err(wrong(format!("{key}.credentials"), source, Problem::CredentialsUnused))
        }
        _ => Ok(()),
    }
}

/// What targets need from the disk and the environment is there and usable.
fn files(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    for (key, target, _, source) in targets(config, raw) {
        replay::check_tls(target)
            .map_err(|error| wrong(format!("{key}.tls"), source, Problem::TlsUnusable(error.to_string())))?;
        replay::check_credentials(target).map_err(|error| {
            wrong(format!("{key}.credentials"), source, Problem::Credentials(error.to_string()))
        })?;
    }
    Ok(())
}

/// Every connection to a target has its place in the kernel's map of the agent's own sockets.
fn connections(config: &Config, raw: &Raw, overrides: &Overrides) -> Result<(), ConfigError> {
    let limits = config.replay.targets.iter().chain(&config.replay.baseline).map(|target| target.concurrency);
    let count = limits.map(replay::most_connections).sum();
    if count <= abi::MAX_OWN as usize {
        return Ok(());
    }
    let mut of_targets = raw.replay.targets.iter().flatten().chain(&raw.replay.baseline);
    let given = overrides.concurrency.as_ref().or(raw.replay.concurrency.as_ref());
    let given = given.or_else(|| of_targets.find_map(|target| target.concurrency.as_ref()));
    let problem = Problem::TooManyConnections { count, most: abi::MAX_OWN as usize };
    Err(wrong("replay.concurrency", source(given), problem))
}

/// Half of the total is for what is being rebuilt, and each shard gets its share of that half.
fn buffers(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let limits = &config.limits;
    let shares = 2 * usize::from(config.capture.shards.unwrap_or(Capture::AUTO_SHARDS));
    for (other_key, other) in [("limits.flow_buffer", limits.flow_buffer), ("limits.body", limits.body)] {
        let least = other.saturating_mul(shares);
        if limits.total_buffer < least {
            let size = |bytes: usize| units::write_size(bytes as u64);
            let (value, other, least) = (size(limits.total_buffer), size(other), size(least));
            let problem = Problem::LessThan { value, other_key, other, least };
            return Err(wrong("limits.total_buffer", source(raw.limits.total_buffer.as_ref()), problem));
        }
    }
    Ok(())
}

fn rings(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let capture = &config.capture;
    let shards = capture.shards.unwrap_or(Capture::AUTO_SHARDS);
    if capture.ring_size / u64::from(shards.max(1)) >= MIN_RING {
        return Ok(());
    }
    let given = raw.capture.rings.shards.as_ref().or(raw.capture.rings.size.as_ref());
    let size = units::write_size(capture.ring_size);
    let problem = Problem::RingTooSmall { size, shards, least: units::write_size(MIN_RING) };
    Err(wrong("capture.rings", source(given), problem))
}

fn admin(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let admin = &config.admin;
    let Some(address) = admin.listen else { return Ok(()) };
    if let Some(path) = &admin.token_file {
        let source = source(raw.admin.token_file.as_ref());
        return token(path).map_err(|problem| wrong("admin.token_file", source, problem));
    }
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let source = source(raw.admin.listen.as_ref());
    Err(wrong("admin.listen", source, Problem::NoToken(address.to_string())))
}

/// Checks that the file holds a token that an `Authorization` header can carry.
fn token(path: &Path) -> Result<(), Problem> {
    let shown = || path.display().to_string();
    let unreadable =
        |error: std::io::Error| Problem::TokenUnreadable { path: shown(), problem: error.to_string() };
    let mut token = Vec::new();
    // One byte more than fits, and an end of line.
    let most = *TOKEN.end() as u64 + 3;
    File::open(path).map_err(unreadable)?.take(most).read_to_end(&mut token).map_err(unreadable)?;
    let token = token.trim_ascii();
    match TOKEN.contains(&token.len()) && token.iter().all(u8::is_ascii_graphic) {
        true => Ok(()),
        false => Err(Problem::TokenUnusable(shown())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_found_in_the_namespace_captured_from() {
        use super::super::NetNs;
        let check = |netns: Option<NetNs>, url: &str, expected: bool| {
            let mut config = Config::default();
            config.capture.ports = vec![(80, 80)];
            config.replay.targets = vec![Target { url: url.parse().unwrap(), ..Target::default() }];
            config.capture.netns = netns;
            let own: Vec<IpAddr> = ["127.0.0.1", "10.0.0.1"].map(|ip| ip.parse().unwrap()).into();
            assert_eq!(check_loop(&config, &own).is_err(), expected, "{url}");
        };
        let blue = || Some(NetNs::Name("blue".to_owned()));
        for (url, here, elsewhere) in [
            ("http://127.0.0.1", true, false),
            ("http://0.0.0.0", true, false),
            ("http://10.0.0.1", true, true),
            ("http://10.0.0.2", false, false),
            ("http://10.0.0.1:81", false, false),
        ] {
            check(None, url, here);
            check(blue(), url, elsewhere);
        }
    }
}
