//! Programs that somebody else takes off a device: the agent says so, puts them back, and goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::process::wait_until;

use crate::interfaces::{ask, balanced, interfaces, shop};

/// The agent looks every five seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Detaches every BPF link to a device (XDP, TCX) that the process with the given id holds, as `bpftool link detach` does.
const DETACH: &str = r#"
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return libc.syscall(number, command, buffer, len(attributes))
folder = "/proc/%s/fdinfo/" % sys.argv[1]
detached = 0
for name in os.listdir(folder):
    fields = dict(line.split(":", 1) for line in open(folder + name) if ":" in line)
    if "link_id" not in fields:
        continue
    link = bpf(30, struct.pack("=III", int(fields["link_id"]), 0, 0))
    if link < 0 or bpf(34, struct.pack("=I", link)):
        sys.exit("errno %d" % ctypes.get_errno())
    os.close(link)
    detached += 1
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

    let pid = agent.process.id().to_string();
    let output = bed.production.command("python3").args(["-c", DETACH, &pid]).output()?;
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
