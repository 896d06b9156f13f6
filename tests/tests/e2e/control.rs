//! What an operator changes while the agent runs: the configuration, the run, the sample, the kill switch; and what the
//! audit log says about it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::client;
use shadow_tests::process::{pause, wait_until};
use shadow_tests::servers::{Nginx, Shop};
use shadow_tests::service::{Version, filler};
use shadow_tests::silence::{self, How, Listener};

/// How long something that was asked for may take to show.
const SHOWN: Duration = Duration::from_secs(10);

/// How long requests may reach the shadow after the switch was thrown; `bench silence` measures how long they do.
const SILENCE: Duration = Duration::from_secs(1);

/// Production and a candidate that answers otherwise, with an agent between them whose configuration can be changed.
struct Stage<'a> {
    bed: &'a Bed,
    _production: Shop,
    candidate: Shop,
    agent: Agent<'a>,
}

fn config_file(bed: &Bed) -> PathBuf {
    bed.folder().join("agent.yaml")
}

fn write_config(bed: &Bed, capture: &str, rest: &str) -> Result<()> {
    let text = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}]{capture} }}\n\
         replay: {{ targets: [ {{ name: candidate, url: \"{}\" }} ] }}\n{rest}\n",
        bed.candidate_url()
    );
    Ok(fs::write(config_file(bed), text)?)
}

fn state(bed: &Bed) -> PathBuf {
    bed.folder().join("state")
}

fn start(bed: &Bed) -> Result<Agent<'_>> {
    let (config, state) = (config_file(bed), state(bed));
    let arguments =
        ["--config", &config.to_string_lossy(), "--state", &state.to_string_lossy(), "--label", "v1"];
    Agent::with_arguments(bed, &arguments)
}

impl<'a> Stage<'a> {
    fn new(bed: &'a Bed, rest: &str) -> Result<Stage<'a>> {
        let production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
        let candidate =
            Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Candidate, CANDIDATE_PORT)?;
        write_config(bed, "", rest)?;
        Ok(Stage { bed, _production: production, candidate, agent: start(bed)? })
    }

    fn status(&self) -> Result<Value> {
        let reply = self.agent.ask("GET", "/api/v1/status", "")?;
        serde_json::from_slice(&reply.body).context("the status")
    }

    /// Asks production for a user, whom the candidate answers with a field less, and waits until `count` more are judged in
    /// the run under way.
    fn visit(&self, count: u64) -> Result<Value> {
        let answered = |status: &Value| number(status, "/targets/0/answered");
        let before = answered(&self.status()?);
        for id in 1..=count {
            let address = self.bed.production_address();
            let reply = self.bed.client.run(|| client::get(address, &format!("/users/{id}")))?;
            ensure!(reply.status == 200, "production answered {}", reply.status);
        }
        wait_until("the exchanges to be judged", SHOWN, || {
            let status = self.status()?;
            ensure!(answered(&status) >= before + count, "{status}");
            ensure!(number(&status, "/imbalance") == 0, "{status}");
            Ok(status)
        })
    }

    /// What `ctl` says, and whether it succeeded.
    fn ctl(&self, words: &[&str]) -> Result<(Option<i32>, String)> {
        let output = agent::command(self.bed, &[&["ctl"], words].concat())?.output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// The audit log, which is written a moment after something was done, once it has so many lines.
    fn audit(&self, lines: usize) -> Result<Vec<Value>> {
        wait_until("the audit log", SHOWN, || {
            let found = read_lines(&state(self.bed).join("audit.log"))?;
            ensure!(found.len() >= lines, "{found:?}");
            Ok(found)
        })
    }
}

fn read_lines(path: &std::path::Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn mismatches(status: &Value) -> u64 {
    number(status, "/targets/0/mismatches")
}

/// The number at that place; 0 if there is none.
fn number(value: &Value, place: &str) -> u64 {
    value.pointer(place).and_then(Value::as_u64).unwrap_or_default()
}

#[test]
fn a_better_configuration_takes_the_place_of_the_one_in_force_and_begins_a_run() -> Result<()> {
    let bed = Bed::new()?;
    let mut stage = Stage::new(&bed, "")?;
    ensure!(mismatches(&stage.visit(3)?) == 3, "nothing tells noise from differences");
    write_config(&bed, "", "compare: { ignore: [\"$.*\"] }")?;
    let (code, said) = stage.ctl(&["reload"])?;
    ensure!(code == Some(0) && said.contains("compare.ignore changed; a new run began, `v1 #2`"), "{said}");
    let status = stage.visit(4)?;
    ensure!(status["run"] == "v1 #2" && mismatches(&status) == 0, "{status}");
    ensure!(status["targets"][0]["answered"] == 4, "{status}");
    // The ledger goes on; the run's books and its summary are new.
    let metrics = stage.agent.metrics()?;
    ensure!(metrics.count("shadow_replays_total", &[("outcome", "answered")]) == 7);
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0));
    let report = stage.agent.finish()?;
    let text = stage.agent.report_text();
    let summary: Value = serde_json::from_str(&text)?;
    ensure!(summary["run"] == "v1 #2" && summary["overall"]["requests"] == 4, "{text}");
    ensure!(summary["ledger"]["targets"][0]["answered"] == 4, "{text}");
    ensure!(summary["ledger"]["imbalance"] == 0, "{text}");
    drop(report);
    Ok(())
}

#[test]
fn a_broken_configuration_or_one_that_needs_a_restart_changes_nothing_and_is_named() -> Result<()> {
    let bed = Bed::new()?;
    let stage = Stage::new(&bed, "")?;
    write_config(&bed, "", "compare: { ignore: [\"$.[\"] }")?;
    let (code, said) = stage.ctl(&["reload"])?;
    ensure!(code == Some(2), "{code:?}: {said}");
    ensure!(said.contains("line 3 of") && said.contains("compare.ignore[0]"), "{said}");
    ensure!(said.contains("the one before stays in force"), "{said}");

    write_config(&bed, ", sample: 50%", "compare: { ignore: [\"$.loyalty\"] }\nlimits: { body: 1MiB }")?;
    let (code, said) = stage.ctl(&["reload"])?;
    ensure!(code == Some(5), "{code:?}: {said}");
    ensure!(
        said.contains("these need a restart, and nothing was reloaded: capture.sample, limits.body"),
        "{said}"
    );

    let status = stage.visit(3)?;
    ensure!(status["run"] == "v1" && mismatches(&status) == 3, "{status}");
    let actions: Vec<_> = stage.audit(3)?.iter().map(|line| line["action"].clone()).collect();
    ensure!(actions == ["started", "reload refused", "reload refused"], "{actions:?}");
    Ok(())
}

#[test]
fn a_reload_that_changes_where_requests_go_lets_those_under_way_end_where_they_began() -> Result<()> {
    let bed = Bed::new()?;
    let _production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let delay = Duration::from_secs(1);
    let slow =
        Shop::with_delay(&bed.shadow, bed.folder(), "slow", Version::Production, CANDIDATE_PORT, delay)?;
    let other = Shop::start(&bed.shadow, bed.folder(), "other", Version::Production, CANDIDATE_PORT + 10)?;
    write_config(&bed, "", "")?;
    let mut agent = start(&bed)?;
    let visit = |target: &str| bed.client.run(|| client::get(bed.production_address(), target));
    visit("/users/1")?;
    wait_until("the request to be under way", SHOWN, || {
        ensure!(slow.requests()?.len() == 1);
        Ok(())
    })?;
    let text = fs::read_to_string(config_file(&bed))?;
    fs::write(
        config_file(&bed),
        text.replace(&CANDIDATE_PORT.to_string(), &(CANDIDATE_PORT + 10).to_string()),
    )?;
    let reply = agent.ask("POST", "/api/v1/reload", "")?;
    ensure!(reply.status == 200, "{}", reply.text());
    visit("/users/2")?;
    let metrics = agent.settle(2)?;
    ensure!(metrics.count("shadow_replays_total", &[("outcome", "answered")]) == 2, "both are answered");
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0));
    let targets = |shop: &Shop| {
        anyhow::Ok(shop.requests()?.iter().map(|seen| seen.target().to_owned()).collect::<Vec<_>>())
    };
    ensure!(targets(&slow)? == ["/users/1"] && targets(&other)? == ["/users/2"]);
    agent.finish().map(drop)
}

#[test]
fn a_run_that_is_started_has_books_of_its_own_and_the_one_before_can_be_asked_about() -> Result<()> {
    let bed = Bed::new()?;
    let mut stage = Stage::new(&bed, "")?;
    stage.visit(5)?;
    let (code, said) = stage.ctl(&["run", "start", "--label", "v2"])?;
    ensure!(code == Some(0) && said.contains("run `v2` began; `v1` ended"), "{said}");
    let status = stage.visit(2)?;
    ensure!(status["runs"] == json!(["v2", "v1"]), "{status}");
    for (label, expected) in [("v1", 200), ("v2", 200), ("v3", 404)] {
        let reply = stage.agent.ask("GET", &format!("/api/v1/verdict?run={label}"), "")?;
        ensure!(reply.status == expected, "{label}: {}", reply.text());
    }
    stage.agent.finish()?;
    let summary: Value = serde_json::from_str(&stage.agent.report_text())?;
    ensure!(summary["run"] == "v2" && summary["overall"]["requests"] == 2, "{summary}");
    ensure!(summary["ledger"]["selected"] == 2 && summary["ledger"]["imbalance"] == 0, "{summary}");
    Ok(())
}

#[test]
fn a_sample_that_is_set_while_the_agent_runs_reaches_the_kernel() -> Result<()> {
    let bed = Bed::new()?;
    let stage = Stage::new(&bed, "")?;
    stage.visit(1)?;
    let (code, said) = stage.ctl(&["sample", "0%"])?;
    ensure!(code == Some(0) && said.contains("0% of flows are asked for instead of 100%"), "{said}");
    let address = bed.production_address();
    for id in 0..5 {
        bed.client.run(|| client::get(address, &format!("/users/{id}")))?;
    }
    let left_out = |status: &Value| status["packets"]["sampled_out"].as_u64().unwrap_or_default();
    let status = wait_until("packets to be left out", SHOWN, || {
        let status = stage.status()?;
        ensure!(left_out(&status) > 0, "{status}");
        Ok(status)
    })?;
    ensure!(status["seen"] == 1 && status["sample_configured"] == 0.0, "{status}");
    let (code, said) = stage.ctl(&["sample", "100%"])?;
    ensure!(code == Some(0), "{said}");
    stage.visit(2)?;
    let (code, said) = stage.ctl(&["sample", "101%"])?;
    ensure!(code == Some(5) && said.contains("`101%` is not a share"), "{code:?} {said}");
    Ok(())
}

#[test]
fn the_signal_disables_and_that_outlives_reload_and_restart_until_somebody_enables() -> Result<()> {
    let bed = Bed::new()?;
    let mut stage = Stage::new(&bed, "")?;
    stage.visit(1)?;
    stage.agent.process.signal(Signal::SIGUSR1)?;
    wait_until("capture to be disabled", SHOWN, || {
        ensure!(stage.status()?["enabled"] == false);
        Ok(())
    })?;
    // The file says `enabled: true`, as it did.
    write_config(&bed, "", "compare: { ignore: [\"$.loyalty\"] }")?;
    let (code, said) = stage.ctl(&["reload"])?;
    ensure!(
        code == Some(0) && said.contains("capture stays disabled until `shadow-agent ctl enable`"),
        "{said}"
    );
    ensure!(stage.status()?["enabled"] == false);
    stage.agent.finish()?;
    stage.agent = start(&bed)?;
    ensure!(stage.status()?["enabled"] == false, "a restart forgot it");
    let before = stage.candidate.requests()?.len();
    bed.client.run(|| client::get(bed.production_address(), "/users/7"))?;
    pause(Duration::from_millis(500))?;
    ensure!(stage.candidate.requests()?.len() == before, "something was replayed");
    let (_, said) = stage.ctl(&["enable"])?;
    ensure!(said.contains("capture is enabled"), "{said}");
    stage.visit(1)?;
    let told: Vec<_> =
        stage.audit(7)?.iter().map(|line| (line["actor"].clone(), line["action"].clone())).collect();
    let expected = [
        ("agent", "started"),
        ("signal SIGUSR1", "disabled"),
        ("config", "run started"),
        ("api", "reloaded"),
        ("agent", "stopped"),
        ("agent", "started"),
        ("api", "enabled"),
    ];
    ensure!(told.len() == expected.len(), "{told:?}");
    for ((actor, action), (expected_actor, expected_action)) in told.iter().zip(expected) {
        ensure!(action == expected_action, "{told:?}");
        ensure!(actor.as_str().is_some_and(|actor| actor.starts_with(expected_actor)), "{told:?}");
    }
    Ok(())
}

#[test]
fn the_file_disables_when_it_is_reloaded_and_enables_again_what_it_disabled() -> Result<()> {
    let bed = Bed::new()?;
    let stage = Stage::new(&bed, "")?;
    for (said, expected) in [("enabled: false", false), ("enabled: true", true)] {
        write_config(&bed, "", said)?;
        let (code, answer) = stage.ctl(&["reload"])?;
        ensure!(code == Some(0) && answer.contains("enabled changed"), "{answer}");
        ensure!(stage.status()?["enabled"] == expected, "{said}");
        ensure!(stage.status()?["run"] == "v1", "the switch alone begins no run");
    }
    Ok(())
}

#[test]
fn the_audit_log_is_rotated_and_survives_a_kill_and_unsafe_methods_stand_in_it() -> Result<()> {
    let bed = Bed::new()?;
    let _production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let _candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Candidate, CANDIDATE_PORT)?;
    let log = bed.folder().join("audit/audit.log");
    fs::create_dir(bed.folder().join("audit"))?;
    let config = config_file(&bed);
    fs::write(
        &config,
        format!(
            "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\n\
             select: {{ methods: [GET, POST] }}\n\
             replay: {{ targets: [ {{ name: candidate, url: \"{}\", isolated: true }} ] }}\n\
             audit: {{ path: \"{}\", max_size: 4KiB, keep: 2 }}\n",
            bed.candidate_url(),
            log.display()
        ),
    )?;
    let arguments = ["--config", &config.to_string_lossy()];
    let mut agent = Agent::with_arguments(&bed, &arguments)?;
    let allowed = wait_until("the start to be written", SHOWN, || {
        let first = read_lines(&log)?;
        let [_, allowed] = first.as_slice() else { anyhow::bail!("{first:?}") };
        Ok(allowed.clone())
    })?;
    ensure!(allowed["actor"] == "config" && allowed["action"] == "unsafe methods allowed", "{allowed}");
    ensure!(allowed["after"] == json!({ "methods": ["POST"], "targets": ["candidate"] }), "{allowed}");
    bed.client.run(|| client::get(bed.production_address(), "/users/1?token=planted-secret"))?;
    agent.settle(1)?;
    for turn in 0..100 {
        agent.ask("PUT", "/api/v1/sample", &format!("{{\"sample\": \"{}%\"}}", 50 + turn % 2))?;
        agent.ask("GET", "/api/v1/endpoints", "")?;
    }
    wait_until("three files", SHOWN, || {
        ensure!(fs::read_dir(bed.folder().join("audit"))?.count() == 3);
        Ok(())
    })?;
    agent.end(Signal::SIGKILL)?;
    let mut files: Vec<_> = fs::read_dir(bed.folder().join("audit"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    files.sort();
    ensure!(files == ["audit.log", "audit.log.1", "audit.log.2"], "{files:?}");
    for name in &files {
        let path = bed.folder().join("audit").join(name);
        ensure!(fs::metadata(&path)?.len() <= 4096, "{name} is too large");
        ensure!(!fs::read_to_string(&path)?.contains("planted"), "a value from traffic is in {name}");
    }
    // The worst that a kill leaves is a torn last line.
    let mut text = fs::read_to_string(&log)?;
    text.push_str("{\"time\":\"2026-");
    fs::write(&log, &text)?;
    let agent = Agent::with_arguments(&bed, &arguments)?;
    let after = wait_until("the next start to be written", SHOWN, || {
        let after = fs::read_to_string(&log)?;
        ensure!(after.contains("\"started\""));
        Ok(after)
    })?;
    ensure!(
        after.starts_with(&text) || after.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{after}"
    );
    ensure!(after.lines().last().is_some_and(|line| serde_json::from_str::<Value>(line).is_ok()), "{after}");
    let metrics = agent.metrics()?;
    ensure!(metrics.sum("shadow_audit_failures_total", &[]) == Some(0.0));
    Ok(())
}

#[test]
fn nothing_reaches_the_shadow_any_more_soon_after_the_switch_is_thrown_under_load() -> Result<()> {
    let bed = Bed::new()?;
    fs::write(bed.folder().join("large"), filler(1024))?;
    let server = format!("server {{ listen {PORT}; root {}; }}", bed.folder().display());
    let _production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &server)?;
    let shadow = Listener::start(&bed, bed.candidate_address())?;
    let agent = Agent::start(&bed, &[])?;
    for how in How::ALL {
        let silence = silence::measure(&bed, &agent, &shadow, how)?;
        println!("the last byte came {silence:?} after {}", how.name());
        ensure!(silence < SILENCE, "{}: bytes came for {silence:?}", how.name());
    }
    Ok(())
}
