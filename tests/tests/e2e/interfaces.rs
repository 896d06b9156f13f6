//! Interfaces: workloads behind a bridge, devices that come and go, and layer 3.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::client::Connection;
use shadow_tests::metrics::Scrape;
use shadow_tests::netns::{self, Namespace};
use shadow_tests::process::{Process, wait_until};
use shadow_tests::servers::Shop;
use shadow_tests::service::Version;

pub(super) const TIMEOUT: Duration = Duration::from_secs(20);
const WORKLOAD: ([u8; 4], u16) = ([10, 78, 1, 2], PORT);

/// A workload behind a bridge of the production host:
///
/// ```text
/// client eth0 ── front production br0 ─ pod0 ── eth0 workload
/// ```
struct Pod {
    namespace: Namespace,
}

impl Pod {
    fn new(bed: &Bed) -> Result<Pod> {
        let pod = Pod { namespace: Namespace::new("workload")? };
        bed.production.run(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        for words in ["link add br0 type bridge", "address add 10.78.1.1/24 dev br0", "link set br0 up"] {
            bed.production.ip(&words.split(' ').collect::<Vec<_>>())?;
        }
        bed.client.ip(&["route", "add", "10.78.1.0/24", "via", "10.77.1.1"])?;
        pod.connect(bed)?;
        Ok(pod)
    }

    /// Gives the workload its device. It goes when production's end is deleted.
    fn connect(&self, bed: &Bed) -> Result<()> {
        netns::join((&bed.production, "pod0", &[]), (&self.namespace, "eth0", &["10.78.1.2/24"]))?;
        bed.production.ip(&["link", "set", "pod0", "master", "br0"])?;
        self.namespace.ip(&["route", "add", "default", "via", "10.78.1.1"])
    }
}

pub(super) fn shop(namespace: &Namespace, folder: &Path, name: &str, port: u16) -> Result<Shop> {
    Shop::start(namespace, folder, name, Version::Production, port)
}

/// Asks for `count` products on one connection.
pub(super) fn ask(client: &Namespace, address: impl Into<SocketAddr>, count: u64) -> Result<()> {
    let address = address.into();
    client.run(|| {
        let mut connection = Connection::open(address)?;
        for number in 0..count {
            let reply = connection.get(&format!("/products/{number}"))?;
            ensure!(reply.status == 200, "{} from {address}", reply.status);
        }
        Ok(())
    })
}

pub(super) fn balanced(metrics: &Scrape) -> Result<()> {
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
    Ok(())
}

/// The names of the interfaces that the agent's status tells, each with how it is attached to.
pub(super) fn interfaces(agent: &Agent<'_>) -> Result<Vec<String>> {
    let status: serde_json::Value = serde_json::from_slice(&agent.ask("GET", "/api/v1/status", "")?.body)?;
    let listed = status.get("interfaces").and_then(|list| list.as_array()).context("no interfaces")?;
    let one = |interface: &serde_json::Value| -> Option<String> {
        let text = |key| interface.get(key).and_then(serde_json::Value::as_str);
        Some(format!("{}:{}", text("name")?, text("attachment")?))
    };
    listed.iter().map(|interface| one(interface).context("an interface without name")).collect()
}

/// Captures one flow on two devices: each exchange is counted, replayed and compared once.
fn check_twice(devices: [&str; 2], warning: &str) -> Result<()> {
    const COUNT: u64 = 20;
    let bed = Bed::new()?;
    let pod = Pod::new(&bed)?;
    let _production = shop(&pod.namespace, bed.folder(), "production", PORT)?;
    let candidate = shop(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT)?;
    let (port, shadow) = (PORT.to_string(), bed.candidate_url());
    let [first, second] = devices;
    let arguments = ["--interface", first, "--interface", second, "--port", &port, "--shadow", &shadow];
    let mut agent = Agent::with_arguments(&bed, &arguments)?;
    ensure!(agent.process.log().contains(warning), "no warning; it said:\n{}", agent.process.log());
    let mut attached = interfaces(&agent)?;
    attached.sort();
    ensure!(
        attached.len() == 2
            && attached.iter().zip([first, second]).all(|(a, b)| a.starts_with(&format!("{b}:"))),
        "{attached:?}"
    );
    ask(&bed.client, WORKLOAD, COUNT)?;
    let metrics = agent.settle(COUNT)?;
    let selected = metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
    let seen = metrics.count("shadow_exchanges_total", &[]);
    ensure!((seen, selected) == (COUNT, COUNT), "{seen} seen, {selected} selected");
    let duplicates = metrics.count("shadow_capture_duplicate_segments_total", &[]);
    // A request and a response each, at least.
    ensure!(duplicates >= 2 * COUNT, "{duplicates} duplicate segments");
    ensure!(metrics.count("shadow_capture_interfaces", &[]) == 2);
    balanced(&metrics)?;
    ensure!(candidate.requests()?.len() as u64 == COUNT, "{} replayed", candidate.requests()?.len());
    agent.finish().map(drop)
}

#[test]
fn a_bridge_and_its_port_give_each_exchange_once() -> Result<()> {
    check_twice(["br0", "pod0"], "what passes pod0 passes br0 too")
}

#[test]
fn a_card_and_the_device_of_a_workload_give_each_exchange_once() -> Result<()> {
    check_twice(["front", "pod0"], "front is this host's own and pod0 leads to a workload")
}

#[test]
fn an_interface_that_goes_is_captured_from_when_it_is_back() -> Result<()> {
    let bed = Bed::new()?;
    let pod = Pod::new(&bed)?;
    let _production = shop(&pod.namespace, bed.folder(), "production", PORT)?;
    let candidate = shop(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT)?;
    let (port, shadow) = (PORT.to_string(), bed.candidate_url());
    let mut agent =
        Agent::with_arguments(&bed, &["--interface", "pod0", "--port", &port, "--shadow", &shadow])?;
    ask(&bed.client, WORKLOAD, 3)?;
    agent.settle(3)?;

    bed.production.ip(&["link", "del", "pod0"])?;
    wait_until("/readyz to say no", TIMEOUT, || {
        let reply = agent.ask("GET", "/readyz", "")?;
        let said = reply.text();
        ensure!(reply.status == 503 && said.contains("an interface that matches pod0"), "{said}");
        Ok(())
    })?;
    ensure!(interfaces(&agent)?.is_empty() && agent.metrics()?.count("shadow_capture_interfaces", &[]) == 0);

    // Devices that match none of the names, and some that are gone before anything can be attached to them.
    for number in 0..50 {
        let name = format!("pod{}", number % 2);
        bed.production.ip(&["link", "add", &name, "type", "veth", "peer", "name", "other"])?;
        bed.production.ip(&["link", "del", &name])?;
    }
    pod.connect(&bed)?;
    wait_until("/readyz to say yes again", TIMEOUT, || {
        agent.process.check_running()?;
        let reply = agent.ask("GET", "/readyz", "")?;
        ensure!(reply.status == 200, "{}", reply.text());
        Ok(())
    })?;
    // What was attached to last may be one of those that went at once.
    wait_until("capture to go on", TIMEOUT, || {
        ask(&bed.client, WORKLOAD, 1)?;
        match agent.metrics()?.count("shadow_exchanges_total", &[("outcome", "selected")]) {
            selected if selected > 3 => Ok(()),
            selected => bail!("{selected} selected; the agent said:\n{}", agent.process.log()),
        }
    })?;
    let metrics = agent.settle(4)?;
    balanced(&metrics)?;
    ensure!(candidate.requests()?.len() > 3);
    let log = agent.process.log();
    ensure!(log.contains("interface pod0, which capture.interfaces names, is missing"), "it said:\n{log}");
    agent.finish().map(drop)
}

#[test]
fn the_device_of_a_workload_that_comes_later_draws_the_warning_too() -> Result<()> {
    let bed = Bed::new()?;
    let _candidate = shop(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT)?;
    let mut agent = Agent::start(&bed, &["--interface", "pod*"])?;
    let warning = "front is this host's own and pod0 leads to a workload";
    let early = agent.process.log();
    ensure!(
        early.contains("no interface matches `pod*` yet") && !early.contains(warning),
        "it said:\n{early}"
    );
    let _pod = Pod::new(&bed)?;
    wait_until("the warning", TIMEOUT, || {
        let log = agent.process.log();
        ensure!(log.contains(warning), "it said:\n{log}");
        Ok(())
    })?;
    wait_until("both interfaces", TIMEOUT, || {
        let attached = interfaces(&agent)?;
        ensure!(attached.len() == 2, "{attached:?}");
        Ok(())
    })?;
    agent.finish().map(drop)
}

/// Carries packets between two tun devices, one in the namespace that it is started in and one in another.
const CARRIER: &str = r#"
import ctypes, fcntl, os, select, struct, sys
def tun():
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
    return device
here = tun()
with open("/run/netns/" + sys.argv[1]) as namespace:
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000):
        sys.exit("setns: %d" % ctypes.get_errno())
there = tun()
print("carrying", flush=True)
while True:
    for device in select.select([here, there], [], [])[0]:
        packet = os.read(device, 65536)
        try:
            os.write(there if device == here else here, packet)
        except OSError:
            pass
"#;

#[test]
fn a_device_of_layer_3() -> Result<()> {
    let bed = Bed::new()?;
    for (namespace, address) in [(&bed.production, "10.80.1.1/24"), (&bed.client, "10.80.1.2/24")] {
        namespace.ip(&["tuntap", "add", "dev", "tun0", "mode", "tun"])?;
        namespace.ip(&["address", "add", address, "dev", "tun0"])?;
        namespace.ip(&["link", "set", "tun0", "up"])?;
    }
    let mut command = bed.production.command("python3");
    let mut carrier = Process::start(
        "carrier",
        command.args(["-c", CARRIER, bed.client.name()]),
        &bed.folder().join("carrier.log"),
    )?;
    wait_until("the tunnel", TIMEOUT, || {
        carrier.check_running()?;
        ensure!(carrier.log().contains("carrying"), "{}", carrier.log());
        Ok(())
    })?;
    let _production = shop(&bed.production, bed.folder(), "production", PORT)?;
    let candidate = shop(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT)?;
    let (port, shadow) = (PORT.to_string(), bed.candidate_url());
    let mut agent =
        Agent::with_arguments(&bed, &["--interface", "tun0", "--port", &port, "--shadow", &shadow])?;
    ask(&bed.client, ([10, 80, 1, 1], PORT), 5)?;
    let metrics = agent.settle(5)?;
    balanced(&metrics)?;
    ensure!(candidate.requests()?.len() == 5);
    agent.finish().map(drop)
}

#[test]
fn a_name_that_is_missing_at_the_start_is_refused() -> Result<()> {
    let bed = Bed::new()?;
    let check = |interfaces: &[&str], message: &str| {
        let mut command = agent::command(&bed, &["run", "--port", "80", "--shadow", "http://10.77.2.2:81"])?;
        let output = command.args(interfaces.iter().flat_map(|name| ["--interface", name])).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && said.contains(message), "{}:\n{said}", output.status);
        anyhow::Ok(())
    };
    check(&["front", "eth7"], "there is no interface `eth7` here")?;
    check(&["cali*"], "no interface matches `cali*`")
}
