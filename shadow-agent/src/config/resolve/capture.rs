//! Resolves `capture`.

use globset::Glob;
use ipnet::IpNet;
use shadow_ebpf::abi;

use super::super::file;
use super::super::{Capture, ConfigError, Mode, NetNs, Networks, Polarity, Problem, Side, XdpMode, units};
use super::{list, read, show, size, within};

/// The longest name of a network interface (`IFNAMSIZ` less its end).
const MAX_INTERFACE_NAME: usize = 15;
const MAX_INTERFACES: usize = 64;
const MAX_PORT_RANGES: usize = 256;
/// Entries of each list of networks; four lists fill the kernel's map.
const MAX_NETWORKS: usize = abi::MAX_NETWORKS as usize / 4;
const MAX_SHARDS: u64 = abi::MAX_SHARDS as u64;
/// The least budget: below it, a single large packet would take more than its share of a second.
const MIN_BUDGET: u64 = 64 << 10;
const RING_SIZE: std::ops::RangeInclusive<u64> = 256 << 10..=1 << 30;

pub(super) fn capture(raw: &file::Capture) -> Result<Capture, ConfigError> {
    let default = Capture::default();
    let interfaces = raw.interfaces.as_deref().unwrap_or_default();
    let ports = raw.ports.as_deref().unwrap_or_default();
    let number =
        |text: &str| within(text, units::number(text)?, 0..=u64::from(u32::MAX), show).map(|n| n as u32);
    Ok(Capture {
        interfaces: list("capture.interfaces", interfaces, MAX_INTERFACES, interface)?,
        netns: read("capture.netns", raw.netns.as_ref(), None, |text| netns(text).map(Some))?,
        mode: mode(raw)?,
        ports: list("capture.ports", ports, MAX_PORT_RANGES, units::ports)?,
        side: read("capture.side", raw.side.as_ref(), default.side, side)?,
        polarity: read("capture.polarity", raw.polarity.as_ref(), default.polarity, polarity)?,
        server: networks("capture.cidrs.server", &raw.cidrs.server)?,
        client: networks("capture.cidrs.client", &raw.cidrs.client)?,
        seed: read("capture.seed", raw.seed.as_ref(), default.seed, number)?,
        mark: read("capture.mark", raw.mark.as_ref(), default.mark, number)?,
        sample: read("capture.sample", raw.sample.as_ref(), default.sample, units::share)?,
        budget: read("capture.budget", raw.budget.as_ref(), None, budget)?,
        ring_size: read("capture.rings.size", raw.rings.size.as_ref(), default.ring_size, size(RING_SIZE))?,
        shards: read("capture.rings.shards", raw.rings.shards.as_ref(), None, shards)?,
        kernel_log: read("capture.kernel_log", raw.kernel_log.as_ref(), default.kernel_log, units::boolean)?,
    })
}

fn interface(text: &str) -> Result<String, Problem> {
    let is_glob = text.contains(['*', '?', '[', '{']);
    if text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
        || (!is_glob && text.len() > MAX_INTERFACE_NAME)
    {
        return Err(Problem::Interface(text.to_owned()));
    }
    match Glob::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Problem::Glob { value: text.to_owned(), problem: error.kind().to_string() }),
    }
}

/// The mode, with where XDP programs run; that is left aside where `--mode tc` overrides the file.
fn mode(raw: &file::Capture) -> Result<Mode, ConfigError> {
    let xdp = read("capture.xdp", raw.xdp.as_ref(), XdpMode::Generic, |text| match text {
        "generic" => Ok(XdpMode::Generic),
        "native" => Ok(XdpMode::Native),
        _ => Err(Problem::Choice { value: text.to_owned(), possible: "generic or native" }),
    })?;
    read("capture.mode", raw.mode.as_ref(), Mode::Tc, |text| match text {
        "tc" => Ok(Mode::Tc),
        "xdp" => Ok(Mode::Xdp(xdp)),
        _ => Err(Problem::Choice { value: text.to_owned(), possible: "tc or xdp" }),
    })
}

fn netns(text: &str) -> Result<NetNs, Problem> {
    let refused = || Problem::NetNs(text.to_owned());
    match text.strip_prefix("pid:") {
        Some(pid) => pid.parse().ok().filter(|pid| *pid > 0).map(NetNs::Pid).ok_or_else(refused),
        None if matches!(text, "." | "..") || text.contains(|c: char| c == '/' || c.is_control()) => {
            Err(refused())
        }
        None => Ok(NetNs::Name(text.to_owned())),
    }
}

/// Bytes per second: a size followed by `/s`, or `unlimited`.
fn budget(text: &str) -> Result<Option<u64>, Problem> {
    match units::byte_rate(text)? {
        Some(bytes) if bytes < MIN_BUDGET => Err(Problem::Budget(text.to_owned())),
        budget => Ok(budget),
    }
}

fn side(text: &str) -> Result<Side, Problem> {
    match text {
        "server" => Ok(Side::Server),
        "client" => Ok(Side::Client),
        "both" => Ok(Side::Both),
        _ => Err(Problem::Choice { value: text.to_owned(), possible: "server, client or both" }),
    }
}

fn polarity(text: &str) -> Result<Polarity, Problem> {
    match text {
        "auto" => Ok(Polarity::Auto),
        "ingress" => Ok(Polarity::Ingress),
        "egress" => Ok(Polarity::Egress),
        _ => Err(Problem::Choice { value: text.to_owned(), possible: "auto, ingress or egress" }),
    }
}

fn shards(text: &str) -> Result<Option<u16>, Problem> {
    if text == "auto" {
        return Ok(None);
    }
    let number = units::number(text)
        .map_err(|_| Problem::Choice { value: text.to_owned(), possible: "auto or a number" })?;
    within(text, number, 1..=MAX_SHARDS, show).map(|n| Some(n as u16))
}

fn networks(key: &str, raw: &file::Networks) -> Result<Networks, ConfigError> {
    let entries = |key: String, texts: &Option<Vec<file::Text>>| {
        list(&key, texts.as_deref().unwrap_or_default(), MAX_NETWORKS, network)
    };
    Ok(Networks {
        include: entries(format!("{key}.include"), &raw.include)?,
        exclude: entries(format!("{key}.exclude"), &raw.exclude)?,
    })
}

/// A network, or a single address; bits beyond the prefix are cleared.
fn network(text: &str) -> Result<IpNet, Problem> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map(|network| network.trunc())
        .map_err(|_| Problem::Network(text.to_owned()))
}
