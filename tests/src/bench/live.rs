//! `bench live`: production under a fixed rate, alone, with the agent, and with nginx's own mirror; beside them the
//! floor, a bare client that only sends. All in one run, interleaved.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::median;
use super::table::Table;
use crate::agent::Agent;
use crate::bed::{Bed, CANDIDATE_PORT, PORT};
use crate::client;
use crate::load::{self, Plan};
use crate::process::{Process, cpu_of, pause, wait_until};
use crate::servers::Nginx;
use crate::service::filler;

/// Requests per second.
pub const RATE: u32 = 5000;
const BODY: usize = 1024;
const CONNECTIONS: usize = 64;
const MIRRORING_PORT: u16 = 8090;
const COUNTER_PORT: u16 = 8099;
const WARM_UP: u64 = RATE as u64;
const MIB: f64 = 1024.0 * 1024.0;

/// What one measurement of one variant gave.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    p50: f64,
    p99: f64,
    /// Production's failed requests.
    failed: f64,
    /// Share of requests that the shadow counted.
    delivered: f64,
    /// Share of requests that the agent compared.
    compared: f64,
    /// CPU seconds of whoever sends, in all.
    cpu: f64,
    /// Peak of anonymous memory, in bytes.
    memory: f64,
}

struct Stage<'a> {
    bed: &'a Bed,
    production: &'a Nginx,
    mirroring: &'a Nginx,
    seconds: u32,
    /// How often the shadow was asked what it received, which it counts as well.
    questions: Cell<u64>,
}

type Variant = fn(&Stage<'_>) -> Result<Measured>;

/// Measures everything and returns the table.
///
/// # Errors
/// When a part does not come up, or when interrupted.
pub fn run(repeats: u32, seconds: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    let bed = Bed::new()?;
    std::fs::write(bed.folder().join("file"), filler(BODY))?;
    bed.production.run(many_connections)?;
    let root = bed.folder().display();
    let quiet = "access_log off; default_type application/octet-stream;";
    let plain = format!("server {{ listen {PORT}; {quiet} root {root}; }}");
    let production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &plain)?;
    let mirror = format!(
        "upstream shadow {{ server {}; keepalive 64; }}\n\
         server {{ listen {MIRRORING_PORT}; {quiet} root {root};\n\
         location / {{ mirror /mirror; mirror_request_body off; }}\n\
         location = /mirror {{ internal; proxy_pass http://shadow$request_uri; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }}",
        bed.candidate_address()
    );
    let mirroring = Nginx::start(&bed.production, bed.folder(), "mirroring", MIRRORING_PORT, &mirror)?;
    let counting = format!(
        "server {{ listen {CANDIDATE_PORT}; {quiet} root {root}; }}\n\
         server {{ listen 127.0.0.1:{COUNTER_PORT}; access_log off; location / {{ stub_status; }} }}"
    );
    let _candidate = Nginx::start(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT, &counting)?;
    let stage =
        Stage { bed: &bed, production: &production, mirroring: &mirroring, seconds, questions: Cell::new(0) };

    let mut variants: [(&str, Variant); 4] = [
        ("off", |stage| stage.off()),
        ("agent", |stage| stage.agent()),
        ("mirror", |stage| stage.mirror()),
        ("floor", |stage| stage.floor()),
    ];
    let mut all: [Vec<Measured>; 4] = Default::default();
    for repeat in 1..=repeats {
        // Another one begins each time, so that none always follows the same.
        variants.rotate_left(1);
        all.rotate_left(1);
        for ((name, measure), measured) in variants.iter().zip(&mut all) {
            tell(&format!("{repeat} of {repeats}: {name}, {seconds} s at {RATE} requests/s"));
            measured.push(measure(&stage).with_context(|| format!("measuring {name}"))?);
        }
    }
    let rest = usize::try_from(repeats)? % variants.len();
    all.rotate_right(rest);
    let [off, agent, mirror, floor] = &all;
    table(stage.count(), off, agent, mirror, floor)
}

/// nginx closes the connection of each mirrored request, because it does not read the answer; without more ports and
/// their early reuse it would spend its time looking for a free one.
fn many_connections() -> Result<()> {
    for (setting, value) in [("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
        std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value)
            .with_context(|| format!("setting {setting} in the namespace"))?;
    }
    Ok(())
}

fn table(
    count: u64,
    off: &[Measured],
    agent: &[Measured],
    mirror: &[Measured],
    floor: &[Measured],
) -> Result<Table> {
    let of = |measured: &[Measured], figure: fn(&Measured) -> f64| {
        median(&measured.iter().map(figure).collect::<Vec<_>>()).context("no measurement")
    };
    let against = |measured: &[Measured], figure: fn(&Measured) -> f64| {
        let ratios: Vec<f64> = measured.iter().zip(off).map(|(one, off)| figure(one) / figure(off)).collect();
        median(&ratios).context("no measurement")
    };
    let per_10_000 = |cpu: f64, delivered: f64| cpu / (count as f64 * delivered.max(f64::EPSILON)) * 10_000.0;

    let mut table = Table { name: "live", ..Table::default() };
    for (percentile, figure) in
        [("p50", (|one| one.p50) as fn(&Measured) -> f64), ("p99", (|one| one.p99) as fn(&Measured) -> f64)]
    {
        table.row(&format!("production {percentile}, off"), of(off, figure)?, "us", None);
        for (name, measured) in [("agent", agent), ("nginx mirror", mirror)] {
            let ratio = against(measured, figure)?;
            table.row(
                &format!("production {percentile}, {name}"),
                of(measured, figure)?,
                "us",
                Some(("off", ratio)),
            );
        }
    }
    for (name, measured) in [("off", off), ("agent", agent), ("nginx mirror", mirror)] {
        table.row(&format!("production failed, {name}"), of(measured, |one| one.failed)?, "requests", None);
    }
    let delivered = of(agent, |one| one.delivered)? * 100.0;
    let compared = of(agent, |one| one.compared)? * 100.0;
    let mirrored = of(mirror, |one| one.delivered)?;
    table.row("delivered, agent", delivered, "%", None);
    table.row("delivered, nginx mirror", mirrored * 100.0, "%", None);
    table.row("compared, agent", compared, "%", None);
    let bare = per_10_000(of(floor, |one| one.cpu)?, of(floor, |one| one.delivered)?);
    let cpu = per_10_000(of(agent, |one| one.cpu)?, delivered / 100.0);
    let extra: Vec<f64> =
        mirror.iter().zip(off).map(|(mirror, off)| (mirror.cpu - off.cpu).max(0.0)).collect();
    let nginx = per_10_000(median(&extra).context("no measurement")?, mirrored);
    table.row("CPU per 10,000, bare client", bare, "s", None);
    table.row("CPU per 10,000, agent", cpu, "s", Some(("bare client", cpu / bare)));
    table.row("CPU per 10,000, nginx mirror", nginx, "s", Some(("bare client", nginx / bare)));
    let memory = of(agent, |one| one.memory)? / MIB;
    table.row("RssAnon peak, agent", memory, "MiB", None);

    table.goal("delivered, at least %", delivered, 100.0, true);
    table.goal("compared, at least %", compared, 100.0, true);
    table.goal("CPU per 10,000, at most s", cpu, 0.6, false);
    table.goal("RssAnon, at most MiB", memory, 96.0, false);
    table.goal("production p50 over off, at most", against(agent, |one| one.p50)?, 1.05, false);
    Ok(table)
}

impl Stage<'_> {
    fn count(&self) -> u64 {
        u64::from(RATE) * u64::from(self.seconds)
    }

    fn drive(&self, port: u16, count: u64) -> Result<load::Outcome> {
        let request = |number: u64, bytes: &mut Vec<u8>| {
            // Writing to memory does not fail.
            let _ = write!(bytes, "GET /file?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        };
        let mut address = self.bed.production_address();
        address.set_port(port);
        let plan = Plan { address, rate: RATE, count, connections: CONNECTIONS, request: &request };
        self.bed.client.run(|| load::run(&plan))
    }

    /// Requests that the shadow has received so far, questions like this one left out.
    fn received(&self) -> Result<u64> {
        let address = SocketAddr::from(([127, 0, 0, 1], COUNTER_PORT));
        let text = self.bed.shadow.run(|| client::get(address, "/"))?.text();
        self.questions.set(self.questions.get() + 1);
        let line = text.lines().nth(2).context("stub_status")?;
        let requests: u64 = line.split_whitespace().nth(2).context("stub_status")?.parse()?;
        Ok(requests - self.questions.get())
    }

    /// Requests that the shadow has received, once no more come.
    fn received_in_all(&self) -> Result<u64> {
        let mut last = self.received()?;
        loop {
            pause(Duration::from_millis(300))?;
            let now = self.received()?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
    }

    fn measured(&self, outcome: &load::Outcome) -> Measured {
        Measured {
            p50: outcome.percentile(50.0),
            p99: outcome.percentile(99.0),
            failed: outcome.failed as f64,
            ..Measured::default()
        }
    }

    fn off(&self) -> Result<Measured> {
        self.nginx(self.production, PORT)
    }

    fn mirror(&self) -> Result<Measured> {
        self.nginx(self.mirroring, MIRRORING_PORT)
    }

    /// Measures nginx by itself: its own CPU time, and what it delivers to the shadow.
    fn nginx(&self, nginx: &Nginx, port: u16) -> Result<Measured> {
        let worker = *nginx.workers()?.first().context("nginx has no worker")?;
        self.drive(port, WARM_UP)?;
        let (before, cpu) = (self.received_in_all()?, cpu_of(worker)?);
        let outcome = self.drive(port, self.count())?;
        let delivered = self.received_in_all()?.saturating_sub(before);
        Ok(Measured {
            cpu: cpu_of(worker)?.saturating_sub(cpu).as_secs_f64(),
            delivered: delivered as f64 / self.count() as f64,
            ..self.measured(&outcome)
        })
    }

    fn agent(&self) -> Result<Measured> {
        let mut agent = Agent::start(self.bed, &[])?;
        self.drive(PORT, WARM_UP)?;
        let compared_before = agent.settle(WARM_UP)?.count("shadow_comparisons_total", &[]);
        let (before, cpu) = (self.received_in_all()?, agent.process.cpu()?);
        let (outcome, memory) = watch_memory(&agent.process, || self.drive(PORT, self.count()))?;
        let metrics = wait_until("the agent to finish", Duration::from_secs(20), || {
            let metrics = agent.metrics()?;
            ensure!(metrics.count("shadow_exchanges_in_flight", &[]) == 0, "exchanges are in flight");
            Ok(metrics)
        })?;
        let delivered = self.received_in_all()?.saturating_sub(before);
        let used = agent.process.cpu()?.saturating_sub(cpu);
        let compared = metrics.count("shadow_comparisons_total", &[]) - compared_before;
        agent.finish()?;
        Ok(Measured {
            cpu: used.as_secs_f64(),
            memory,
            delivered: delivered as f64 / self.count() as f64,
            compared: compared as f64 / self.count() as f64,
            ..self.measured(&outcome)
        })
    }

    fn floor(&self) -> Result<Measured> {
        let mut command = self.bed.production.command(std::env::current_exe()?);
        let address = self.bed.candidate_address().to_string();
        command.args(["--floor", &address, "--seconds", &self.seconds.to_string()]);
        let mut process = Process::start("floor", &mut command, &self.bed.folder().join("floor.log"))?;
        let status = process.wait(Duration::from_secs(u64::from(self.seconds) * 3 + 30))?;
        let said = process.log();
        ensure!(status.success(), "the bare client ended with {status}: {said}");
        let mut numbers = said.split_whitespace().map(str::parse::<f64>);
        let mut number =
            || numbers.next().context("the bare client said nothing")?.context("the bare client");
        let (answered, cpu) = (number()?, number()?);
        Ok(Measured { cpu, delivered: answered / self.count() as f64, ..Measured::default() })
    }
}

/// Does `work` and watches the anonymous memory of a process meanwhile; returns its peak in bytes.
fn watch_memory<T>(process: &Process, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(process.memory("RssAnon").unwrap_or_default());
                thread::sleep(Duration::from_millis(100));
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let peak = watcher.join().unwrap_or_default();
        Ok((result?, peak as f64))
    })
}
