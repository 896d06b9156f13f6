//! Sessions: their order under load, and values that production and a shadow issue each by itself.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{BASELINE_PORT, Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::metrics::Scrape;
use shadow_tests::servers::Shop;
use shadow_tests::service::Version;
use shadow_tests::tshark::Capture;

use crate::site::until;

/// What a shadow takes for each request; production takes none, so that requests meet there if nothing holds them back.
const SLOW: Duration = Duration::from_millis(40);

const END: Duration = Duration::from_secs(60);

const USERS: usize = 6;
const REQUESTS: usize = 15;

/// An agent with these lines for replaying to the candidate.
fn start<'a>(bed: &'a Bed, select: &str, replay: &str, target: &str) -> Result<Agent<'a>> {
    let config = bed.folder().join("agent.yaml");
    let text = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\n\
         select: {{ {select} }}\n\
         replay:\n  targets: [ {{ name: candidate, url: \"{}\"{target} }} ]\n  {replay}\n",
        bed.candidate_url()
    );
    fs::write(&config, text)?;
    Agent::with_arguments(bed, &["--config", &config.to_string_lossy()])
}

/// Every user asks one thing after the other, each on a connection of its own.
fn ask(bed: &Bed) -> Result<()> {
    let address = bed.production_address();
    let user = |user: usize| {
        bed.client.run(|| {
            for number in 0..REQUESTS {
                let name = format!("user-{user}");
                let request =
                    request("GET", &format!("/large?size=64&n={number}"), &[("X-User", &name)], b"");
                ensure!(Connection::open(address)?.exchange(&request)?.status == 200);
            }
            Ok(())
        })
    };
    thread::scope(|scope| {
        let user = &user;
        let users: Vec<_> = (0..USERS).map(|number| scope.spawn(move || user(number))).collect();
        users.into_iter().try_for_each(|user| user.join().map_err(|_| anyhow!("a user panicked"))?)
    })
}

/// The numbers that each user's requests had as they arrived, none of them while another was under way; says whether users
/// met.
fn arrived_one_by_one(shop: &Shop) -> Result<()> {
    let mut by_user: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut switches = 0;
    let mut last = String::new();
    for received in shop.requests()? {
        let user = received.header("x-user").context("a request of nobody")?.to_owned();
        ensure!(received.under_way() == Some(1), "requests of {user} met: {received:?}");
        let number = received.target().rsplit('=').next().context("no number")?.parse()?;
        switches += usize::from(user != last);
        last.clone_from(&user);
        by_user.entry(user).or_default().push(number);
    }
    let expected: Vec<usize> = (0..REQUESTS).collect();
    ensure!(by_user.len() == USERS && by_user.values().all(|numbers| *numbers == expected), "{by_user:?}");
    ensure!(switches > 2 * USERS, "users waited for each other");
    Ok(())
}

#[test]
fn requests_of_one_user_arrive_one_by_one_in_order_and_users_do_not_wait_for_each_other() -> Result<()> {
    let bed = Bed::new()?;
    let folder = bed.folder();
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let slow = Shop::with_delay(&bed.shadow, folder, "candidate", Version::Production, CANDIDATE_PORT, SLOW)?;
    let quick = Shop::start(&bed.shadow, folder, "baseline", Version::Production, BASELINE_PORT)?;
    let baseline = format!("baseline: {{ name: baseline, url: \"{}\" }}", bed.baseline_url());
    let mut agent = start(&bed, "", &format!("session: {{ header: x-user }}\n  {baseline}"), "")?;
    ask(&bed)?;
    let all = (USERS * REQUESTS) as u64;
    let ended = |metrics: &Scrape| metrics.count("shadow_replays_total", &[]) == 2 * all;
    let metrics = until(&mut agent, "the end at both targets", END, ended)?;
    for target in ["candidate", "baseline"] {
        let answered = [("target", target), ("outcome", "answered")];
        ensure!(
            metrics.count("shadow_replays_total", &answered) == all,
            "{}",
            metrics.counted("shadow_replays_total")
        );
    }
    arrived_one_by_one(&slow)?;
    arrived_one_by_one(&quick)?;
    agent.finish().map(drop)
}

#[test]
fn a_file_keeps_sessions_in_order_at_any_speed_and_drops_nothing() -> Result<()> {
    let bed = Bed::new()?;
    let folder = bed.folder();
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &folder.join("capture.pcap"))?;
    ask(&bed)?;
    let file = capture.finish()?;
    let shadow =
        Shop::with_delay(&bed.shadow, folder, "candidate", Version::Production, CANDIDATE_PORT, SLOW)?;
    let config = folder.join("replay.yaml");
    fs::write(
        &config,
        format!(
            "replay: {{ session: {{ header: x-user }}, targets: [ {{ name: candidate, url: \"{}\" }} ] }}\n",
            bed.candidate_url()
        ),
    )?;
    let (file, config) = (file.to_string_lossy(), config.to_string_lossy());
    let words = ["replay", "--from", &file, "--config", &config, "--speed", "max"];
    let output = agent::command(&bed, &words)?.output()?;
    ensure!(output.status.success(), "{output:?}");
    arrived_one_by_one(&shadow)
}

/// Logs in, looks at the account, makes a cart and looks at that; each as production's own values demand.
fn shop(bed: &Bed) -> Result<()> {
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        let mut ask = |method: &str, target: &str, headers: &[(&str, &str)], expected: u16| {
            let reply = connection.exchange(&request(method, target, headers, b""))?;
            ensure!(reply.status == expected, "production: {method} {target}: {}", reply.status);
            Ok(reply)
        };
        let login = ask("POST", "/login", &[], 200)?;
        let cookie = login.header("set-cookie").and_then(|field| field.split(';').next());
        let cookie = cookie.context("no cookie")?.to_owned();
        let csrf: Value = serde_json::from_slice(&login.body)?;
        let csrf = csrf.pointer("/csrf").and_then(Value::as_str).context("no csrf")?;
        let cart = ask("POST", "/carts", &[("Cookie", &cookie), ("X-Csrf", csrf)], 201)?;
        let cart: Value = serde_json::from_slice(&cart.body)?;
        let id = cart.pointer("/cart/id").and_then(Value::as_str).context("no cart")?;
        ask("GET", "/account", &[("Cookie", &cookie)], 200)?;
        ask("GET", &format!("/carts/{id}"), &[("Cookie", &cookie)], 200)?;
        Ok(())
    })
}

const TOKENS: &str = "tokens:\n  \
    - { name: sid, issued: { cookie: sid }, carried: { cookie: sid } }\n  \
    - { name: csrf, issued: { field: \"$.csrf\" }, carried: { header: x-csrf } }\n  \
    - { name: cart, issued: { field: \"$.cart.id\" }, carried: { path: \"/carts/{token}/**\" } }";

#[test]
fn a_shadow_that_issues_its_own_values_is_asked_by_them() -> Result<()> {
    const SHOPPERS: u64 = 5;
    let bed = Bed::new()?;
    let shops = || -> Result<(Shop, Shop)> {
        let production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
        Ok((
            production,
            Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Production, CANDIDATE_PORT)?,
        ))
    };
    let (_production, _candidate) = shops()?;
    let select = "methods: [GET, POST]";
    let mut found = Vec::new();
    for tokens in [TOKENS, ""] {
        let replay = format!("credentials: forward\n  session: {{ cookie: sid }}\n  {tokens}");
        let mut agent = start(&bed, select, &replay, ", isolated: true")?;
        for _ in 0..SHOPPERS {
            shop(&bed)?;
        }
        agent.settle(4 * SHOPPERS)?;
        let report = agent.finish()?;
        let endpoints = report.endpoints();
        let requests: u64 = endpoints.iter().map(|endpoint| endpoint.requests).sum();
        let matches: u64 = endpoints.iter().map(|endpoint| endpoint.matches).sum();
        ensure!(requests == 4 * SHOPPERS, "{endpoints:?}");
        found.push((matches, format!("{endpoints:?}")));
        ensure!(!agent.report_text().contains("sid="), "a value is in the report");
    }
    ensure!(found.first().is_some_and(|(matches, _)| *matches == 4 * SHOPPERS), "with tokens: {found:?}");
    ensure!(found.get(1).is_some_and(|(matches, _)| *matches == 0), "without tokens: {found:?}");
    Ok(())
}

#[test]
fn a_request_whose_token_the_shadow_never_issued_is_not_sent() -> Result<()> {
    let bed = Bed::new()?;
    let _production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Production, CANDIDATE_PORT)?;
    let dropped = [("outcome", "dropped"), ("reason", "token")];
    // The log-in is not replayed, and so issues nothing there.
    let select = "methods: [GET, POST], rules: [ { path: /login, skip: true } ]";
    let replay = format!("credentials: forward\n  order: connection\n  {TOKENS}");
    let mut agent = start(&bed, select, &replay, ", isolated: true")?;
    shop(&bed)?;
    let metrics = agent.settle(4)?;
    ensure!(
        metrics.count("shadow_replays_total", &dropped) == 3,
        "{}",
        metrics.counted("shadow_replays_total")
    );
    ensure!(candidate.requests()?.is_empty(), "{:?}", candidate.requests()?);
    agent.finish()?;

    // It is replayed, and fails there.
    drop(candidate);
    let broken = "server { listen 8081; location / { return 500; } }";
    let nginx =
        shadow_tests::servers::Nginx::start(&bed.shadow, bed.folder(), "broken", CANDIDATE_PORT, broken)?;
    let mut agent = start(&bed, "methods: [GET, POST]", &replay, ", isolated: true")?;
    shop(&bed)?;
    let metrics = agent.settle(4)?;
    let dropped = [("outcome", "dropped"), ("reason", "token")];
    ensure!(
        metrics.count("shadow_replays_total", &dropped) == 3,
        "{}",
        metrics.counted("shadow_replays_total")
    );
    let lines = nginx.access_log()?;
    ensure!(lines.iter().filter(|line| line.contains("POST /login")).count() == 1, "{lines:?}");
    ensure!(!lines.iter().any(|line| line.contains("/account") || line.contains("/carts")), "{lines:?}");
    agent.finish().map(drop)
}
