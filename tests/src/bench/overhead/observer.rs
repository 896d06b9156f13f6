//! Who watches production while it is measured, and what they say they saw. Measures nothing itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::Agent;
use crate::bed::{Bed, FRONT, PORT};
use crate::bench::stages::Stage;
use crate::process::{Process, scheduled, wait_until};

/// A port that nobody uses.
pub(super) const OTHER_PORT: u16 = 8099;

const READY: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(20);

/// What watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Absent,
    /// The agent, configured for another port.
    NoMatch,
    /// The first stages of the agent.
    Stage(Stage),
    /// tcpdump, writing what it copies to nowhere.
    Tcpdump,
    /// The agent, with a shadow on the same machine.
    Replay,
}

/// What an observer saw, as far as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Segments that it copied and handled.
    pub(super) segments: f64,
    /// Segments that it should have copied and did not, or copied and did not handle.
    pub(super) lost: f64,
    /// Exchanges that it rebuilt.
    pub(super) exchanges: f64,
    /// Exchanges that it lost, save those that the load generator cut off.
    pub(super) broken: f64,
}

/// A running observer.
pub(super) enum Observer<'a> {
    Absent,
    Agent(Box<Agent<'a>>),
    Stage(Process),
    Tcpdump(Process),
}

impl<'a> Observer<'a> {
    /// Starts one, and waits until it watches.
    pub(super) fn start(kind: Kind, bed: &'a Bed) -> Result<Observer<'a>> {
        Ok(match kind {
            Kind::Absent => Observer::Absent,
            Kind::NoMatch => Observer::Agent(Box::new(idle_agent(bed)?)),
            Kind::Replay => Observer::Agent(Box::new(Agent::start(bed, &[])?)),
            Kind::Stage(stage) => Observer::Stage(start_stage(stage, bed, PORT)?),
            Kind::Tcpdump => {
                let mut command = bed.production.command("tcpdump");
                command.args(["-i", FRONT, "-w", "/dev/null", "port", &PORT.to_string()]);
                let mut process = Process::start("tcpdump", &mut command, &bed.folder().join("tcpdump.log"))?;
                wait_for(&mut process, "listening on")?;
                Observer::Tcpdump(process)
            }
        })
    }

    /// CPU time used so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let process = match self {
            Observer::Absent => return Ok(Duration::ZERO),
            Observer::Agent(agent) => &agent.process,
            Observer::Stage(process) | Observer::Tcpdump(process) => process,
        };
        scheduled(process.id()).map(|(time, _)| time)
    }

    /// Ends it, and returns what it saw.
    pub(super) fn finish(self) -> Result<Seen> {
        match self {
            Observer::Absent => Ok(Seen::default()),
            Observer::Agent(agent) => finish_agent(*agent),
            Observer::Stage(process) => seen_by_stage(&finish_stage(process)?),
            Observer::Tcpdump(mut process) => {
                process.signal(Signal::SIGINT)?;
                process.wait(END)?;
                seen_by_tcpdump(&process.log())
            }
        }
    }
}

/// An agent that captures a port that nobody uses.
pub(super) fn idle_agent(bed: &Bed) -> Result<Agent<'_>> {
    let (shadow, port) = (bed.candidate_url(), OTHER_PORT.to_string());
    Agent::with_arguments(bed, &["--interface", FRONT, "--port", &port, "--shadow", &shadow])
}

/// Starts the first stages of the agent as a process of their own, and waits until they watch.
pub(super) fn start_stage(stage: Stage, bed: &Bed, port: u16) -> Result<Process> {
    let mut command = bed.production.command(std::env::current_exe()?);
    let name = clap::ValueEnum::to_possible_value(&stage).context("every stage has a name")?;
    command.args(["--stage", name.get_name(), "--interface", FRONT, "--port", &port.to_string()]);
    let mut process = Process::start("stage", &mut command, &bed.folder().join("stage.log"))?;
    wait_for(&mut process, "ready")?;
    Ok(process)
}

/// Ends a stage, and returns what it printed.
pub(super) fn finish_stage(mut process: Process) -> Result<Value> {
    process.signal(Signal::SIGTERM)?;
    let status = process.wait(END)?;
    let said = process.log();
    ensure!(status.success(), "the stage ended with {status}; it said:\n{said}");
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("the stage said:\n{said}"))
}

fn wait_for(process: &mut Process, line: &str) -> Result<()> {
    wait_until(&format!("`{line}`"), READY, || {
        process.check_running()?;
        ensure!(process.log().contains(line), "it said:\n{}", process.log());
        Ok(())
    })
}

fn finish_agent(mut agent: Agent<'_>) -> Result<Seen> {
    let metrics = wait_until("the agent to close its books", END, || {
        let metrics = agent.metrics()?;
        ensure!(metrics.count("shadow_exchanges_in_flight", &[]) == 0, "exchanges are in flight");
        Ok(metrics)
    })?;
    let packets = |result: &str| metrics.count("shadow_capture_packets_total", &[("result", result)]) as f64;
    let exchanges = |outcome: &str| metrics.count("shadow_exchanges_total", &[("outcome", outcome)]) as f64;
    let cut = ["reset", "truncated"]
        .map(|reason| metrics.count("shadow_exchanges_total", &[("outcome", "lost"), ("reason", reason)]));
    let seen = Seen {
        segments: packets("copied"),
        lost: packets("ring_full") + packets("shed") + packets("copy_error"),
        exchanges: exchanges("selected") + exchanges("skipped"),
        broken: exchanges("lost") - cut.iter().sum::<u64>() as f64,
    };
    agent.finish()?;
    Ok(seen)
}

fn seen_by_stage(said: &Value) -> Result<Seen> {
    let number = |place: &str| {
        said.pointer(place).and_then(Value::as_f64).with_context(|| format!("no {place} in {said}"))
    };
    let copied = number("/packets/copied")?;
    let segments = number("/segments")?;
    let lost = number("/packets/ring_full")? + number("/packets/shed")? + number("/packets/copy_error")?;
    let reasons = said.get("lost").and_then(Value::as_object).context("no lost")?;
    let broken = reasons.iter().filter(|(reason, _)| !matches!(reason.as_str(), "reset" | "truncated"));
    Ok(Seen {
        segments,
        // A large packet takes several records, so there may be more segments than packets.
        lost: lost + (copied - segments).max(0.0),
        exchanges: number("/exchanges")?,
        broken: broken.filter_map(|(_, count)| count.as_f64()).sum(),
    })
}

/// Reads the last words of tcpdump, such as `12 packets captured`.
fn seen_by_tcpdump(said: &str) -> Result<Seen> {
    let count = |what: &str| -> Result<f64> {
        let line = said.lines().find_map(|line| line.strip_suffix(what));
        Ok(line.with_context(|| format!("tcpdump said:\n{said}"))?.trim().parse()?)
    };
    let (segments, lost) = (count("packets captured")?, count("packets dropped by kernel")?);
    Ok(Seen { segments, lost, ..Seen::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_tcpdump_dropped_is_read() {
        let said = "tcpdump: listening on front\n12 packets captured\n20 packets received by filter\n\
                    8 packets dropped by kernel\n";
        let expected = Seen { segments: 12.0, lost: 8.0, ..Seen::default() };
        assert_eq!(seen_by_tcpdump(said).unwrap(), expected);
        assert!(seen_by_tcpdump("12 packets captured").is_err());
    }

    #[test]
    fn connections_cut_off_at_the_end_are_no_fault_of_the_observer() {
        let said = json!({
            "segments": 90, "exchanges": 40, "lost": { "truncated": 3, "reset": 2, "gap": 1 },
            "packets": { "copied": 91, "ring_full": 4, "shed": 2, "copy_error": 1 },
        });
        let expected = Seen { segments: 90.0, lost: 8.0, exchanges: 40.0, broken: 1.0 };
        assert_eq!(seen_by_stage(&said).unwrap(), expected);
    }
}
