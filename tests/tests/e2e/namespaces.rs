//! Interfaces of another network namespace than the agent's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::netns::{self, Namespace};
use shadow_tests::process::wait_until;
use shadow_tests::servers::{Shop, program};

use super::interfaces::{TIMEOUT, ask, balanced, interfaces, shop};

/// A configuration that captures on `device` in another network namespace.
fn configuration(bed: &Bed, netns: &str, device: &str) -> Result<String> {
    let text = format!(
        "capture: {{ interfaces: [{device}], netns: \"{netns}\", ports: [{PORT}] }}\n\
         replay: {{ targets: [ {{ name: candidate, url: \"{}\" }} ] }}\n",
        bed.candidate_url()
    );
    let file = bed.folder().join("shadow-agent.yaml");
    fs::write(&file, text)?;
    Ok(file.display().to_string())
}

/// The agent lives in the shadows' namespace and captures in production's.
fn check_namespace(netns: impl Fn(&Bed, &Shop) -> String) -> Result<()> {
    let bed = Bed::new()?;
    let production = shop(&bed.production, bed.folder(), "production", PORT)?;
    let candidate = shop(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT)?;
    let file = configuration(&bed, &netns(&bed, &production), "front")?;
    let doctor = || {
        let mut command = bed.shadow.command(program("shadow-agent")?);
        let output = command.args(["doctor", "--config", &file]).output()?;
        anyhow::Ok(String::from_utf8(output.stdout)?)
    };
    let mut agent = Agent::in_namespace(&bed.shadow, bed.folder(), &["--config", &file])?;
    ask(&bed.client, bed.production_address(), 5)?;
    let metrics = agent.settle(5)?;
    balanced(&metrics)?;
    ensure!(candidate.requests()?.len() == 5);
    let said = doctor()?;
    ensure!(said.contains("interface front") && said.contains("shadow_"), "doctor said:\n{said}");
    agent.finish()?;
    let said = doctor()?;
    ensure!(
        said.contains("interface front") && !said.contains("shadow_"),
        "after the end, doctor said:\n{said}"
    );
    Ok(())
}

#[test]
fn interfaces_of_a_named_namespace() -> Result<()> {
    check_namespace(|bed, _| bed.production.name().to_owned())
}

#[test]
fn interfaces_of_the_namespace_of_a_process() -> Result<()> {
    check_namespace(|_, production| format!("pid:{}", production.process.id()))
}

#[test]
fn a_namespace_that_is_not_there_is_refused() -> Result<()> {
    let bed = Bed::new()?;
    let check = |netns: &str, capabilities: &[&str], code: i32, message: &str| {
        let file = configuration(&bed, netns, "front")?;
        let mut command = bed.production.command("setpriv");
        command.args(capabilities).arg(program("shadow-agent")?).args(["run", "--config", &file]);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code) && said.contains(message), "{}:\n{said}", output.status);
        anyhow::Ok(())
    };
    check("no-such-namespace", &[], 2, "capture.netns is `no-such-namespace`, and there is no")?;
    check("pid:4194999", &[], 2, "capture.netns is `pid:4194999`, and no such process is running here")?;
    let without = ["--bounding-set", "-sys_admin,-sys_ptrace", "--inh-caps", "-all"];
    check(bed.production.name(), &without, 4, "needs CAP_SYS_ADMIN too; run as root, or grant")
}

#[test]
fn a_namespace_that_ends_is_left_and_entered_again() -> Result<()> {
    let bed = Bed::new()?;
    let _candidate = shop(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT)?;
    let short = Namespace::new("short")?;
    let name = short.name().to_owned();
    netns::join((&short, "eth0", &["10.79.1.1/24"]), (&bed.client, "short0", &["10.79.1.2/24"]))?;
    let file = configuration(&bed, &name, "eth0")?;
    let mut agent = Agent::in_namespace(&bed.shadow, bed.folder(), &["--config", &file])?;
    drop(short);
    // The pair ends with the namespace, and that with the last one who is in it.
    wait_until("the namespace to end", TIMEOUT, || {
        let gone = bed.client.run(|| Ok(!Path::new("/proc/sys/net/ipv4/conf/short0").exists()))?;
        ensure!(gone, "short0 is still there; the agent said:\n{}", agent.process.log());
        Ok(())
    })?;
    ensure!(agent.ask("GET", "/readyz", "")?.status == 503);
    let again = Again::new(&name)?;
    for words in
        ["link add eth0 type veth peer name peer0", "address add 10.79.1.1/24 dev eth0", "link set eth0 up"]
    {
        again.ip(words)?;
    }
    wait_until("the namespace to be entered again", TIMEOUT, || {
        agent.process.check_running()?;
        ensure!(interfaces(&agent)?.len() == 1, "the agent said:\n{}", agent.process.log());
        Ok(())
    })?;
    ensure!(agent.ask("GET", "/readyz", "")?.status == 200);
    agent.finish().map(drop)
}

#[test]
fn the_namespace_of_a_process_that_ends_is_let_go_of_without_complaint() -> Result<()> {
    let bed = Bed::new()?;
    let _candidate = shop(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT)?;
    let mut process = bed.production.command("sleep").arg("600").spawn()?;
    let file = configuration(&bed, &format!("pid:{}", process.id()), FRONT)?;
    let started = Agent::in_namespace(&bed.shadow, bed.folder(), &["--config", &file]);
    process.kill()?;
    process.wait()?;
    let mut agent = started?;
    wait_until("the namespace to be left", TIMEOUT, || {
        agent.process.check_running()?;
        ensure!(agent.ask("GET", "/readyz", "")?.status == 503);
        Ok(())
    })?;
    agent.finish()?;
    let said = agent.process.log();
    ensure!(said.contains("the process is gone") && said.matches(" WARN ").count() == 1, "{said}");
    Ok(())
}

/// A namespace of a given name, removed with its value.
struct Again(String);

impl Again {
    fn new(name: &str) -> Result<Again> {
        let again = Again(name.to_owned());
        ensure!(Command::new("ip").args(["netns", "add", name]).status()?.success());
        Ok(again)
    }

    fn ip(&self, words: &str) -> Result<()> {
        let status = Command::new("ip").args(["-n", &self.0]).args(words.split(' ')).status()?;
        ensure!(status.success(), "ip {words}");
        Ok(())
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}
