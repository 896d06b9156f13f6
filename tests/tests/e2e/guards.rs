//! The ramp, the guards and the budget of replays: more is replayed while all goes well, less when something does not, and
//! nobody has to be there.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{BASELINE_PORT, Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::load::{self, Plan};
use shadow_tests::metrics::Scrape;
use shadow_tests::netns::Namespace;

use crate::site::until;

/// How long a guard or the ramp may take for what takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests per second.
const RATE: u32 = 400;

/// A server whose health is up to the test.
#[derive(Clone, Debug, Default)]
struct Health {
    /// Whether it answers 500.
    bad: Arc<AtomicBool>,
    /// What it waits before it answers, in milliseconds.
    delay: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Health {
    /// Serves on that port until it is stopped.
    fn serve(&self, namespace: &Namespace, port: u16) -> Result<()> {
        namespace.enter()?;
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        listener.set_nonblocking(true)?;
        while !self.stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    let health = self.clone();
                    // It ends with its connection.
                    thread::spawn(move || health.answer(stream));
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(())
    }

    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            let Some(end) = end else {
                let read = stream.read(&mut part)?;
                if read == 0 {
                    return Ok(());
                }
                bytes.extend_from_slice(part.get(..read).unwrap_or_default());
                continue;
            };
            bytes.drain(..end + 4);
            thread::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed)));
            let status = if self.bad.load(Ordering::Relaxed) { "500 Oops" } else { "200 OK" };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n");
            stream.write_all(head.as_bytes())?;
        }
    }
}

/// Production, the candidate and another target, whose health is up to the test, and traffic while it runs.
fn with_traffic(check: impl FnOnce(&Bed, &[Health; 3]) -> Result<()>) -> Result<()> {
    let bed = Bed::new()?;
    let health: [Health; 3] = Default::default();
    let [production, candidate, other] = &health;
    production.delay.store(5, Ordering::Relaxed);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let servers = [
            (production, &bed.production, PORT),
            (candidate, &bed.shadow, CANDIDATE_PORT),
            (other, &bed.shadow, BASELINE_PORT),
        ];
        let servers: Vec<_> = servers
            .into_iter()
            .map(|(server, namespace, port)| scope.spawn(move || server.serve(namespace, port)))
            .collect();
        let traffic = scope.spawn(|| traffic(&bed, &stop));
        let checked = check(&bed, &health);
        stop.store(true, Ordering::Relaxed);
        let offered = traffic.join().ok().context("the load panicked")?;
        health.iter().for_each(|server| server.stop.store(true, Ordering::Relaxed));
        for server in servers {
            server.join().ok().context("a server panicked")??;
        }
        checked.and(offered)
    })
}

/// Sends requests until it is told to stop, one of a hundred to an endpoint of its own.
fn traffic(bed: &Bed, stop: &AtomicBool) -> Result<()> {
    let request = |number: u64, bytes: &mut Vec<u8>| {
        let path = if number % 100 == 7 { "/rare" } else { "/common" };
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET {path}?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let address = bed.production_address();
    let plan = Plan { address, rate: RATE, count: u64::from(RATE), connections: 64, request: &request };
    // The servers come up meanwhile.
    thread::sleep(Duration::from_millis(300));
    while !stop.load(Ordering::Relaxed) {
        bed.client.run(|| load::run(&plan))?;
    }
    Ok(())
}

/// An agent with both targets, and these lines in `replay` and behind it.
fn agent<'a>(bed: &'a Bed, replay: &str, rest: &str, arguments: &[&str]) -> Result<Agent<'a>> {
    let config = bed.folder().join("agent.yaml");
    let text = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\nreplay:\n  targets:\n  - {{ name: candidate, url: \
         \"{}\" }}\n  - {{ name: other, url: \"{}\" }}\n{replay}\n{rest}\n",
        bed.candidate_url(),
        bed.baseline_url()
    );
    fs::write(&config, text)?;
    Agent::with_arguments(bed, &[&["--config", &config.to_string_lossy()], arguments].concat())
}

fn status(bed: &Bed) -> Result<String> {
    let output = agent::command(bed, &["ctl", "status"])?.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is(metrics: &Scrape, name: &str, labels: &[(&str, &str)], value: f64) -> bool {
    metrics.sum(name, labels) == Some(value)
}

fn dropped(metrics: &Scrape, target: &str) -> u64 {
    metrics.count("shadow_replays_total", &[("target", target), ("outcome", "dropped")])
}

fn answered(metrics: &Scrape, target: &str) -> u64 {
    metrics.count("shadow_replays_total", &[("target", target), ("outcome", "answered")])
}

#[test]
fn a_candidate_that_turns_bad_is_paused_and_given_requests_again_when_it_is_well() -> Result<()> {
    with_traffic(|bed, [_, candidate, _]| {
        let guards = "guards: { pause: 5s, shadow_errors: { window: 2s } }";
        let mut agent = agent(bed, "", guards, &[])?;
        until(&mut agent, "answers", PATIENCE, |metrics| answered(metrics, "candidate") > 500)?;
        candidate.bad.store(true, Ordering::Relaxed);
        let paused = [("target", "candidate")];
        let metrics = until(&mut agent, "the pause", PATIENCE, |metrics| {
            is(metrics, "shadow_target_paused", &paused, 1.0) && dropped(metrics, "candidate") > 0
        })?;
        ensure!(is(&metrics, "shadow_guard_tripped", &[("guard", "shadow_errors")], 1.0));
        let said = status(bed)?;
        ensure!(
            said.contains("guards     tripped: shadow_errors") && said.contains(", paused by a guard"),
            "{said}"
        );
        let said = agent.process.log();
        ensure!(said.contains("target candidate: ") && said.contains("(guards.shadow_errors)"), "{said}");
        // It is probed while it is still bad, and paused for longer.
        until(&mut agent, "a longer pause", PATIENCE, |_| {
            agent_said(bed, "probes failed (guards.shadow_errors): it is paused for 10")
        })?;
        candidate.bad.store(false, Ordering::Relaxed);
        let metrics = until(&mut agent, "the end of the pause", PATIENCE, |metrics| {
            is(metrics, "shadow_target_paused", &paused, 0.0)
                && is(metrics, "shadow_guard_tripped", &[("guard", "shadow_errors")], 0.0)
        })?;
        let before = answered(&metrics, "candidate");
        let metrics = until(&mut agent, "answers again", PATIENCE, |metrics| {
            answered(metrics, "candidate") > before + 500
        })?;
        let paused =
            |target: &str| metrics.count("shadow_replays_total", &[("target", target), ("reason", "paused")]);
        ensure!(paused("candidate") > 0);
        ensure!(paused("other") == 0, "the other target was held back as well");
        agent.finish().map(drop)
    })
}

/// Whether the agent's log has this text.
fn agent_said(bed: &Bed, text: &str) -> bool {
    fs::read_to_string(bed.folder().join("agent.log")).is_ok_and(|log| log.contains(text))
}

#[test]
fn the_ramp_goes_on_while_production_is_well_and_back_when_it_becomes_slow() -> Result<()> {
    with_traffic(|bed, [production, ..]| {
        let guards = "guards: { pause: 3s, production_latency: { threshold: 4, window: 4s }, \
                      production_errors: { window: 4s } }";
        let mut agent = agent(bed, "  ramp: [20% 8s, 100%]", guards, &[])?;
        let first = agent.metrics()?;
        ensure!(is(&first, "shadow_ramp_share", &[], 0.0), "nothing is replayed before production was seen");
        let stage = |metrics: &Scrape| metrics.sum("shadow_ramp_stage", &[]);
        until(&mut agent, "the first stage", PATIENCE, |metrics| stage(metrics) == Some(1.0))?;
        let said = status(bed)?;
        ensure!(
            said.contains("ramp       20 % of connections are replayed, stage 1 of 2, the next"),
            "{said}"
        );
        let all = until(&mut agent, "the last stage", PATIENCE, |metrics| stage(metrics) == Some(2.0))?;
        ensure!(is(&all, "shadow_ramp_share", &[], 1.0));
        ensure!(is(&all, "shadow_ramp_next_step_timestamp_seconds", &[], 0.0));
        let skipped = all.count("shadow_exchanges_total", &[("reason", "ramp")]);
        ensure!(skipped > 0 && answered(&all, "candidate") > 0, "{skipped} outside of the ramp");

        production.delay.store(100, Ordering::Relaxed);
        let steps = [("guard", "production_latency"), ("direction", "down")];
        let before = all.count("shadow_guard_steps_total", &steps);
        until(&mut agent, "a step back", PATIENCE, |metrics| {
            metrics.count("shadow_guard_steps_total", &steps) > before
                && is(metrics, "shadow_guard_tripped", &[("guard", "production_latency")], 1.0)
                && stage(metrics) < Some(2.0)
        })?;
        let said = agent.process.log();
        ensure!(
            said.contains("p99 of production's time to first byte was")
                && said.contains("(guards.production_latency): ")
                && said.contains(" instead of 100%"),
            "{said}"
        );
        production.delay.store(5, Ordering::Relaxed);
        let well =
            until(&mut agent, "the last stage again", 3 * PATIENCE, |metrics| stage(metrics) == Some(2.0))?;
        let forward = [("guard", "ramp"), ("direction", "up")];
        ensure!(well.count("shadow_guard_steps_total", &forward) >= 3);
        agent.finish().map(drop)
    })
}

#[test]
fn a_guard_that_disables_stays_disabled_over_a_restart_until_someone_enables() -> Result<()> {
    with_traffic(|bed, [production, ..]| {
        let guards = "guards: { production_errors: { window: 2s, action: disable } }";
        let state = bed.folder().join("state");
        let state = ["--state", &state.to_string_lossy()];
        let mut first = agent(bed, "", guards, &state)?;
        until(&mut first, "replays", PATIENCE, |metrics| answered(metrics, "candidate") > 100)?;
        production.bad.store(true, Ordering::Relaxed);
        let off = until(&mut first, "the switch", PATIENCE, |metrics| {
            is(metrics, "shadow_capture_enabled", &[], 0.0)
        })?;
        ensure!(is(&off, "shadow_guard_tripped", &[("guard", "production_errors")], 1.0));
        let said = first.process.log();
        ensure!(said.contains("capture is disabled until `shadow-agent ctl enable`"), "{said}");
        first.finish()?;

        production.bad.store(false, Ordering::Relaxed);
        let mut second = agent(bed, "", guards, &state)?;
        ensure!(is(&second.metrics()?, "shadow_capture_enabled", &[], 0.0), "a restart enabled it");
        ensure!(agent::command(bed, &["ctl", "enable"])?.output()?.status.success());
        until(&mut second, "replays again", PATIENCE, |metrics| answered(metrics, "candidate") > 100)?;
        second.finish().map(drop)
    })
}

#[test]
fn a_budget_is_kept_and_rare_endpoints_get_more_of_it() -> Result<()> {
    with_traffic(|bed, _| {
        let mut agent = agent(bed, "  budget: 40/s", "", &[])?;
        let selected = |metrics: &Scrape| metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
        let sampled = [("outcome", "skipped"), ("reason", "sampled")];
        let metrics = until(&mut agent, "ten seconds of traffic", PATIENCE, |metrics| {
            metrics.count("shadow_exchanges_total", &[]) > u64::from(RATE) * 10
        })?;
        let all = metrics.count("shadow_exchanges_total", &[]);
        let replayed = selected(&metrics);
        let seconds = all / u64::from(RATE);
        // The machine may have taken longer for them than it should.
        ensure!(replayed >= 20 * seconds && replayed <= 120 * seconds, "{replayed} in {seconds} s or more");
        ensure!(metrics.count("shadow_exchanges_total", &sampled) > all / 2);
        agent.finish()?;
        let report: Value = serde_json::from_str(&agent.report_text())?;
        let endpoint = |name: &str| {
            let mut endpoints = report.get("endpoints").and_then(Value::as_array).into_iter().flatten();
            let found = endpoints.find(|one| one.get("endpoint").and_then(Value::as_str) == Some(name));
            let figure = |key: &str| found.and_then(|one| one.get(key)?.as_f64()).unwrap_or_default();
            (figure("requests"), figure("estimated_requests"))
        };
        let (common, rare) = (endpoint("GET /common"), endpoint("GET /rare"));
        ensure!(
            rare.0 / rare.1 > 3.0 * common.0 / common.1,
            "{rare:?} of the rare, {common:?} of the common"
        );
        let estimate = (common.1 + rare.1) / all as f64;
        ensure!((0.5..2.0).contains(&estimate), "an estimate of {estimate} times what there was");
        Ok(())
    })
}
