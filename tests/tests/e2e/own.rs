//! The agent's own traffic on captured devices and ports: never captured, never replayed again, never counted as lost.
//! What others send to the same shadows is captured like anything else.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, PORT};
use shadow_tests::client::Connection;
use shadow_tests::process::pause;
use shadow_tests::servers::{Nginx, Shop, wait_listening};
use shadow_tests::service::{Version, filler};

const CONNECTIONS: usize = 6;
const REQUESTS_EACH: usize = 10;
const REQUESTS: usize = CONNECTIONS * REQUESTS_EACH;
/// Requests that a shadow answers badly or not at all; even.
const DISAPPOINTED: u64 = 6;
/// Longer than it takes until bytes that do not come count as lost.
const AFTERMATH: Duration = Duration::from_secs(4);
/// Longer than it takes from a packet to its exchange.
const QUIET: Duration = Duration::from_millis(500);

/// Where production, its clients and the shadow are.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// What stands under `capture`, besides `mark`.
    capture: &'static str,
    /// Where production listens, in its namespace.
    production: &'static str,
    /// Whether clients are on production's host.
    local: bool,
    /// Where the shadow listens.
    shadow: &'static str,
    host: Host,
    /// Where the agent believes it to be, if that is translated.
    translated: Option<&'static str>,
}

/// Whose host the shadow is on.
#[derive(Clone, Copy)]
enum Host {
    Production,
    Client,
    Shadow,
}

const LOCAL: Case = Case {
    name: "another port",
    capture: "interfaces: [lo], side: client, ports: [\"8080-8081\"]",
    production: "127.0.0.1:8080",
    local: true,
    shadow: "127.0.0.1:8081",
    host: Host::Production,
    translated: None,
};

const REMOTE: Case = Case {
    name: "on the captured interface",
    capture: "interfaces: [front], side: both, ports: [\"8080-8081\"]",
    production: "10.77.1.1:8080",
    local: false,
    shadow: "10.77.1.2:8081",
    host: Host::Client,
    translated: None,
};

#[test]
fn on_the_host_of_production() -> Result<()> {
    check(&[
        LOCAL,
        Case { name: "another address", shadow: "127.0.0.2:8080", ..LOCAL },
        Case { name: "another port, IPv6", production: "[::1]:8080", shadow: "[::1]:8081", ..LOCAL },
        Case { name: "another address, IPv6", production: "[::1]:8080", shadow: "[fd77:1::1]:8080", ..LOCAL },
        Case {
            name: "another address, servers named",
            capture: "interfaces: [lo], ports: [8080], cidrs: { server: { include: [127.0.0.1/32] } }",
            shadow: "127.0.0.2:8080",
            ..LOCAL
        },
    ])
}

#[test]
fn on_a_captured_interface() -> Result<()> {
    check(&[
        REMOTE,
        Case {
            name: "on the captured interface, the clients' side",
            capture: "interfaces: [front, lo], side: client, ports: [8080]",
            production: "127.0.0.1:8080",
            local: true,
            shadow: "10.77.1.2:8080",
            ..REMOTE
        },
        Case {
            name: "on the captured interface, IPv6",
            production: "[fd77:1::1]:8080",
            shadow: "[fd77:1::2]:8081",
            ..REMOTE
        },
        Case {
            name: "ports of ours are captured",
            capture: "interfaces: [front, back], ports: [8080, \"32768-60999\"]",
            shadow: "10.77.2.2:8081",
            host: Host::Shadow,
            ..REMOTE
        },
    ])
}

#[test]
fn behind_an_address_that_is_translated() -> Result<()> {
    check(&[
        Case {
            name: "translated to the host of production",
            capture: "interfaces: [lo], ports: [\"8080-8081\"]",
            production: "10.77.1.1:8080",
            shadow: "10.77.1.1:8081",
            translated: Some("10.99.0.1:80"),
            ..LOCAL
        },
        Case { name: "translated to another host", translated: Some("10.99.0.1:80"), ..REMOTE },
        Case {
            name: "translated to another host, IPv6",
            production: "[fd77:1::1]:8080",
            shadow: "[fd77:1::2]:8081",
            translated: Some("[fd99::1]:8080"),
            ..REMOTE
        },
    ])
}

#[test]
fn what_others_send_to_a_target_is_captured() -> Result<()> {
    let bed = Bed::new()?;
    let setting = Setting::start(&bed, REMOTE, 0)?;
    let mut agent = setting.agent()?;
    setting.send("/file?n=", setting.production)?;
    bed.production.run(|| requests("/file?other=", setting.shadow))?;
    agent.settle(2 * REQUESTS as u64)?;
    setting.check_books(&agent, 2 * REQUESTS as u64)?;
    let received = setting.received()?;
    ensure!(received.len() == 2 * REQUESTS, "{} different requests reached the shadow", received.len());
    for (target, times) in received {
        let expected = if target.contains("other") { 2 } else { 1 };
        ensure!(times == expected, "{target} reached the shadow {times} times instead of {expected}");
    }
    agent.finish().map(drop)
}

#[test]
fn connections_that_we_close_leave_nothing_to_be_counted() -> Result<()> {
    let bed = Bed::new()?;
    let folder = bed.folder();
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let shadow = bed.production.run(|| Ok(TcpListener::bind(LOCAL.shadow)?))?;
    // It outlives the test if that fails, and ends with the process then.
    let disappointing = thread::spawn(move || disappoint(&shadow));
    let config = folder.join("agent.yaml");
    let text = format!("capture: {{ {}, mark: 0 }}\nreplay:\n  timeout: 200ms\n", LOCAL.capture);
    let targets = format!("  targets: [ {{ name: candidate, url: \"http://{}\" }} ]\n", LOCAL.shadow);
    std::fs::write(&config, text + &targets)?;
    let mut agent = Agent::with_arguments(&bed, &["--config", &config.to_string_lossy()])?;
    bed.production.run(|| {
        let mut connection = Connection::open(LOCAL.production.parse()?)?;
        (0..DISAPPOINTED).try_for_each(|number| connection.get(&format!("/catalog?n={number}")).map(drop))
    })?;
    let metrics = agent.settle(DISAPPOINTED)?;
    for reason in ["timeout", "malformed"] {
        let labels = [("outcome", "failed"), ("reason", reason)];
        let failed = metrics.count("shadow_replays_total", &labels);
        ensure!(failed == DISAPPOINTED / 2, "{failed} replays failed by {reason}");
    }
    ensure!(disappointing.join().is_ok_and(|ended| ended.is_ok()), "the shadow failed");
    pause(AFTERMATH)?;
    check_books(&agent, DISAPPOINTED)?;
    agent.finish().map(drop)
}

/// A shadow that answers every other request with what is no HTTP, and the rest not at all; then it waits for the
/// connection to end, and ends it from its side.
fn disappoint(listener: &TcpListener) -> io::Result<()> {
    let answer = |mut stream: TcpStream, silent: bool| {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.extend_from_slice(&byte);
        }
        if !silent {
            stream.write_all(b"nonsense\r\n\r\n")?;
        }
        // How it ends is not for the shadow to judge.
        let _ = stream.read(&mut [0]);
        io::Result::Ok(())
    };
    let mut threads = Vec::new();
    for number in 0..DISAPPOINTED {
        let (stream, _) = listener.accept()?;
        threads.push(thread::spawn(move || answer(stream, number.is_multiple_of(2))));
    }
    threads
        .into_iter()
        .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
}

/// Runs every case without a mark, so that the map alone has to do it, and the first with the mark, too.
fn check(cases: &[Case]) -> Result<()> {
    let marked = cases.first().map(|case| (case, 0x1050));
    for (&case, mark) in cases.iter().map(|case| (case, 0)).chain(marked) {
        run(case, mark).with_context(|| format!("{}, mark {mark:#x}", case.name))?;
    }
    Ok(())
}

fn run(case: Case, mark: u32) -> Result<()> {
    let bed = Bed::new()?;
    let setting = Setting::start(&bed, case, mark)?;
    let mut agent = setting.agent()?;
    setting.send("/file?n=", setting.production)?;
    agent.settle(REQUESTS as u64)?;
    setting.check_books(&agent, REQUESTS as u64)?;
    let received = setting.received()?;
    let repeated = received.values().filter(|&&times| times != 1).count();
    ensure!(received.len() == REQUESTS, "{} of {REQUESTS} requests reached the shadow", received.len());
    ensure!(repeated == 0, "{repeated} requests reached the shadow more than once");
    agent.finish().map(drop)
}

/// Production and a shadow, both nginx with the same file.
struct Setting<'a> {
    bed: &'a Bed,
    case: Case,
    mark: u32,
    production: SocketAddr,
    shadow: SocketAddr,
    _server: Nginx,
    candidate: Nginx,
}

impl<'a> Setting<'a> {
    fn start(bed: &'a Bed, case: Case, mark: u32) -> Result<Setting<'a>> {
        let (production, shadow): (SocketAddr, SocketAddr) = (case.production.parse()?, case.shadow.parse()?);
        std::fs::write(bed.folder().join("file"), filler(1024))?;
        let start = |namespace, name, address: SocketAddr, probed: bool| {
            // The bed asks there whether it is up.
            let local = SocketAddr::from(([127, 0, 0, 1], address.port()));
            let also = if probed || address == local { String::new() } else { format!("listen {local};") };
            let root = bed.folder().display();
            let text = format!("server {{ listen {address}; {also} root {root}; }}");
            let mut server = Nginx::start(namespace, bed.folder(), name, address.port(), &text)?;
            wait_listening(namespace, address, &mut server.process)?;
            anyhow::Ok(server)
        };
        let server = start(&bed.production, "production", production, false)?;
        let namespace = match case.host {
            Host::Production => &bed.production,
            Host::Client => &bed.client,
            Host::Shadow => &bed.shadow,
        };
        let together = matches!(case.host, Host::Production) && shadow.port() == production.port();
        let candidate = start(namespace, "shadow", shadow, together)?;
        if let Some(from) = case.translated {
            translate(bed, from.parse()?, shadow)?;
        }
        Ok(Setting { bed, case, mark, production, shadow, _server: server, candidate })
    }

    fn agent(&self) -> Result<Agent<'a>> {
        let config = self.bed.folder().join("agent.yaml");
        let url = self.case.translated.unwrap_or(self.case.shadow);
        let text = format!(
            "capture: {{ {}, mark: {} }}\nreplay: {{ targets: [ {{ name: candidate, url: \"http://{url}\" }} ] }}\n",
            self.case.capture, self.mark
        );
        std::fs::write(&config, text)?;
        Agent::with_arguments(self.bed, &["--config", &config.to_string_lossy()])
    }

    fn send(&self, prefix: &str, address: SocketAddr) -> Result<()> {
        let namespace = if self.case.local { &self.bed.production } else { &self.bed.client };
        namespace.run(|| requests(prefix, address))
    }

    /// How often each request reached the shadow.
    fn received(&self) -> Result<BTreeMap<String, u32>> {
        let mut times = BTreeMap::new();
        for line in self.candidate.access_log()? {
            *times.entry(line.split(' ').nth(1).unwrap_or_default().to_owned()).or_default() += 1;
        }
        Ok(times)
    }

    fn check_books(&self, agent: &Agent<'_>, seen: u64) -> Result<()> {
        pause(QUIET)?;
        check_books(agent, seen)
    }
}

/// Checks that so many exchanges were seen, each was selected, and that the agent met packets of its own.
fn check_books(agent: &Agent<'_>, seen: u64) -> Result<()> {
    let metrics = agent.metrics()?;
    let exchanges = |labels: &[(&str, &str)]| metrics.count("shadow_exchanges_total", labels);
    let (all, selected) = (exchanges(&[]), exchanges(&[("outcome", "selected")]));
    ensure!(
        all == seen && selected == seen,
        "{all} exchanges seen and {selected} selected instead of {seen}: {:?}; the agent said:\n{}",
        metrics
            .series()
            .filter(|series| series.contains("lost") || series.contains("skipped"))
            .collect::<Vec<_>>(),
        agent.process.log()
    );
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
    let own = metrics.count("shadow_capture_packets_total", &[("result", "own")]);
    ensure!(own > 0, "no packet was recognised as the agent's own, so that nothing was tested");
    Ok(())
}

fn requests(prefix: &str, address: SocketAddr) -> Result<()> {
    for connection in 0..CONNECTIONS {
        let mut open = Connection::open(address)?;
        for number in 0..REQUESTS_EACH {
            let reply = open.get(&format!("{prefix}{}", connection * REQUESTS_EACH + number))?;
            ensure!(reply.status == 200, "{address} answered {}", reply.status);
        }
    }
    Ok(())
}

/// Has connections from production's host to `from` arrive at `to`.
fn translate(bed: &Bed, from: SocketAddr, to: SocketAddr) -> Result<()> {
    let (family, route) = if from.is_ipv4() { ("ip", "-4") } else { ("ip6", "-6") };
    bed.production.ip(&[route, "route", "add", &from.ip().to_string(), "dev", "front"])?;
    let rules = format!(
        "table {family} own {{ chain output {{ type nat hook output priority -100; \
         {family} daddr {} tcp dport {} dnat to {to}; }}; }}",
        from.ip(),
        from.port()
    );
    let output =
        bed.production.command("nft").arg(rules).output().context("running nft (Debian package nftables)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`nft` failed: {}", said.trim());
    Ok(())
}
