//! What is accepted: every key, every source, and which wins.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser;
use proptest::prelude::*;

use super::super::{
    AuditPlace, Breaker, Condition, Credentials, GuardAction, GuardRule, Guards, HostHeader, Http, Mask,
    MaskAction, MaskRule, Missing, Mode, NetNs, Order, Polarity, RecordOnly, SelectRule, Share, Side, Sizes,
    Stateful, Tls, TokenPlace, XdpMode, show,
};
use super::*;
use crate::cli::{Cli, Command};
use crate::ramp::Stage;

mod refusals;
mod targets;

/// A file in the temporary directory that goes away with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(text: &str) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("shadow-agent-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const LEAST: &str = "capture: { interfaces: [eth0], ports: [8080] }\n\
                     replay: { targets: [{ name: candidate, url: \"http://10.0.0.9:8080\" }] }\n";

fn flags(words: &str) -> RunArgs {
    let words = ["shadow-agent", "run"].into_iter().chain(words.split_whitespace());
    match Cli::try_parse_from(words).unwrap().command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn variables(pairs: Pairs<'_>) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_from(file: &str, environment: Pairs<'_>, words: &str) -> Result<Config, String> {
    let file = Scratch::new(file);
    load(Needs::RUN, Some(&file.0), variables(environment).into_iter(), &flags(words))
        .map_err(|error| error.to_string().replace(&file.0.display().to_string(), "F"))
}

fn ok(file: &str) -> Config {
    load_from(file, &[], "").unwrap()
}

#[track_caller]
fn check_refused(cases: &[(&str, &str)]) {
    for (file, message) in cases {
        let refused = load_from(file, &[], "").map(|_| "it was accepted");
        assert_eq!(refused, Err((*message).to_owned()), "{file}");
    }
}

/// `LEAST`, and a third line.
fn third(line: &str) -> String {
    format!("{LEAST}{line}\n")
}

/// Every key of this version, each with a value that is not its default.
const EVERY_KEY: &str = r#"
enabled: false
capture:
  interfaces: [eth0, "veth*"]
  netns: pid:7
  mode: xdp
  xdp: native
  ports: [8080, "9000-9010"]
  side: both
  polarity: egress
  cidrs:
    server: { include: [10.0.0.0/8], exclude: [10.1.0.0/16] }
    client: { include: ["fd00::/8"], exclude: [10.9.0.0/16] }
  seed: 7
  mark: 0x1234
  sample: 50%
  budget: 100MiB/s
  rings: { size: 16MiB, shards: 2 }
  kernel_log: true
limits: { flows: 1024, flow_buffer: 512KiB, total_buffer: 64MiB, body: 2MiB, exchange_timeout: 30s, cpu: 150% }
select:
  methods: [GET, POST]
  only: ["/api/**"]
  rules:
    - { path: "/api/**", sample: 50% }
    - { path: "/admin/**", skip: true }
    - methods: [PUT]
      headers: { X-Tenant: "acme-*" }
      status: [200, "4xx", "500-599"]
      request_body: { min: 1KiB, max: 1MiB }
      response_body: { max: 2MiB }
      request_type: ["application/*"]
      response_type: [Text/HTML]
      sample: 25%
      mode: dry-run
  stateful: record-only
  record: { out: /var/tmp/kept.gor.gz, rotate_size: 1MiB, keep: 3 }
mask:
  keep:
    headers: [Authorization]
    fields: [{ path: "$..email", action: hash }]
    query: [token, key]
    detectors: { email: false, card: hash }
  send:
    action: hash
    headers: [cookie]
    cookies: [sid, { name: Cart, action: redact }]
    fields: ["$..card.number"]
    query: [session]
    form: [{ name: pin, action: drop-exchange }]
    patterns: [{ name: staff, regex: "EMP-[0-9]{6}" }, { name: case, regex: "case \\d+", action: redact }]
    detectors: { email: true, iban: drop-exchange, private_key: false }
replay:
  credentials: strip
  rate: 500/s
  concurrency: 8
  timeout: 2s
  dns_refresh: 1m
  idempotency_header: X-Request-Key
  targets:
    - { name: candidate, url: "http://10.0.0.9:8080/v2", isolated: true, rate: 100/s, concurrency: 4, timeout: 1s, headers: { set: { X-Env: shadow }, remove: [X-Internal] } }
    - { name: other, url: "http://shadow.internal", isolated: true, dry_run: true, http: 2, host: target, dns_refresh: 10s, breaker: off, idempotency_header: off }
    - { name: secure, url: "https://shadow.internal", isolated: true, tls: { server_name: shadow.test, verify: false }, http: 1.1, host: "shop.example:81", breaker: { failures: 20%, latency: 2s, pause: 5s } }
  baseline: { name: baseline, url: "http://[fd00::1]:8080", isolated: true }
  ramp: [1% 10m, 10% 1h, 50%]
  budget: 200/s
  dry_run: { header: X-Mode, value: dry }
  order: session
  session: { field: "$.user.id" }
  tokens:
    - { name: sid, issued: { cookie: sid }, carried: { cookie: sid, query: s, path: "/carts/{token}/**" } }
    - { name: csrf, issued: { header: X-Csrf, field: "$.csrf" }, carried: { header: X-Csrf }, missing: send }
compare:
  headers: [content-type]
  ignore: ["$.request_id"]
  endpoints: [ { path: "/users/{id}" }, { path: "/refunds", limits: { mismatch: 0% } } ]
  max_endpoints: 64
verdict:
  limits: { mismatch: 0.2%, mismatch_per_endpoint: 2%, error_ratio: 1.5, latency_ratio_p95: 2, loss: 3% }
  confidence: 99%
admin: { listen: "127.0.0.1:9999" }
audit: { path: /var/log/shadow-agent/audit.log, max_size: 1MiB, keep: 3 }
guards:
  pause: 5m
  production_latency: { threshold: 2, window: 1m, action: disable }
  production_errors: { threshold: 1%, window: 20s, action: off }
  shadow_errors: { threshold: 30%, window: 10s, action: step-back }
  shadow_latency: { threshold: 250ms, window: 15s, action: pause-target }
  memory: { threshold: 512MiB, window: 5s, action: step-back }
  ring_losses: { threshold: 1%, window: 45s, action: disable }
  mask_failures: { action: step-back }
"#;

#[test]
fn every_key_reaches_its_field() {
    let config = ok(EVERY_KEY);
    assert!(!config.enabled);
    let capture = &config.capture;
    assert_eq!(capture.interfaces, ["eth0", "veth*"]);
    assert_eq!(capture.ports, [(8080, 8080), (9000, 9010)]);
    assert_eq!((&capture.netns, capture.mode), (&Some(NetNs::Pid(7)), Mode::Xdp(XdpMode::Native)));
    assert_eq!((capture.budget, config.limits.cpu), (Some(100 << 20), Some(Share(1.5))));
    assert_eq!((capture.side, capture.polarity), (Side::Both, Polarity::Egress));
    assert_eq!((capture.seed, capture.mark, capture.sample), (7, 0x1234, Share(0.5)));
    assert_eq!((capture.ring_size, capture.shards, capture.kernel_log), (16 << 20, Some(2), true));
    assert_eq!(capture.server.include, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(capture.server.exclude, ["10.1.0.0/16".parse().unwrap()]);
    assert_eq!(capture.client.include, ["fd00::/8".parse().unwrap()]);
    assert_eq!(capture.client.exclude, ["10.9.0.0/16".parse().unwrap()]);
    let limits = &config.limits;
    assert_eq!((limits.flows, limits.flow_buffer, limits.total_buffer), (1024, 512 << 10, 64 << 20));
    assert_eq!((limits.body, limits.exchange_timeout), (2 << 20, Duration::from_secs(30)));
    assert_eq!(config.select.methods.iter().collect::<Vec<_>>(), ["GET", "POST"]);
    assert_eq!(config.select.only, ["/api/**"]);
    let rule = SelectRule::by_path;
    assert_eq!(config.select.rules[..2], [rule("/api/**", Share(0.5)), rule("/admin/**", Share(0.0))]);
    let condition = Condition {
        methods: ["PUT".to_owned()].into(),
        path: None,
        headers: vec![("x-tenant".to_owned(), "acme-*".to_owned())],
        status: vec![(200, 200), (400, 499), (500, 599)],
        request_body: Sizes { min: 1 << 10, max: 1 << 20 },
        response_body: Sizes { min: 0, max: 2 << 20 },
        request_type: vec!["application/*".to_owned()],
        response_type: vec!["text/html".to_owned()],
    };
    let by_all = SelectRule { condition, share: Share(0.25), mode: Some(Stateful::DryRun) };
    assert_eq!(config.select.rules[2..], [by_all]);
    assert_eq!(config.select.stateful, Some(Stateful::RecordOnly));
    let record = RecordOnly { out: "/var/tmp/kept.gor.gz".into(), rotate_size: 1 << 20, keep: 3 };
    assert_eq!(config.select.record, Some(record));
    assert_eq!(config.replay.dry_run, ("x-mode".to_owned(), "dry".to_owned()));
    let text = |text: &str| text.to_owned();
    assert_eq!(config.replay.order, Order::Session(TokenPlace::Field(text("$.user.id"))));
    let [sid, csrf] = &config.replay.tokens[..] else { panic!() };
    assert_eq!((sid.name.as_str(), sid.missing, csrf.missing), ("sid", Missing::Drop, Missing::Send));
    assert_eq!(sid.issued, [TokenPlace::Cookie(text("sid"))]);
    let carried = [TokenPlace::Cookie(text("sid")), TokenPlace::Query(text("s"))];
    assert_eq!(sid.carried[..2], carried);
    assert_eq!(sid.carried[2..], [TokenPlace::Path(text("/carts/{token}/**"))]);
    assert_eq!(csrf.issued, [TokenPlace::Header(text("x-csrf")), TokenPlace::Field(text("$.csrf"))]);
    masks(&config.mask);
    assert_eq!(config.replay.credentials, Credentials::Strip);
    let [candidate, other, secure] = &config.replay.targets[..] else { panic!() };
    assert_eq!((candidate.rate, candidate.concurrency), (Some(100.0), 4));
    assert_eq!((candidate.timeout, candidate.isolated), (Duration::from_secs(1), true));
    assert_eq!((candidate.name.as_str(), candidate.url.path()), ("candidate", "/v2"));
    assert_eq!(candidate.set_headers, [("x-env".to_owned(), "shadow".to_owned())]);
    assert_eq!(candidate.remove_headers, ["x-internal"]);
    assert_eq!((other.rate, other.concurrency, other.timeout), (Some(500.0), 8, Duration::from_secs(2)));
    assert_eq!((other.http, &other.host, secure.http), (Http::Two, &HostHeader::Target, Http::One));
    assert_eq!(secure.host, HostHeader::Name("shop.example:81".to_owned()));
    assert_eq!((other.dns_refresh, secure.dns_refresh), (Duration::from_secs(10), Duration::from_secs(60)));
    assert_eq!(other.idempotency_header, None);
    assert_eq!(secure.idempotency_header.as_deref(), Some("x-request-key"));
    let (failures, pause) = (Share(0.2), Duration::from_secs(5));
    let breaker = Breaker { failures, latency: Some(Duration::from_secs(2)), pause };
    assert_eq!((&other.breaker, &secure.breaker), (&None, &Some(breaker)));
    let named = Some("shadow.test".to_owned());
    assert_eq!(secure.tls, Tls { server_name: named, verify: false, ..Tls::default() });
    assert_eq!((secure.port(), other.port()), (443, 80));
    assert_eq!(config.replay.baseline.as_ref().unwrap().url.host(), Some("[fd00::1]"));
    assert_eq!(config.compare.headers, ["content-type"]);
    assert_eq!(config.compare.ignore, ["$.request_id"]);
    let endpoints: Vec<_> = config.compare.endpoints.iter().map(|e| (e.path.as_str(), e.mismatch)).collect();
    assert_eq!(endpoints, [("/users/{id}", None), ("/refunds", Some(Share(0.0)))]);
    assert_eq!(config.compare.max_endpoints, 64);
    let verdict = &config.verdict;
    assert_eq!((verdict.mismatch, verdict.mismatch_per_endpoint), (Share(0.002), Share(0.02)));
    assert_eq!((verdict.error_ratio, verdict.latency_ratio_p95), (1.5, 2.0));
    assert_eq!((verdict.loss, verdict.confidence), (Share(0.03), Share(0.99)));
    assert_eq!(config.admin.listen, Some("127.0.0.1:9999".parse().unwrap()));
    let audit = &config.audit;
    assert_eq!(audit.place, AuditPlace::File("/var/log/shadow-agent/audit.log".into()));
    assert_eq!((audit.max_size, audit.keep), (1 << 20, 3));
    assert_eq!(ok(&third("audit: { path: off }")).audit.place, AuditPlace::Off);
    let stage = |share, minutes| Stage { share: Share(share), hold: minutes };
    let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    let stages = [stage(0.01, minutes(10)), stage(0.1, minutes(60)), stage(0.5, None)];
    assert_eq!((config.portion.ramp.as_slice(), config.portion.budget), (stages.as_slice(), Some(200.0)));
    check_guards(&config.guards);
}

fn check_guards(guards: &Guards) {
    use GuardAction::{Disable, Off, PauseTarget, StepBack};
    fn rule<T>(threshold: T, seconds: u64, action: GuardAction) -> GuardRule<T> {
        GuardRule { threshold, window: Duration::from_secs(seconds), action }
    }
    let expected = Guards {
        pause: Duration::from_secs(300),
        production_latency: rule(2.0, 60, Disable),
        production_errors: rule(Share(0.01), 20, Off),
        shadow_errors: rule(Share(0.3), 10, StepBack),
        shadow_latency: rule(Duration::from_millis(250), 15, PauseTarget),
        memory: rule(Some(512 << 20), 5, StepBack),
        ring_losses: rule(Share(0.01), 45, Disable),
        mask_failures: StepBack,
    };
    assert_eq!(*guards, expected);
}

#[test]
fn a_ramp_turns_on_the_guards_of_production_unless_they_are_said_to_be_off() {
    let with = |more: &str| {
        let text = LEAST.replace("}] }", "}], ramp: [5% 10m, 100%] }");
        let guards = ok(&format!("{text}{more}\n")).guards;
        (guards.production_latency.action, guards.production_errors.action)
    };
    assert_eq!(with(""), (GuardAction::StepBack, GuardAction::StepBack));
    assert_eq!(
        with("guards: { production_latency: { action: off } }"),
        (GuardAction::Off, GuardAction::StepBack)
    );
}

fn masks(mask: &Mask) {
    use MaskAction::{DropExchange, Hash, Redact};
    let rules = |rules: &[MaskRule]| -> Vec<_> {
        rules.iter().map(|rule| (rule.name.clone(), rule.action)).collect()
    };
    let expect = |found: &[MaskRule], expected: &[(&str, MaskAction)]| {
        let expected: Vec<_> = expected.iter().map(|(name, action)| ((*name).to_owned(), *action)).collect();
        assert_eq!(rules(found), expected);
    };
    let Mask { keep, send } = mask;
    expect(&keep.headers, &[("authorization", Redact)]);
    expect(&keep.fields, &[("$..email", Hash)]);
    expect(&keep.query, &[("token", Redact), ("key", Redact)]);
    assert_eq!(keep.detectors.0, [None, Some(Hash), Some(Redact), Some(Redact), Some(Redact), Some(Redact)]);
    expect(&send.headers, &[("cookie", Hash)]);
    expect(&send.cookies, &[("sid", Hash), ("Cart", Redact)]);
    expect(&send.fields, &[("$..card.number", Hash)]);
    expect(&send.query, &[("session", Hash)]);
    expect(&send.form, &[("pin", DropExchange)]);
    let patterns: Vec<_> =
        send.patterns.iter().map(|found| (&*found.name, &*found.regex, found.action)).collect();
    assert_eq!(patterns, [("staff", "EMP-[0-9]{6}", Hash), ("case", "case \\d+", Redact)]);
    assert_eq!(send.detectors.0, [Some(Hash), None, Some(DropExchange), None, None, None]);
}

#[test]
fn what_is_left_out_is_at_its_default() {
    let mut config = ok(LEAST);
    let default = Config::default();
    assert_eq!(config.replay.targets[0].concurrency, 64);
    config.capture.interfaces.clear();
    config.capture.ports.clear();
    config.replay.targets.clear();
    assert_eq!(config, default);
    assert_eq!(
        ok(&format!("{LEAST}select:\nlimits: ~\nadmin: {{ token_file: }}\n")),
        ok(LEAST),
        "empty sections"
    );
}

#[test]
fn the_example_that_is_installed_is_accepted_and_shown() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/shadow-agent.yaml"));
    let config = load(Needs::RUN, Some(path), std::iter::empty(), &RunArgs::default()).unwrap();
    let shown = show::yaml(&config).unwrap();
    let keys = |text: &str| {
        let words = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let words =
            words.flat_map(|line| line.split([' ', '{', ',', '-'])).filter_map(|word| word.strip_suffix(':'));
        words.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let explained = keys(&std::fs::read_to_string(path).unwrap());
    let unexplained: Vec<_> = keys(&shown).difference(&explained).cloned().collect();
    assert_eq!(unexplained, ["kernel_log", "max_endpoints"], "keys that the example does not explain");
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = format!("{LEAST}select: {{ methods: [HEAD] }}\n")
        .replace("ports: [8080]", "ports: [8080], sample: 10%");
    let environment = [("SHADOW_AGENT_SAMPLE", "20%"), ("HOME", "/"), ("SHADOW_AGENT_LOG", "debug")];
    let sample = |environment: Pairs<'_>, words| load_from(&file, environment, words).unwrap().capture.sample;
    assert_eq!(sample(&[], ""), Share(0.1));
    assert_eq!(sample(&environment, ""), Share(0.2));
    assert_eq!(sample(&environment, "--sample 30%"), Share(0.3));
    assert_eq!(sample(&[], "--sample 30%"), Share(0.3));
}

#[test]
fn every_flag_and_its_variable_do_the_same() {
    let words = "--interface eth1 --interface veth* --port 80 --port 90-91 --cidr 10.0.0.0/8 --shadow http://c \
                 --baseline http://b --method GET --method POST --isolated --path /{a,b}/** --path /c \
                 --credentials forward --sample 5% --rate 9/s --concurrency 3 --mode tc --admin 127.0.0.1:1";
    let environment = [
        ("SHADOW_AGENT_INTERFACE", "eth1, veth*"),
        ("SHADOW_AGENT_PORT", "80,90-91"),
        ("SHADOW_AGENT_CIDR", "10.0.0.0/8"),
        ("SHADOW_AGENT_SHADOW", "http://c"),
        ("SHADOW_AGENT_BASELINE", "http://b"),
        ("SHADOW_AGENT_METHOD", "GET,POST"),
        ("SHADOW_AGENT_ISOLATED", "true"),
        ("SHADOW_AGENT_PATH", "/{a,b}/**,/c"),
        ("SHADOW_AGENT_CREDENTIALS", "forward"),
        ("SHADOW_AGENT_SAMPLE", "5%"),
        ("SHADOW_AGENT_RATE", "9/s"),
        ("SHADOW_AGENT_CONCURRENCY", "3"),
        ("SHADOW_AGENT_MODE", "tc"),
        ("SHADOW_AGENT_ADMIN", "127.0.0.1:1"),
    ];
    let by_flags = load(Needs::RUN, None, std::iter::empty(), &flags(words)).unwrap();
    let by_environment =
        load(Needs::RUN, None, variables(&environment).into_iter(), &RunArgs::default()).unwrap();
    assert_eq!(by_flags, by_environment);
    let file = EVERY_KEY.replace("mode: dry-run", "mode: skip");
    assert_eq!(load_from(&file, &[], words).unwrap().capture.ports, [(80, 80), (90, 91)]);

    assert_eq!(by_flags.capture.interfaces, ["eth1", "veth*"]);
    assert_eq!(by_flags.capture.server.include, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(by_flags.select.only, ["/{a,b}/**", "/c"]);
    assert_eq!(by_flags.select.rules, [], "the built-in skips still apply");
    for target in by_flags.replay.targets.iter().chain(&by_flags.replay.baseline) {
        assert_eq!(
            (target.isolated, target.rate, target.concurrency),
            (true, Some(9.0), 3),
            "{}",
            target.name
        );
    }
    let names: Vec<_> =
        by_flags.replay.targets.iter().map(|target| (&*target.name, target.url.host())).collect();
    assert_eq!(names, [("candidate", Some("c"))]);
    assert_eq!(by_flags.replay.credentials, Credentials::Forward);
}

#[test]
fn a_given_limit_beats_the_one_of_a_target_and_a_given_target_inherits_nothing() {
    let config = load_from(EVERY_KEY, &[], "--rate 1/s --concurrency 1").unwrap();
    assert!(config.replay.targets.iter().all(|target| target.rate == Some(1.0) && target.concurrency == 1));
    let file =
        EVERY_KEY.replace("stateful: record-only", "stateful: send").replace("mode: dry-run", "mode: skip");
    let refused = load_from(&file, &[], "--shadow http://elsewhere").unwrap_err();
    assert!(
        refused.contains("`POST` is not a safe method and `candidate` is not declared isolated"),
        "{refused}"
    );
}

#[test]
fn variables_of_kubernetes_services_are_passed_over() {
    let links = [
        ("SHADOW_AGENT_SERVICE_HOST", "10.0.0.1"),
        ("SHADOW_AGENT_SERVICE_PORT_METRICS", "9465"),
        ("SHADOW_AGENT_PORT", "tcp://10.0.0.1:9465"),
        ("SHADOW_AGENT_PORT_9465_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(load_from(LEAST, &links, "").unwrap(), ok(LEAST));
}

#[test]
fn values_given_on_the_way_are_refused_with_where_they_were_given() {
    let cases: [(Pairs<'_>, &str, &str); 6] = [
        (&[], "--sample 250%", "--sample: `250%` is not a share; write one from 0% to 100%, such as 25%"),
        (&[], "--mode pcap", "--mode: `pcap` is not possible; write tc or xdp"),
        (
            &[("SHADOW_AGENT_CONCURRENCY", "0")],
            "",
            "environment variable SHADOW_AGENT_CONCURRENCY: `0` is out of bounds; write a value from 1 to 4096",
        ),
        (
            &[("SHADOW_AGENT_INTERFACES", "eth0")],
            "",
            "environment variable SHADOW_AGENT_INTERFACES means nothing to shadow-agent; \
             did you mean `SHADOW_AGENT_INTERFACE`?",
        ),
        (
            &[("SHADOW_AGENT_ADMIN", "")],
            "",
            "environment variable SHADOW_AGENT_ADMIN: the value is empty; give one or leave the key out",
        ),
        (
            &[],
            "--method DELETE",
            "--method: `DELETE` is not a safe method and `candidate` is not declared isolated; leave the method \
             out, or declare (isolated: true, --isolated) that nothing this target writes reaches anybody",
        ),
    ];
    for (environment, words, message) in cases {
        let refused = load_from(LEAST, environment, words).map(|_| "it was accepted");
        assert_eq!(refused, Err(message.to_owned()));
    }
}

#[test]
fn a_token_lets_the_admin_api_off_loopback() {
    for (token, good) in
        [("0123456789abcdef\n", true), ("0123456789abcde\n", false), ("0123456789 bcdef", false)]
    {
        let file = Scratch::new(token);
        let line = format!("admin: {{ listen: \"0.0.0.0:9465\", token_file: {} }}", file.0.display());
        assert_eq!(load_from(&third(&line), &[], "").is_ok(), good, "{token:?}");
    }
    for (length, good) in [(4096, true), (4097, false)] {
        let file = Scratch::new(&"x".repeat(length));
        let line = format!("admin: {{ token_file: {} }}", file.0.display());
        assert_eq!(load_from(&third(&line), &[], "").is_ok(), good, "{length}");
    }
}

#[test]
fn a_descriptor_set_is_read_and_shown_by_its_path() {
    use prost_reflect::prost::Message;

    let good = Scratch::new("");
    std::fs::write(&good.0, crate::compare::descriptors::tests::set().encode_to_vec()).unwrap();
    let path = good.0.display().to_string();
    let config = ok(&third(&format!("compare: {{ descriptors: {path} }}")));
    assert_eq!(config.compare.descriptors.as_ref().unwrap().path, good.0);
    let shown = show::yaml(&config).unwrap();
    assert!(shown.contains(&path), "{shown}");
    assert_eq!(ok(&shown), config);

    let bad = Scratch::new("syntax = \"proto3\";");
    let empty = Scratch::new("");
    for (path, expected) in [
        (
            "/nowhere/api.pb",
            "`/nowhere/api.pb` cannot be read (No such file or directory (os error 2)); give the file that `protoc --descriptor_set_out` has written",
        ),
        (bad.0.to_str().unwrap(), "is no descriptor set ("),
        (
            empty.0.to_str().unwrap(),
            "names no method of any service; write it from the files that define the services",
        ),
        ("\"\"", "the value is empty"),
    ] {
        let refused = load_from(&third(&format!("compare: {{ descriptors: {path} }}")), &[], "").unwrap_err();
        assert!(
            refused.starts_with("line 3 of F: compare.descriptors: ") && refused.contains(expected),
            "{refused}"
        );
    }
}

#[test]
fn what_is_shown_is_read_back_and_holds_no_secret() {
    let mut config = ok(EVERY_KEY);
    let shown = show::yaml(&config).unwrap();
    assert!(shown.contains("<hidden>") && !shown.contains("x-env: shadow"), "{shown}");
    config.replay.targets[0].set_headers[0].1 = "<hidden>".to_owned();
    assert_eq!(ok(&shown), config, "{shown}");
    let least = ok(LEAST);
    assert_eq!(ok(&show::yaml(&least).unwrap()), least);
}

#[test]
fn a_target_that_is_the_captured_service_is_a_loop() {
    let own = ["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
    let cases = [
        ("http://10.0.0.9:8080", "", true),
        ("http://10.0.0.9:8081", "", false),
        ("http://10.0.0.8:8080", "", false),
        ("http://[fd00::9]:8080", "", true),
        ("http://[::ffff:10.0.0.9]:8080", "", true),
        ("http://localhost:8080", "", true),
        ("http://127.0.0.1", "", false),
        ("http://10.0.0.9:8080", "--cidr 10.0.0.7/32", false),
        ("http://nonexistent.invalid:8080", "", false),
    ];
    for (url, words, is_loop) in cases {
        let config = load_from(&LEAST.replace("http://10.0.0.9:8080", url), &[], words).unwrap();
        let found = check::check_loop(&config, &own);
        assert_eq!(found.is_err(), is_loop, "{url} {words}: {found:?}");
    }
    let config = load_from(LEAST, &[], "--baseline http://127.0.0.1:8080 --shadow http://10.0.0.1").unwrap();
    assert_eq!(
        check::check_loop(&config, &own).unwrap_err().to_string(),
        "the target `baseline` (http://127.0.0.1:8080/) is the captured service itself: 127.0.0.1 is an address of this host \
         and port 8080 is captured; give the URL of another host or port, or narrow the captured servers with --cidr"
    );
}

proptest! {
    #[test]
    fn no_file_panics(text in "\\PC{0,80}") {
        let _ = file::parse(&text, Path::new("F"));
    }
}
