//! Checks interfaces, what is attached to them, and whether the shadows can be reached.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use shadow_ebpf::abi;

use super::Check;
use crate::capture::interfaces::netlink::{self, Link};
use crate::capture::interfaces::{self, Device, InterfaceError, Layer, Selection, Toward};
use crate::capture::kernel::probe;
use crate::cli::Exit;
use crate::config::{Config, Target, check};

/// How long a shadow may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many interfaces are listed when the configuration names none.
const MOST_LISTED: usize = 32;

pub(super) fn interfaces(config: Option<&Config>) -> Vec<Check> {
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
    match interfaces::select(&config.capture, &links) {
        Ok(selection) => chosen(&selection, &links),
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
    let (name, attached) = (format!("interface {}", link.name), attached(link));
    let finding = format!("{what}; {attached}");
    match abi::PROGRAMS.iter().any(|program| attached.contains(program)) {
        true => Check::warning(
            name,
            finding,
            "a shadow-agent runs here, or was killed here: stop it, or let the next start sweep up; two would each replay \
             every request",
        ),
        false => Check::ok(name, finding),
    }
}

fn chosen(selection: &Selection, links: &[Link]) -> Vec<Check> {
    let mut checks: Vec<_> = selection
        .devices
        .iter()
        .filter_map(|device| Some((device, links.iter().find(|link| link.index == device.index)?)))
        .map(|(chosen, link)| {
            let up = if link.up { "up" } else { "down" };
            device(link, &format!("{up}, {}", describe(chosen)))
        })
        .collect();
    let warnings = selection.warnings.iter();
    checks.extend(warnings.map(|warning| {
        Check::warning("interfaces", warning.to_string(), "see capture.interfaces and capture.polarity")
    }));
    checks
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

/// What other programs and our own have attached already.
fn attached(link: &Link) -> String {
    let mut found: Vec<String> = Vec::new();
    let mut unknown = Vec::new();
    match probe::tcx_programs(&link.name) {
        Ok(programs) => found.extend(programs.into_iter().map(|(hook, name)| format!("TCX {hook} {name}"))),
        // Without TCX there is nothing attached by it.
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {}
        Err(error) => unknown.push(format!("TCX not known: {error}")),
    }
    match netlink::filters(link.index) {
        Ok(filters) => found.extend(filters.into_iter().map(|filter| {
            let name = filter.program.unwrap_or_default();
            format!("tc {} {} {} (priority {})", filter.hook, filter.kind, name, filter.priority)
        })),
        Err(error) => unknown.push(format!("tc not known: {error}")),
    }
    found.extend(link.xdp.map(|id| format!("XDP id {id}")));
    let known = match found.is_empty() {
        true if unknown.is_empty() => "nothing attached".to_owned(),
        true => "nothing found attached".to_owned(),
        false => format!("attached: {}", found.join(", ")),
    };
    [vec![known], unknown].concat().join("; ")
}

pub(super) fn targets(config: &Config) -> Vec<Check> {
    let mut checks: Vec<_> =
        config.replay.targets.iter().chain(&config.replay.baseline).map(reachable).collect();
    let own = interfaces::own_addresses().unwrap_or_default();
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
