//! The agent as a program: started on production's interface, asked over its HTTP API, ended by a signal.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::bed::{Bed, FRONT, PORT};
use crate::client::{self, Connection, Reply};
use crate::metrics::Scrape;
use crate::netns::Namespace;
use crate::process::{Process, wait_until};
use crate::report::Report;
use crate::servers::program;

/// Where the agent's HTTP API listens, in the agent's own namespace.
pub const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 9465);

const READY: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(20);

/// A running agent.
#[derive(Debug)]
pub struct Agent<'a> {
    /// The process.
    pub process: Process,
    home: &'a Namespace,
    report: PathBuf,
}

/// The command of an agent in production's namespace, with these arguments.
///
/// # Errors
/// When the agent is not built.
pub fn command(bed: &Bed, arguments: &[&str]) -> Result<Command> {
    command_in(&bed.production, arguments)
}

fn command_in(home: &Namespace, arguments: &[&str]) -> Result<Command> {
    let mut command = home.command(program("shadow-agent")?);
    command.args(arguments).env_remove("RUST_LOG");
    Ok(command)
}

/// Sends a request to the HTTP API of the agent in that namespace.
///
/// # Errors
/// When it does not answer.
pub fn ask(home: &Namespace, method: &str, target: &str, body: &str) -> Result<Reply> {
    let address = SocketAddr::from(ADMIN);
    let host = address.to_string();
    // The API checks Host; our client names another one by default.
    let text = String::from_utf8(client::request(
        method,
        target,
        &[("Content-Type", "application/json"), ("Connection", "close")],
        body.as_bytes(),
    ))?
    .replacen("shop.example", &host, 1);
    home.run(|| Connection::open(address)?.exchange(text.as_bytes()))
}

impl<'a> Agent<'a> {
    /// Starts `shadow-agent run` on production's interface and port with the candidate as its shadow, and waits until
    /// it is ready.
    ///
    /// # Errors
    /// When it does not become ready; what it printed is in the error.
    pub fn start(bed: &'a Bed, arguments: &[&str]) -> Result<Agent<'a>> {
        let shadow = bed.candidate_url();
        let port = PORT.to_string();
        let base = ["--interface", FRONT, "--port", &port, "--shadow", &shadow];
        Agent::with_arguments(bed, &[&base, arguments].concat())
    }

    /// Starts `shadow-agent run` with these arguments, its HTTP API and a report, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; what it printed is in the error.
    pub fn with_arguments(bed: &'a Bed, arguments: &[&str]) -> Result<Agent<'a>> {
        Agent::in_namespace(&bed.production, bed.folder(), arguments)
    }

    /// As [`Agent::with_arguments`], in a namespace of choice, with its files in `folder`.
    ///
    /// # Errors
    /// When it does not become ready; what it printed is in the error.
    pub fn in_namespace(home: &'a Namespace, folder: &Path, arguments: &[&str]) -> Result<Agent<'a>> {
        Agent::launch(home, folder, command_in(home, &["run"])?, folder.join("report.json"), arguments)
    }

    /// As [`Agent::start`], by way of another program (such as setpriv(1)) that is given the agent's command line behind
    /// its own; `agent` is the agent's program, and `report` the file of its report.
    ///
    /// # Errors
    /// When it does not become ready; what it printed is in the error.
    pub fn by_way_of(
        bed: &'a Bed,
        way: &[&str],
        agent: &Path,
        report: PathBuf,
        arguments: &[&str],
    ) -> Result<Agent<'a>> {
        let (program, rest) = way.split_first().context("no program to start the agent with")?;
        let mut command = bed.production.command(program);
        command.args(rest).arg(agent).arg("run").env_remove("RUST_LOG");
        Agent::launch(&bed.production, bed.folder(), command, report, arguments)
    }

    fn launch(
        home: &'a Namespace,
        folder: &Path,
        mut command: Command,
        report: PathBuf,
        arguments: &[&str],
    ) -> Result<Agent<'a>> {
        command
            .args(["--admin", &SocketAddr::from(ADMIN).to_string(), "--report"])
            .arg(&report)
            .args(arguments);
        let process = Process::start("shadow-agent", &mut command, &folder.join("agent.log"))?;
        let mut agent = Agent { process, home, report };
        wait_until("the agent to be ready", READY, || {
            agent.process.check_running()?;
            let reply = agent.ask("GET", "/readyz", "")?;
            ensure!(reply.status == 200, "/readyz: {} {}", reply.status, reply.text());
            Ok(())
        })
        .with_context(|| format!("the agent said:\n{}", agent.process.log()))?;
        Ok(agent)
    }

    /// Sends a request to its HTTP API.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, method: &str, target: &str, body: &str) -> Result<Reply> {
        ask(self.home, method, target, body)
    }

    /// Scrapes its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<Scrape> {
        let reply = self.ask("GET", "/metrics", "")?;
        ensure!(reply.status == 200, "/metrics answered {}", reply.status);
        Ok(Scrape::parse(&reply.text()))
    }

    /// Waits until it has closed the books on at least `exchanges` exchanges and nothing is under way, and returns its
    /// metrics then.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn settle(&mut self, exchanges: u64) -> Result<Scrape> {
        wait_until("every exchange to be closed", SETTLE, || {
            self.process.check_running()?;
            let metrics = self.metrics()?;
            let closed = metrics.count("shadow_exchanges_total", &[]);
            let under_way = metrics.count("shadow_exchanges_in_flight", &[]);
            let selected = metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
            let replays = metrics.count("shadow_replays_total", &[]);
            let all_replayed =
                if selected == 0 { replays == 0 } else { replays > 0 && replays.is_multiple_of(selected) };
            if closed < exchanges || under_way > 0 || !all_replayed {
                bail!(
                    "{closed} of {exchanges} exchanges closed, {under_way} in flight, {replays} replays of {selected} \
                     selected; the agent said:\n{}",
                    self.process.log()
                );
            }
            Ok(metrics)
        })
    }

    /// Ends it with a signal and waits.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.process.signal(signal)?;
        self.process.wait(END)
    }

    /// Ends it as an operator would, and returns its report.
    ///
    /// # Errors
    /// When it does not end with exit code 0 in time, or leaves no report.
    pub fn finish(&mut self) -> Result<Report> {
        let status = self.end(Signal::SIGTERM)?;
        ensure!(status.success(), "the agent ended with {status}; it said:\n{}", self.process.log());
        let text = fs::read_to_string(&self.report).context("reading the agent's report")?;
        Report::parse(&text)
    }

    /// The text of its report, as written so far.
    #[must_use]
    pub fn report_text(&self) -> String {
        fs::read_to_string(&self.report).unwrap_or_default()
    }
}
