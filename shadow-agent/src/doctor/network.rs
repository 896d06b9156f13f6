//! Checks interfaces, what is attached to them, and whether the shadows can be reached.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use shadow_ebpf::abi;

use super::Check;
use crate::capture::interfaces::netlink::{self, Link};
use crate::capture::interfaces::netns::{self, NetNsError};
use crate::capture::interfaces::{self, Device, InterfaceError, Layer, Selection, Toward};
use crate::capture::kernel::probe::{self, Owner};
use crate::cli::Exit;
use crate::config::{Config, Mode, Target, check};

/// How long a shadow may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many interfaces are listed when the configuration names none.
const MOST_LISTED: usize = 32;

pub(super) fn interfaces(config: Option<&Config>) -> Vec<Check> {
    let netns = config.and_then(|config| config.capture.netns.as_ref());
    match netns::within(netns, || here(config)) {
        Ok(checks) => checks,
        Err(error) => {
            let (exit, remedy) = match error {
                NetNsError::Privilege { .. } => (Exit::Unsupported, "run doctor as the agent will run"),
                _ => (Exit::Usage, "change capture.netns"),
            };
            vec![Check::problem("network namespace", exit, error.to_string(), remedy)]
        }
    }
}

/// What there is in the network namespace of the calling thread.
fn here(config: Option<&Config>) -> Vec<Check> {
    let name = "interfaces";
    let links = match netlink::links() {
        Ok(links) => links,
        Err(error) => {
            let error = InterfaceError::Netlink(error);
            return vec![Check::problem(
                name,
                Exit::Unsupported,
                error.to_string(),
                "allow AF_NETLINK sockets",
            )];
        }
    };
    let Some(config) = config else {
        let mut checks: Vec<_> = links.iter().filter(|link| link.up).take(MOST_LISTED).map(any).collect();
        let up = links.iter().filter(|link| link.up).count();
        if up > MOST_LISTED {
            checks.push(Check::ok(name, format!("{} more are up", up - MOST_LISTED)));
        }
        return checks;
    };
    match interfaces::select(&config.capture, &links).checked() {
        Ok(selection) => chosen(&selection, &links, config.capture.mode),
        Err(error) => {
            let remedy = "change capture.interfaces or --interface";
            vec![Check::problem(name, Exit::Usage, error.to_string(), remedy)]
        }
    }
}

fn any(link: &Link) -> Check {
    device(link, "up")
}

fn device(link: &Link, what: &str) -> Check {
    let (name, found) = (format!("interface {}", link.name), attached(link));
    let finding = format!("{what}; {}", found.text);
    match (found.running, found.left) {
        (true, _) => Check::warning(
            name,
            finding,
            "a shadow-agent captures here: stop it, or give the two different targets; both would replay every request",
        ),
        (false, true) => Check::warning(
            name,
            finding,
            "a shadow-agent was killed here; what it left does nothing, and the next start removes it",
        ),
        (false, false) => Check::ok(name, finding),
    }
}

fn chosen(selection: &Selection, links: &[Link], mode: Mode) -> Vec<Check> {
    let mut checks: Vec<_> = selection
        .devices
        .iter()
        .filter_map(|device| Some((device, links.iter().find(|link| link.index == device.index)?)))
        .map(|(chosen, link)| {
            let up = if link.up { "up" } else { "down" };
            let check = device(link, &format!("{up}, {}", describe(chosen)));
            let taken = mode != Mode::Tc && link.xdp.is_some() && probe::takes_xdp(chosen);
            if taken { occupied(check) } else { check }
        })
        .collect();
    let warnings = selection.warnings.iter();
    checks.extend(warnings.map(|warning| {
        Check::warning("interfaces", warning.to_string(), "see capture.interfaces and capture.polarity")
    }));
    checks
}

/// What mode xdp makes of a device that has an XDP program.
fn occupied(check: Check) -> Check {
    let remedy = "a device takes one XDP program: set capture.mode to tc, or have its owner take it off";
    Check::problem(check.name, Exit::Failure, check.finding, remedy)
}

fn describe(device: &Device) -> String {
    let layer = match device.layer {
        Layer::Ethernet => "Ethernet",
        Layer::Ip => "bare IP",
    };
    let toward = match device.toward_server {
        Toward::Ingress => "ingress leads to the server",
        Toward::Egress => "egress leads to the server",
        Toward::Both => "both directions pass either hook",
    };
    format!("{layer}, {toward}")
}

/// What is attached to a device already.
struct Found {
    text: String,
    /// Whether something of it belongs to an agent that runs.
    running: bool,
    /// Whether something of it was left by an agent that was killed.
    left: bool,
}

/// What other programs and our own have attached already.
fn attached(link: &Link) -> Found {
    let mut found: Vec<String> = Vec::new();
    let mut unknown = Vec::new();
    let (mut running, mut left) = (false, false);
    match probe::tcx_programs(&link.name) {
        Ok(programs) => found.extend(programs.into_iter().map(|(hook, name)| {
            // The kernel takes a TCX link off with its process.
            running |= abi::PROGRAMS.contains(&name.as_str());
            format!("TCX {hook} {name}")
        })),
        // Without TCX there is nothing attached by it.
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {}
        Err(error) => unknown.push(format!("TCX not known: {error}")),
    }
    match netlink::filters(link.index) {
        Ok(filters) => found.extend(filters.into_iter().map(|filter| {
            let whose = match probe::owner(link.index, &filter) {
                Some(Owner::Running { slot }) => {
                    running = true;
                    format!(" of the agent that runs in slot {slot}")
                }
                Some(Owner::Killed) => {
                    left = true;
                    " left by an agent that was killed".to_owned()
                }
                None => String::new(),
            };
            let name = filter.program.unwrap_or_default();
            format!("tc {} {} {name} (priority {}){whose}", filter.hook, filter.kind, filter.priority)
        })),
        Err(error) => unknown.push(format!("tc not known: {error}")),
    }
    found.extend(link.xdp.map(probe::xdp_program).map(|program| {
        // The kernel takes an XDP link off with its process.
        running |= program.name.as_deref().is_some_and(|name| abi::XDP_PROGRAMS.contains(&name));
        program.to_string()
    }));
    let known = match found.is_empty() {
        true if unknown.is_empty() => "nothing attached".to_owned(),
        true => "nothing found attached".to_owned(),
        false => format!("attached: {}", found.join(", ")),
    };
    Found { text: [vec![known], unknown].concat().join("; "), running, left }
}

pub(super) fn targets(config: &Config) -> Vec<Check> {
    let mut checks: Vec<_> =
        config.replay.targets.iter().chain(&config.replay.baseline).map(reachable).collect();
    let own = interfaces::own_addresses(config.capture.netns.as_ref()).unwrap_or_default();
    if let Err(error) = check::check_loop(config, &own) {
        checks.push(Check::problem(
            "loop",
            Exit::Usage,
            error.to_string(),
            "change replay.targets or --shadow",
        ));
    }
    checks
}

fn reachable(target: &Target) -> Check {
    let name = format!("target {}", target.name);
    let addresses = check::addresses(target);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Check::ok(name, format!("{} accepts connections", target.url)),
            Err(error) => last = error,
        }
    }
    let remedy = "start it, or open the way to it; until then every replay fails, and is counted";
    Check::warning(name, format!("{} cannot be reached: {last}", target.url), remedy)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::Level;
    use super::*;

    #[test]
    fn shadows_are_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target =
            |url: String| Target { name: "c".to_owned(), url: url.parse().unwrap(), ..Target::default() };
        let open = target(format!("http://{address}"));
        assert_eq!(reachable(&open).level, Level::Ok);
        drop(listener);
        assert_eq!(reachable(&open).level, Level::Warning);
        let nameless = reachable(&target("http://nonexistent.invalid".to_owned()));
        assert!(
            nameless.finding.ends_with("cannot be reached: its name has no address"),
            "{}",
            nameless.finding
        );
    }

    #[test]
    fn loopback_is_described() {
        let mut config = Config::default();
        config.capture.interfaces = vec!["lo".to_owned()];
        let checks = interfaces(Some(&config));
        assert_eq!(checks[0].name, "interface lo");
        let finding = &checks[0].finding;
        assert!(finding.contains("Ethernet, both directions pass either hook"), "{finding}");
    }
}
