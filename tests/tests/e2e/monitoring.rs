//! A real Prometheus scrapes a real agent; what `deploy/` ships for it is right, and its dashboard shows something.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use shadow_tests::agent::{ADMIN, Agent};
use shadow_tests::bed::{BASELINE_PORT, Bed, CANDIDATE_PORT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::process::{Process, wait_until};
use shadow_tests::servers::{Shop, wait_listening};
use shadow_tests::service::Version;

const PROMETHEUS: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn promtool(arguments: &[&str], files: &[PathBuf], input: Option<&Path>) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(arguments).args(files);
    command.stdin(match input {
        Some(path) => Stdio::from(fs::File::open(path)?),
        None => Stdio::null(),
    });
    let output = command.output().context("running promtool (Debian package prometheus)")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
    Ok(())
}

#[test]
fn the_alert_rules_and_the_scrape_configuration_hold() -> Result<()> {
    promtool(&["check", "rules"], &[deploy("prometheus/rules.yaml")], None)?;
    promtool(&["test", "rules"], &[deploy("prometheus/rules.test.yaml")], None)?;
    promtool(&["check", "config"], &[deploy("prometheus/scrape.yaml")], None)
}

/// Every query of a dashboard with the title of its panel, variables replaced by what an operator would see first.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut panels: Vec<&Value> =
        dashboard.get("panels").and_then(Value::as_array).into_iter().flatten().collect();
    while let Some(panel) = panels.pop() {
        panels.extend(panel.get("panels").and_then(Value::as_array).into_iter().flatten());
        let title = panel.get("title").and_then(Value::as_str).unwrap_or_default();
        for target in panel.get("targets").and_then(Value::as_array).into_iter().flatten() {
            let text = target.get("expr").and_then(Value::as_str).unwrap_or_default();
            let text =
                text.replace("$__rate_interval", "10s").replace("$instance", ".*").replace("$target", ".*");
            found.push((title.to_owned(), text));
        }
    }
    found
}

/// Asks Prometheus; the number of series that the query gives.
fn series(bed: &Bed, query: &str) -> Result<usize> {
    let body: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let ask = request("POST", "/api/v1/query", &headers, format!("query={body}").as_bytes());
    let address = SocketAddr::from(PROMETHEUS);
    let reply = bed.production.run(|| Connection::open(address)?.exchange(&ask))?;
    let answer: Value = serde_json::from_slice(&reply.body).context("Prometheus' answer")?;
    ensure!(reply.status == 200, "{query}: {answer}");
    Ok(answer.pointer("/data/result").and_then(Value::as_array).map_or(0, Vec::len))
}

/// Traffic for some seconds, so that rates are not zero: matches, mismatches, noise, skips.
fn traffic(bed: &Bed) -> Result<()> {
    let mut connection = Connection::open(bed.production_address())?;
    for number in 0..400 {
        let target = match number % 4 {
            0 => format!("/products/{number}"),
            1 => format!("/users/{number}"),
            2 => format!("/coupons/{number}"),
            _ => "/orders".to_owned(),
        };
        let (method, body) = if number % 4 == 3 { ("POST", "{}") } else { ("GET", "") };
        connection.exchange(&request(method, &target, &[], body.as_bytes()))?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn prometheus_scrapes_the_agent_and_the_dashboard_shows_data() -> Result<()> {
    let bed = Bed::new()?;
    let folder = bed.folder();
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let _candidate = Shop::start(&bed.shadow, folder, "candidate", Version::Candidate, CANDIDATE_PORT)?;
    let _baseline = Shop::start(&bed.shadow, folder, "baseline", Version::Production, BASELINE_PORT)?;
    let mut agent = Agent::start(&bed, &["--baseline", &bed.baseline_url()])?;

    let config = folder.join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n\
         \x20 - job_name: shadow-agent\n    static_configs: [ {{ targets: [\"{}\"] }} ]\n",
        deploy("prometheus/rules.yaml").canonicalize()?.display(),
        SocketAddr::from(ADMIN)
    );
    fs::write(&config, text)?;
    let mut command = bed.production.command("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()));
    command.arg(format!("--web.listen-address={}", SocketAddr::from(PROMETHEUS)));
    let mut prometheus = Process::start("prometheus", &mut command, &folder.join("prometheus.log"))?;
    wait_listening(&bed.production, SocketAddr::from(PROMETHEUS), &mut prometheus)?;

    bed.client.run(|| traffic(&bed))?;
    let dashboards: Vec<PathBuf> = fs::read_dir(deploy("grafana"))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    ensure!(!dashboards.is_empty(), "deploy/grafana holds no dashboard");
    for path in dashboards {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let queries = queries(&dashboard);
        ensure!(!queries.is_empty(), "{} asks nothing", path.display());
        for (panel, query) in queries {
            wait_until(&format!("data in panel {panel:?}: {query}"), Duration::from_secs(6), || {
                if series(&bed, &query)? == 0 { bail!("no series") } else { Ok(()) }
            })?;
        }
    }
    ensure!(series(&bed, "up{job=\"shadow-agent\"} == 1")? == 1, "the agent is not up for Prometheus");

    let metrics = agent.ask("GET", "/metrics", "")?;
    let file = folder.join("metrics.txt");
    fs::write(&file, &metrics.body)?;
    promtool(&["check", "metrics"], &[], Some(&file))?;
    agent.finish().map(drop)
}
