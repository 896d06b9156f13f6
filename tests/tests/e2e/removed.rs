//! Programs that somebody else takes off a device: the agent says so, puts them back, and goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::process::wait_until;

use crate::interfaces::{ask, balanced, interfaces, shop};

/// The agent looks every five seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Detaches every BPF link on the device whose index is its argument, as `bpftool link detach` does.
const DETACH: &str = r#"
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(number, command, buffer, len(attributes))
    return result, buffer.raw
link, detached = 0, 0
while True:
    result, attributes = bpf(31, struct.pack("=III", link, 0, 0))
    if result:
        break
    link = struct.unpack("=III", attributes)[1]
    descriptor, _ = bpf(30, struct.pack("=III", link, 0, 0))
    if descriptor < 0:
        continue
    info = ctypes.create_string_buffer(24)
    bpf(15, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
    kind, _, _, _, device, _ = struct.unpack("=IIIIII", info.raw)
    # XDP and TCX
    if kind in (6, 11) and device == int(sys.argv[1]):
        result, _ = bpf(34, struct.pack("=I", descriptor))
        if result:
            sys.exit("detaching: %d" % ctypes.get_errno())
        detached += 1
    os.close(descriptor)
print(detached)
"#;

fn check(mode: &str) -> Result<()> {
    let bed = Bed::new()?;
    let _production = shop(&bed.production, bed.folder(), "production", PORT)?;
    let _candidate = shop(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT)?;
    let mut agent = Agent::start(&bed, &["--mode", mode])?;
    ask(&bed.client, bed.production_address(), 3)?;
    agent.settle(3)?;
    let before = interfaces(&agent)?;

    let index =
        bed.production.run(|| Ok(std::fs::read_to_string(format!("/sys/class/net/{FRONT}/ifindex"))?));
    let output = bed.production.command("python3").args(["-c", DETACH, index?.trim()]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.trim() == "2",
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );

    wait_until("the agent to notice", TIMEOUT, || {
        agent.process.check_running()?;
        let log = agent.process.log();
        let at = log.find("somebody removed the agent's programs").with_context(|| log.clone())?;
        ensure!(
            log.get(at..).is_some_and(|rest| rest.contains("capturing from one more interface")),
            "{log}"
        );
        Ok(())
    })?;
    ensure!(interfaces(&agent)? == before);
    ask(&bed.client, bed.production_address(), 3)?;
    let metrics = agent.settle(6)?;
    balanced(&metrics)?;
    agent.finish().map(drop)
}

#[test]
fn links_at_tcx_are_put_back() -> Result<()> {
    check("tc")
}

#[test]
fn links_at_xdp_are_put_back() -> Result<()> {
    check("xdp")
}
