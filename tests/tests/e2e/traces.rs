//! Traces: a real collector is told the spans of every exchange, and these are the ones that the shadows were sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{BASELINE_PORT, Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::process::{Process, wait_until};
use shadow_tests::servers::{Shop, wait_listening};
use shadow_tests::service::Version;

/// Where the collector listens, in the namespace of the shadows.
const COLLECTOR: &str = "10.77.2.2:4318";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const COUNT: usize = 20;

/// A span as the collector shows it: its properties, and `trace/span` of each link.
#[derive(Clone, Debug, Default)]
struct Span {
    fields: BTreeMap<String, String>,
    links: Vec<String>,
}

impl Span {
    fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn id(&self) -> String {
        format!("{}/{}", self.get("Trace ID"), self.get("ID"))
    }
}

fn collector(bed: &Bed) -> Result<Process> {
    let mut command = bed.shadow.command("rotel-agent");
    command.args(["start", "--exporter", "blackhole", "--debug-log", "traces"]);
    command.args(["--debug-log-verbosity", "detailed", "--otlp-http-endpoint", COLLECTOR]);
    command.args(["--otlp-grpc-endpoint", "10.77.2.2:4317"]);
    command.arg("--pid-file").arg(bed.folder().join("collector.pid"));
    let mut process = Process::start("collector", &mut command, &bed.folder().join("collector.log"))?;
    wait_listening(&bed.shadow, COLLECTOR.parse()?, &mut process)?;
    Ok(process)
}

/// What the collector was told so far.
fn spans(collector: &Process) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut in_link = false;
    for line in collector.log().lines() {
        if line.starts_with("Span #") {
            spans.push(Span::default());
            in_link = false;
            continue;
        }
        let Some(span) = spans.last_mut() else { continue };
        if line.starts_with("SpanLink #") {
            in_link = true;
            span.links.push(String::new());
            continue;
        }
        let Some((name, value)) = line.trim().trim_start_matches("-> ").split_once(':') else { continue };
        let (name, value) = (name.trim(), value.trim());
        match (in_link, span.links.last_mut()) {
            (true, Some(link)) if name == "Trace ID" => value.clone_into(link),
            (true, Some(link)) if name == "ID" => *link = format!("{link}/{value}"),
            (true, _) => {}
            (false, _) => {
                let value = value.strip_prefix("Str(").or(value.strip_prefix("Int(")).unwrap_or(value);
                span.fields.insert(name.to_owned(), value.trim_end_matches(')').to_owned());
            }
        }
    }
    spans
}

/// Sends requests that belong to a trace, and gives the spans told and the agent's log.
fn run(bed: &Bed, context: &str) -> Result<(Vec<Span>, Vec<Shop>)> {
    let _production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Candidate, CANDIDATE_PORT)?;
    let baseline = Shop::start(&bed.shadow, bed.folder(), "baseline", Version::Production, BASELINE_PORT)?;
    let collector = collector(bed)?;
    let config = bed.folder().join("agent.yaml");
    // What the agent tells the collector passes a captured interface and port.
    let text = format!(
        "capture: {{ interfaces: [{FRONT}, back], ports: [{PORT}, 4318], side: both }}\n\
         replay: {{ targets: [ {{ name: candidate, url: \"{}\" }} ], baseline: {{ name: baseline, url: \"{}\" }} }}\n\
         traces: {{ context: {context}, otlp: \"http://{COLLECTOR}\" }}\n",
        bed.candidate_url(),
        bed.baseline_url()
    );
    std::fs::write(&config, text)?;
    let mut agent = Agent::with_arguments(bed, &["--config", &config.to_string_lossy()])?;
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        let parent = format!("00-{TRACE}-{PARENT}-01");
        for number in 0..COUNT {
            let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
            connection.exchange(&request("GET", &format!("/users/{number}?q=s3cr3t"), &headers, b""))?;
        }
        Ok(())
    })?;
    let metrics = agent.settle(COUNT as u64)?;
    let seen = metrics.count("shadow_exchanges_total", &[]);
    ensure!(seen == COUNT as u64, "{seen} exchanges: what goes to the collector is captured");
    let told = wait_until("the spans", Duration::from_secs(10), || {
        let told = spans(&collector);
        ensure!(told.len() == 3 * COUNT, "{} spans; the collector said:\n{}", told.len(), collector.log());
        Ok(told)
    })?;
    let metrics = agent.metrics()?;
    let exported = metrics.count("shadow_trace_spans_total", &[("outcome", "exported")]);
    ensure!(exported == 3 * COUNT as u64, "{exported} spans are counted as exported");
    ensure!(!collector.log().contains("s3cr3t"), "a query is told:\n{}", collector.log());
    agent.finish()?;
    Ok((told, vec![candidate, baseline]))
}

#[test]
fn every_side_of_an_exchange_is_told_to_a_collector_and_linked() -> Result<()> {
    let bed = Bed::new()?;
    let (told, shops) = run(&bed, "mint")?;
    let side = |name: &str| told.iter().filter(|span| span.get("shadow.side") == name).collect::<Vec<_>>();
    let production = side("production");
    ensure!(production.len() == COUNT, "{} spans of production", production.len());
    for span in &production {
        ensure!(
            span.get("Kind") == "SPAN_KIND_SERVER" && span.get("http.route") == "/users/{id}",
            "{span:?}"
        );
        ensure!(span.links == [format!("{TRACE}/{PARENT}")], "{span:?}");
        ensure!(span.get("Trace ID") != TRACE, "production's trace is joined: {span:?}");
    }
    let by_exchange: BTreeMap<&str, String> =
        production.iter().map(|span| (span.get("shadow.exchange"), span.id())).collect();
    for (name, shop) in ["candidate", "baseline"].into_iter().zip(&shops) {
        let spans = side(name);
        for span in &spans {
            let linked = by_exchange.get(span.get("shadow.exchange")).context("an exchange of its own")?;
            ensure!(span.links == [linked.as_str()], "{span:?}");
            // The shop's request ids differ from one answer to the next.
            let result = if name == "candidate" { "mismatch" } else { "noise" };
            ensure!(
                span.get("Kind") == "SPAN_KIND_CLIENT" && span.get("shadow.result") == result,
                "{span:?}"
            );
            let [start, end] = ["Start time", "End time"].map(|name| span.get(name).parse::<u64>());
            ensure!(start? < end?, "{span:?}");
        }
        let sent = shop.requests()?;
        let sent: BTreeSet<String> = sent
            .iter()
            .filter_map(|request| {
                let mut parts = request.header("traceparent")?.split('-').skip(1);
                Some(format!("{}/{}", parts.next()?, parts.next()?))
            })
            .collect();
        ensure!(sent == spans.iter().map(|span| span.id()).collect(), "{name} was sent {sent:?}");
    }
    Ok(())
}

#[test]
fn a_propagated_trace_goes_on_at_the_shadows() -> Result<()> {
    let bed = Bed::new()?;
    let (told, shops) = run(&bed, "propagate")?;
    for span in &told {
        ensure!(span.get("Trace ID") == TRACE && span.get("Parent ID") == PARENT, "{span:?}");
    }
    for request in shops.iter().map(Shop::requests).collect::<Result<Vec<_>>>()?.iter().flatten() {
        let context = request.header("traceparent").unwrap_or_default();
        ensure!(context.contains(TRACE) && !context.contains(PARENT), "{request:?}");
        ensure!(request.header("tracestate") == Some("vendor=1"), "{request:?}");
    }
    Ok(())
}
