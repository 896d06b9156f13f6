//! `bench overhead`: what production loses under full load to each step of the agent, with tcpdump as a peer, all in
//! one run, interleaved; and what the agent costs where little happens.
//!
//! The machine's speed drifts by more than most steps cost, so each measurement of a variant stands between two without
//! any, and is compared with their mean. wrk has one core and nginx another. Observers run where the scheduler puts them, as they would elsewhere.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::stages::Stage;
use super::table::Table;
use super::{median, wrk};
use crate::bed::{Bed, CANDIDATE_PORT, PORT};
use crate::client;
use crate::process::{cpu_of, pause};
use crate::servers::Nginx;
use crate::service::filler;

mod observer;
mod quiet;

use observer::{Kind, Observer, Seen};

const BODY: usize = 1024;
const CONNECTIONS: usize = 32;
const CLIENT_CORE: usize = 0;
const SERVER_CORE: usize = 1;
const STATUS_PORT: u16 = 8098;
const WARM_UP: u32 = 1;
/// How long an agent is left alone to see what it costs.
const IDLE: Duration = Duration::from_secs(30);
/// Lonely segments come so far apart: beyond the time after which a consumer goes to sleep, and within it.
const SPACINGS: [(&str, Duration); 2] =
    [("20 segments/s", Duration::from_millis(50)), ("150 segments/s", Duration::from_micros(6667))];
const MIB: f64 = 1024.0 * 1024.0;

const VARIANTS: [(&str, Kind); 6] = [
    ("absent", Kind::Absent),
    ("no match", Kind::NoMatch),
    ("segments counted", Kind::Stage(Stage::Count)),
    ("exchanges rebuilt", Kind::Stage(Stage::Rebuild)),
    ("replaying", Kind::Replay),
    ("tcpdump", Kind::Tcpdump),
];

/// What one measurement of one variant gave.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    load: wrk::Report,
    /// Milliseconds of CPU time of nginx and wrk for 10,000 requests, what the kernel does on their time included.
    production: f64,
    /// Milliseconds of CPU time of the observer for 10,000 requests.
    cpu: f64,
    /// Requests that production served while the observer watched.
    served: f64,
    seen: Seen,
}

/// A measurement, and those without an observer right before and right after it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    one: Measured,
    beside: [Measured; 2],
}

impl Sample {
    /// A figure against what it is without an observer.
    fn ratio(&self, figure: &dyn Fn(&Measured) -> f64) -> f64 {
        let [before, after] = &self.beside;
        2.0 * figure(&self.one) / (figure(before) + figure(after))
    }
}

/// By variant.
type All = [Vec<Sample>; VARIANTS.len()];
type Figure = fn(&Measured) -> f64;

struct Scene {
    bed: Bed,
    _production: Nginx,
    /// The process ids of production's workers.
    workers: Vec<u32>,
    _candidate: Nginx,
    seconds: u32,
    /// How often production was asked what it served, which it counts as well.
    questions: Cell<u64>,
}

/// Measures everything and returns the table.
///
/// # Errors
/// When a part does not come up, or when interrupted.
pub fn run(repeats: u32, seconds: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    let scene = Scene::set(seconds)?;
    let mut all: All = Default::default();
    let mut before = scene.measure(Kind::Absent)?;
    for repeat in 0..repeats {
        // Another one begins each time, so that none always follows the same.
        for position in 0..VARIANTS.len() {
            let variant = (position + repeat as usize) % VARIANTS.len();
            let Some(((name, kind), measured)) = VARIANTS.get(variant).zip(all.get_mut(variant)) else {
                continue;
            };
            if *kind == Kind::Absent {
                continue;
            }
            tell(&format!("{} of {repeats}: {name}, and absent, {seconds} s each", repeat + 1));
            let one = scene.measure(*kind).with_context(|| format!("measuring {name}"))?;
            let after = scene.measure(Kind::Absent)?;
            measured.push(Sample { one, beside: [before, after] });
            before = after;
        }
    }
    // What stands beside is a measurement, too.
    let beside = all.iter().flatten().map(|sample| Sample { one: sample.beside[1], beside: sample.beside });
    all[0] = beside.collect();
    let mut table = Table { name: "overhead", ..Table::default() };
    load_rows(&mut table, &all)?;
    quiet_rows(&mut table, &scene.bed, tell)?;
    Ok(table)
}

fn load_rows(table: &mut Table, all: &All) -> Result<()> {
    let of = |variant: usize, figure: &dyn Fn(&Measured) -> f64| {
        let samples = all.get(variant).into_iter().flatten();
        median(&samples.map(|sample| figure(&sample.one)).collect::<Vec<_>>()).context("no measurement")
    };
    let ratio = |variant: usize, figure: &dyn Fn(&Measured) -> f64| {
        let samples = all.get(variant).into_iter().flatten();
        median(&samples.map(|sample| sample.ratio(figure)).collect::<Vec<_>>()).context("no measurement")
    };
    let figures: [(&str, &str, Figure); 4] = [
        ("throughput", "requests/s", |one| one.load.rate),
        ("p50", "us", |one| one.load.p50),
        ("p99", "us", |one| one.load.p99),
        ("production's CPU per 10,000", "ms", |one| one.production),
    ];
    for (label, unit, figure) in figures {
        for (variant, (name, _)) in VARIANTS.iter().enumerate() {
            let against = if variant == 0 { None } else { Some(("absent", ratio(variant, &figure)?)) };
            table.row(&format!("{label}, {name}"), of(variant, &figure)?, unit, against);
        }
    }
    for (variant, (name, kind)) in VARIANTS.iter().enumerate().skip(1) {
        table.row(&format!("observer's CPU per 10,000, {name}"), of(variant, &|one| one.cpu)?, "ms", None);
        if *kind == Kind::NoMatch {
            continue;
        }
        table.row(&format!("segments, {name}"), of(variant, &|one| one.seen.segments)?, "", None);
        table.row(&format!("segments lost, {name}"), worst(all, variant, |one| one.seen.lost), "worst", None);
    }
    let whole = |one: &Measured| one.seen.exchanges / one.served * 100.0;
    for (variant, (name, kind)) in VARIANTS.iter().enumerate() {
        if matches!(kind, Kind::Stage(Stage::Rebuild) | Kind::Replay) {
            table.row(&format!("exchanges of requests, {name}"), of(variant, &whole)?, "%", None);
            let broken = worst(all, variant, |one| one.seen.broken);
            table.row(&format!("exchanges lost, {name}"), broken, "worst", None);
        }
    }

    let throughput = |kind: Kind| {
        let variant = VARIANTS.iter().position(|(_, other)| *other == kind).unwrap_or_default();
        ratio(variant, &|one| one.load.rate)
    };
    let lost = |kind: Kind| {
        let variant = VARIANTS.iter().position(|(_, other)| *other == kind).unwrap_or_default();
        worst(all, variant, |one| one.seen.lost + one.seen.broken)
    };
    let (counted, rebuilt) = (Kind::Stage(Stage::Count), Kind::Stage(Stage::Rebuild));
    table.goal("throughput, no match, at least x absent", throughput(Kind::NoMatch)?, 0.99, true);
    let peer = throughput(Kind::Tcpdump)?;
    table.goal("throughput, segments counted, at least tcpdump's", throughput(counted)?, peer, true);
    table.goal("throughput, exchanges rebuilt, at least x absent", throughput(rebuilt)?, 0.85, true);
    table.goal("lost, segments counted, at most", lost(counted), 0.0, false);
    table.goal("lost, exchanges rebuilt, at most", lost(rebuilt), 0.0, false);
    Ok(())
}

fn worst(all: &All, variant: usize, figure: Figure) -> f64 {
    all.get(variant).into_iter().flatten().map(|sample| figure(&sample.one)).fold(0.0, f64::max)
}

fn quiet_rows(table: &mut Table, bed: &Bed, tell: &dyn Fn(&str)) -> Result<()> {
    tell(&format!("an idle agent, {} s", IDLE.as_secs()));
    let idle = quiet::idle(bed, IDLE)?;
    table.row("CPU, idle agent", idle.cpu, "% of core", None);
    table.row("time slices, idle agent", idle.wakeups, "1/s", None);
    table.row("RssAnon, idle agent", idle.memory / MIB, "MiB", None);
    let mut longest = 0.0_f64;
    for (name, spacing) in SPACINGS {
        tell(&format!("packet to userspace, {name}"));
        let delay = quiet::delay(bed, spacing, Duration::from_secs(10))?;
        for (percentile, value) in [("p50", delay.p50), ("p99", delay.p99), ("max", delay.max)] {
            table.row(&format!("packet to userspace {percentile}, {name}"), value, "us", None);
        }
        table.row(&format!("CPU, segments counted, {name}"), delay.cpu, "% of core", None);
        longest = longest.max(delay.p99);
    }
    table.goal("CPU, idle agent, at most % of a core", idle.cpu, 0.2, false);
    table.goal("RssAnon, idle agent, at most MiB", idle.memory / MIB, 16.0, false);
    table.goal("packet to userspace, p99 at low traffic, at most us", longest, 5000.0, false);
    Ok(())
}

impl Scene {
    fn set(seconds: u32) -> Result<Scene> {
        let bed = Bed::new()?;
        std::fs::write(bed.folder().join("file"), filler(BODY))?;
        let root = bed.folder().display();
        let quiet = "access_log off; default_type application/octet-stream;";
        let plain = format!(
            "server {{ listen {PORT}; {quiet} root {root}; }}\n\
             server {{ listen 127.0.0.1:{STATUS_PORT}; access_log off; location / {{ stub_status; }} }}"
        );
        let production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &plain)?;
        let mut core = CpuSet::new();
        core.set(SERVER_CORE).context("choosing a core for nginx")?;
        let workers = production.workers()?;
        for worker in &workers {
            sched_setaffinity(Pid::from_raw(worker.cast_signed()), &core)
                .with_context(|| format!("pinning nginx to core {SERVER_CORE}; this needs two cores"))?;
        }
        let shadow = format!("server {{ listen {CANDIDATE_PORT}; {quiet} root {root}; }}");
        let candidate = Nginx::start(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT, &shadow)?;
        let questions = Cell::new(0);
        Ok(Scene { bed, _production: production, workers, _candidate: candidate, seconds, questions })
    }

    fn measure(&self, kind: Kind) -> Result<Measured> {
        let before = self.served()?;
        let observer = Observer::start(kind, &self.bed)?;
        self.load(WARM_UP)?;
        let server = || -> Result<Duration> { self.workers.iter().map(|worker| cpu_of(*worker)).sum() };
        let (cpu, serving) = (observer.cpu()?, server()?);
        let load = self.load(self.seconds)?;
        let requests = load.rate * f64::from(self.seconds);
        let per_10_000 = |seconds: f64| seconds / requests * 10_000.0 * 1e3;
        let production = per_10_000((server()?.saturating_sub(serving)).as_secs_f64() + load.cpu);
        let cpu = per_10_000(observer.cpu()?.saturating_sub(cpu).as_secs_f64());
        // What is under way arrives.
        pause(Duration::from_millis(300))?;
        let seen = observer.finish()?;
        let served = (self.served()? - before) as f64;
        Ok(Measured { load, production, cpu, served, seen })
    }

    fn load(&self, seconds: u32) -> Result<wrk::Report> {
        let address = self.bed.production_address();
        wrk::run(&self.bed.client, self.bed.folder(), CLIENT_CORE, address, CONNECTIONS, seconds)
    }

    /// Requests that production has served so far, questions like this one left out.
    fn served(&self) -> Result<u64> {
        let address = SocketAddr::from(([127, 0, 0, 1], STATUS_PORT));
        let text = self.bed.production.run(|| client::get(address, "/"))?.text();
        self.questions.set(self.questions.get() + 1);
        let line = text.lines().nth(2).context("stub_status")?;
        let requests: u64 = line.split_whitespace().nth(2).context("stub_status")?.parse()?;
        Ok(requests - self.questions.get())
    }
}
