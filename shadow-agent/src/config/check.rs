//! Checks what several values mean together, and what they mean on this host. Single values are checked before.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use http::Method;
use ipnet::IpNet;

use super::file::{Raw, Text};
use super::resolve::wrong;
use super::{Config, ConfigError, Problem, Side, Source, Target, units};

/// The length of a token, in bytes.
const TOKEN: std::ops::RangeInclusive<usize> = 16..=4096;

/// The least ring that holds the largest packets Linux builds.
const MIN_RING: u64 = 256 << 10;

/// The most shards when their number is chosen by the number of CPUs.
const AUTO_SHARDS: u16 = 4;

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
/// When a target leads to a captured port on one of `own_addresses`, or on a loopback address, within the captured
/// server networks. With `side: client` the servers are elsewhere and nothing is checked.
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
    let port = target.url.port_u16().unwrap_or(80);
    (host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

fn leads_back(config: &Config, own_addresses: &[IpAddr], target: SocketAddr) -> bool {
    let capture = &config.capture;
    let ip = target.ip().to_canonical();
    let is_own =
        ip.is_loopback() || ip.is_unspecified() || own_addresses.iter().any(|own| own.to_canonical() == ip);
    let is_server = capture.side != Side::Client
        && (capture.server.include.is_empty() || capture.server.include.iter().any(|net| net.contains(&ip)))
        && !capture.server.exclude.iter().any(|net| net.contains(&ip));
    is_own && is_server && is_captured(config, target.port())
}

/// Leaves the flows to every target out of the capture, resolving the targets' host names (which may block).
///
/// What we send carries our mark, but what a target answers does not: on a captured port it would be taken for half of
/// somebody else's connection. Returns the target's name and the address for each that is left out with all its ports.
pub fn leave_targets_out(config: &mut Config) -> Vec<(String, SocketAddr)> {
    let mut left_out = Vec::new();
    for target in config.replay.targets.iter().chain(&config.replay.baseline) {
        for address in addresses(target).into_iter().filter(|address| is_captured(config, address.port())) {
            left_out.push((target.name.clone(), address));
        }
    }
    let networks = left_out.iter().map(|(_, address)| IpNet::from(address.ip().to_canonical()));
    config.capture.server.exclude.extend(networks);
    left_out
}

fn is_captured(config: &Config, port: u16) -> bool {
    config.capture.ports.iter().any(|&(first, last)| (first..=last).contains(&port))
}

/// Checks the whole; `raw` says where each value came from.
pub(super) fn check(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    names(config, raw)?;
    baseline(config, raw)?;
    unsafe_methods(config, raw)?;
    buffers(config, raw)?;
    rings(config, raw)?;
    admin(config, raw)
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
    let place = |url: &http::Uri| {
        let host = url.host().unwrap_or_default().to_ascii_lowercase();
        (host, url.port_u16().unwrap_or(80), url.path().trim_end_matches('/').to_owned())
    };
    match config.replay.targets.iter().find(|target| place(&target.url) == place(&baseline.url)) {
        Some(candidate) => {
            let source = source(raw.replay.baseline.as_ref().map(|raw| &raw.url));
            let (url, candidate) = (baseline.url.to_string(), candidate.name.clone());
            Err(wrong("replay.baseline.url", source, Problem::BaselineIsCandidate { url, candidate }))
        }
        None => Ok(()),
    }
}

fn unsafe_methods(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let is_safe = |name: &str| Method::from_bytes(name.as_bytes()).is_ok_and(|method| method.is_safe());
    let Some(method) = config.select.methods.iter().find(|method| !is_safe(method)) else { return Ok(()) };
    let Some((_, target, ..)) = targets(config, raw).find(|(_, target, ..)| !target.isolated) else {
        return Ok(());
    };
    let source = source(raw.select.methods.iter().flatten().find(|text| text.text == *method));
    let problem = Problem::UnsafeMethod { method: method.clone(), target: target.name.clone() };
    Err(wrong("select.methods", source, problem))
}

/// Half of the total is for what is being rebuilt, and each shard gets its share of that half.
fn buffers(config: &Config, raw: &Raw) -> Result<(), ConfigError> {
    let limits = &config.limits;
    let shares = 2 * usize::from(config.capture.shards.unwrap_or(AUTO_SHARDS));
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
    let shards = capture.shards.unwrap_or(AUTO_SHARDS);
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
    if let Some(path) = &admin.token_file {
        let source = source(raw.admin.token_file.as_ref());
        return token(path).map_err(|problem| wrong("admin.token_file", source, problem));
    }
    match admin.listen {
        Some(address) if !address.ip().to_canonical().is_loopback() => {
            let source = source(raw.admin.listen.as_ref());
            Err(wrong("admin.listen", source, Problem::NoToken(address.to_string())))
        }
        _ => Ok(()),
    }
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
    fn targets_on_captured_ports_are_left_out_and_others_are_not() {
        let mut config = Config::default();
        let target = |name: &str, url: &str| Target {
            name: name.to_owned(),
            url: url.parse().unwrap(),
            ..Target::default()
        };
        config.capture.ports = vec![(80, 80), (9000, 9010)];
        config.capture.server.exclude = vec!["10.9.0.0/16".parse().unwrap()];
        config.replay.targets =
            vec![target("a", "http://10.0.0.9:9005"), target("b", "http://10.0.0.8:9011")];
        config.replay.baseline = Some(target("c", "http://[fd00::1]"));
        let left_out = leave_targets_out(&mut config);
        let expected = [("a".to_owned(), "10.0.0.9:9005"), ("c".to_owned(), "[fd00::1]:80")];
        assert_eq!(left_out, expected.map(|(name, address)| (name, address.parse().unwrap())));
        let excluded = ["10.9.0.0/16", "10.0.0.9/32", "fd00::1/128"].map(|net| net.parse().unwrap());
        assert_eq!(config.capture.server.exclude, excluded);
    }
}
