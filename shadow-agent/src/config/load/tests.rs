use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser;
use proptest::prelude::*;

use super::super::{Credentials, Polarity, Share, Side, show};
use super::*;
use crate::cli::{Cli, Command};

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
    load(Some(&file.0), variables(environment).into_iter(), &flags(words))
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

/// Every key of this version, each with a value that is not its default.
const EVERY_KEY: &str = r#"
enabled: false
capture:
  interfaces: [eth0, "veth*"]
  mode: tc
  ports: [8080, "9000-9010"]
  side: both
  polarity: egress
  cidrs:
    server: { include: [10.0.0.0/8], exclude: [10.1.0.0/16] }
    client: { include: ["fd00::/8"], exclude: [10.9.0.0/16] }
  seed: 7
  mark: 0x1234
  sample: 50%
  rings: { size: 16MiB, shards: 2 }
  kernel_log: true
limits: { flows: 1024, flow_buffer: 512KiB, total_buffer: 64MiB, body: 2MiB, exchange_timeout: 30s }
select:
  methods: [GET, POST]
  rules: [ { path: "/api/**", sample: 50% }, { path: "/admin/**", skip: true } ]
mask:
  keep: { headers: [Authorization], fields: ["$..email"], query: [token, key] }
  send: { headers: [cookie], fields: ["$..card.number"], query: [session] }
replay:
  credentials: strip
  rate: 500/s
  concurrency: 8
  timeout: 2s
  targets:
    - { name: candidate, url: "http://10.0.0.9:8080/v2", isolated: true, rate: 100/s, concurrency: 4, timeout: 1s, headers: { set: { X-Env: shadow }, remove: [X-Internal] } }
    - { name: other, url: "http://shadow.internal", isolated: true }
  baseline: { name: baseline, url: "http://[fd00::1]:8080", isolated: true }
compare:
  headers: [content-type]
  ignore: ["$.request_id"]
  endpoints: [ { path: "/users/{id}" }, { path: "/refunds", limits: { mismatch: 0% } } ]
  max_endpoints: 64
verdict:
  limits: { mismatch: 0.2%, mismatch_per_endpoint: 2%, error_ratio: 1.5, latency_ratio_p95: 2, loss: 3% }
  confidence: 99%
admin: { listen: "127.0.0.1:9999" }
"#;

#[test]
fn every_key_reaches_its_field() {
    let config = ok(EVERY_KEY);
    assert!(!config.enabled);
    let capture = &config.capture;
    assert_eq!(capture.interfaces, ["eth0", "veth*"]);
    assert_eq!(capture.ports, [(8080, 8080), (9000, 9010)]);
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
    let rules: Vec<_> = config.select.rules.iter().map(|rule| (rule.path.as_str(), rule.share)).collect();
    assert_eq!(rules, [("/api/**", Share(0.5)), ("/admin/**", Share(0.0))]);
    assert_eq!(config.mask.keep.headers, ["authorization"]);
    assert_eq!(config.mask.keep.fields, ["$..email"]);
    assert_eq!(config.mask.keep.query, ["token", "key"]);
    assert_eq!(config.mask.send.headers, ["cookie"]);
    assert_eq!(config.mask.send.fields, ["$..card.number"]);
    assert_eq!(config.mask.send.query, ["session"]);
    assert_eq!(config.replay.credentials, Credentials::Strip);
    let [candidate, other] = &config.replay.targets[..] else { panic!() };
    assert_eq!((candidate.rate, candidate.concurrency), (Some(100.0), 4));
    assert_eq!((candidate.timeout, candidate.isolated), (Duration::from_secs(1), true));
    assert_eq!((candidate.name.as_str(), candidate.url.path()), ("candidate", "/v2"));
    assert_eq!(candidate.set_headers, [("x-env".to_owned(), "shadow".to_owned())]);
    assert_eq!(candidate.remove_headers, ["x-internal"]);
    assert_eq!((other.rate, other.concurrency, other.timeout), (Some(500.0), 8, Duration::from_secs(2)));
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
    let config = load(Some(path), std::iter::empty(), &RunArgs::default()).unwrap();
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
    let by_flags = load(None, std::iter::empty(), &flags(words)).unwrap();
    let by_environment = load(None, variables(&environment).into_iter(), &RunArgs::default()).unwrap();
    assert_eq!(by_flags, by_environment);
    assert_eq!(load_from(EVERY_KEY, &[], words).unwrap().capture.ports, [(80, 80), (90, 91)]);

    assert_eq!(by_flags.capture.interfaces, ["eth1", "veth*"]);
    assert_eq!(by_flags.capture.server.include, ["10.0.0.0/8".parse().unwrap()]);
    let rules: Vec<_> = by_flags.select.rules.iter().map(|rule| (rule.path.as_str(), rule.share)).collect();
    assert_eq!(rules, [("/{a,b}/**", Share(1.0)), ("/c", Share(1.0)), ("**", Share(0.0))]);
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
    let refused = load_from(EVERY_KEY, &[], "--shadow http://elsewhere").unwrap_err();
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
        (&[], "--mode xdp", "--mode: `xdp` is not supported by this version yet; write tc"),
        (
            &[("SHADOW_AGENT_CONCURRENCY", "0")],
            "",
            "environment variable SHADOW_AGENT_CONCURRENCY: `0` is out of bounds; write a value from 1 to 10000",
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
fn what_is_required_is_asked_for() {
    let nothing = load(None, std::iter::empty(), &RunArgs::default()).unwrap_err().to_string();
    assert_eq!(
        nothing,
        "capture.interfaces: required, and nothing was given; name at least one interface or glob here or with --interface"
    );
    check_refused(&[
        (
            "",
            "F: capture.interfaces: required, and nothing was given; name at least one interface or glob here or with --interface",
        ),
        (
            "capture: { interfaces: [eth0], ports: [] }",
            "F: capture.ports: required, and nothing was given; name the server's port here or with --port",
        ),
        (
            "capture: { interfaces: [eth0], ports: [80] }",
            "F: replay.targets: required, and nothing was given; give the URL of the new version here or with --shadow",
        ),
        (
            &LEAST.replace("name: candidate,", ""),
            "F: replay.targets[0].name: required, and nothing was given; give the target a name for reports, such as candidate",
        ),
    ]);
}

/// `LEAST`, and a third line.
fn third(line: &str) -> String {
    format!("{LEAST}{line}\n")
}

#[test]
fn unknown_and_unsupported_keys_are_refused_by_name_and_line() {
    let possible = "possible here: enabled, capture, limits, select, mask, replay, compare, verdict, admin, metrics, store";
    let cases = [
        ("enable: true".to_owned(), "line 3 of F: unknown key `enable`; did you mean `enabled`?".to_owned()),
        ("zzz: true".to_owned(), format!("line 3 of F: unknown key `zzz`; {possible}")),
        (
            "limits:\n  flows: 10\n  flow-buffer: 1MiB".to_owned(),
            "line 5 of F: unknown key `flow-buffer`; did you mean `flow_buffer`?".to_owned(),
        ),
        (
            "enabled: true\nenabled: false".to_owned(),
            "line 4 of F: the key `enabled` is there twice; leave one of them out".to_owned(),
        ),
    ];
    for (line, message) in cases {
        check_refused(&[(&third(&line), &message)]);
    }
    for (line, key) in [
        ("metrics: { listen: \"0.0.0.0:1\" }", "metrics"),
        ("store: { path: /var }", "store"),
        ("limits: { cpu: 50% }", "limits.cpu"),
        ("compare: { tolerance: [{ path: \"$.a\", absolute: 1 }] }", "compare.tolerance"),
        ("compare: { unordered: [] }", "compare.unordered"),
        ("compare: { endpoints: [{ path: /a, critical: true }] }", "compare.endpoints[0].critical"),
        ("compare: { endpoints: [{ path: /a, owner: me }] }", "compare.endpoints[0].owner"),
        ("verdict: { on_insufficient: hold }", "verdict.on_insufficient"),
    ] {
        let message = format!("line 3 of F: {key}: not supported by this version yet; leave it out");
        check_refused(&[(&third(line), &message)]);
    }
    check_refused(&[
        (
            &LEAST.replace("ports:", "budget: 1MiB/s, ports:"),
            "line 1 of F: capture.budget: not supported by this version yet; leave it out",
        ),
        (
            &LEAST.replace("replay: {", "replay: { credentials: replace, "),
            "line 2 of F: replay.credentials: `replace` is not supported by this version yet; write skip, forward or strip",
        ),
    ]);
}

#[test]
fn impossible_values_are_refused_with_key_line_value_and_remedy() {
    let out_of = |key: &str, value: &str, least: &str, most: &str| {
        format!("line 3 of F: {key}: `{value}` is out of bounds; write a value from {least} to {most}")
    };
    for (line, message) in [
        ("enabled: yes", "line 3 of F: enabled: `yes` is neither true nor false; write one of the two".to_owned()),
        ("limits: { flows: 0 }", out_of("limits.flows", "0", "1", "4194304")),
        ("limits: { flows: 4194305 }", out_of("limits.flows", "4194305", "1", "4194304")),
        ("limits: { flow_buffer: 1KiB }", out_of("limits.flow_buffer", "1KiB", "4KiB", "1GiB")),
        ("limits: { body: 0B }", out_of("limits.body", "0B", "1B", "1GiB")),
        ("limits: { total_buffer: 65GiB }", out_of("limits.total_buffer", "65GiB", "1MiB", "64GiB")),
        ("limits: { exchange_timeout: 99ms }", out_of("limits.exchange_timeout", "99ms", "100ms", "3600s")),
        (
            "limits: { exchange_timeout: 60 }",
            "line 3 of F: limits.exchange_timeout: `60` is not a duration; write a number with its unit, such as 250ms, 30s, 10m or 1h".to_owned(),
        ),
        (
            "limits: { total_buffer: 2MiB }",
            "line 3 of F: limits.total_buffer: `2MiB` is less than limits.body (4MiB); raise it or lower the other".to_owned(),
        ),
        ("select: { methods: [get] }", "line 3 of F: select.methods[0]: `get` is not an HTTP method that can be replayed; write one in capitals, such as GET or POST".to_owned()),
        ("select: { methods: [GET, CONNECT] }", "line 3 of F: select.methods[1]: `CONNECT` is not an HTTP method that can be replayed; write one in capitals, such as GET or POST".to_owned()),
        ("select: { rules: [{ path: \"/a/[\", skip: true }] }", "line 3 of F: select.rules[0].path: `/a/[` is not a glob (unclosed character class; missing ']'); `*` stands for anything within a segment".to_owned()),
        ("select: { rules: [{ path: \"a/*\", skip: true }] }", "line 3 of F: select.rules[0].path: `a/*` matches no path, because paths begin with a slash; write /a/*".to_owned()),
        ("select: { rules: [{ path: /a }] }", "line 3 of F: select.rules[0]: the rule for `/a` needs either `sample` or `skip: true`; write one of the two".to_owned()),
        ("select: { rules: [{ path: /a, skip: true, sample: 1% }] }", "line 3 of F: select.rules[0]: the rule for `/a` needs either `sample` or `skip: true`; write one of the two".to_owned()),
        ("mask: { keep: { headers: [\"a b\"] } }", "line 3 of F: mask.keep.headers[0]: `a b` is not a header name; write letters, digits and dashes, such as x-api-key".to_owned()),
        ("compare: { endpoints: [{ path: \"/a/{id\" }] }", "line 3 of F: compare.endpoints[0].path: `/a/{id` is not an endpoint pattern; write a path in which whole segments may be {names}, such as /users/{id}".to_owned()),
        ("compare: { max_endpoints: 10001 }", out_of("compare.max_endpoints", "10001", "1", "10000")),
        ("verdict: { confidence: 100% }", out_of("verdict.confidence", "100%", "50%", "99.99%")),
        ("verdict: { limits: { error_ratio: 0 } }", out_of("verdict.limits.error_ratio", "0", "0.01", "1000")),
        ("admin: { listen: localhost }", "line 3 of F: admin.listen: `localhost` is not an address to listen on; write an IP address and a port such as 127.0.0.1:9465, or off".to_owned()),
        ("admin: { listen: \"0.0.0.0:9465\" }", "line 3 of F: admin.listen: `0.0.0.0:9465` is not a loopback address, and no token protects it; set admin.token_file to a file with a token, or listen on 127.0.0.1".to_owned()),
        ("admin: { token_file: /nonexistent/token }", "line 3 of F: admin.token_file: `/nonexistent/token` cannot be read (No such file or directory (os error 2)); put the token into that file, readable by this user".to_owned()),
        ("admin: { token_file: /dev/null }", "line 3 of F: admin.token_file: `/dev/null` holds no token; write one line of 16 to 4096 visible characters into it".to_owned()),
    ] {
        check_refused(&[(&third(line), &message)]);
    }
    let refused = load_from(&third("mask: { send: { fields: [\"$..[\"] } }"), &[], "").unwrap_err();
    assert!(
        refused.starts_with("line 3 of F: mask.send.fields[0]: `$..[` is not a JSON path of RFC 9535 ("),
        "{refused}"
    );
}

#[test]
fn impossible_captures_are_refused() {
    for (what, message) in [
        ("side: left", "capture.side: `left` is not possible; write server, client or both"),
        ("polarity: up", "capture.polarity: `up` is not possible; write auto, ingress or egress"),
        (
            "cidrs: { client: { exclude: [10.0.0.0/33] } }",
            "capture.cidrs.client.exclude[0]: `10.0.0.0/33` is not a network; write an address with its prefix length, such as 10.0.0.0/8 or fd00::/8",
        ),
        (
            "mark: 0x100000000",
            "capture.mark: `0x100000000` is out of bounds; write a value from 0 to 4294967295",
        ),
        (
            "rings: { size: 255KiB }",
            "capture.rings.size: `255KiB` is out of bounds; write a value from 256KiB to 1GiB",
        ),
        (
            "rings: { size: 1025MiB }",
            "capture.rings.size: `1025MiB` is out of bounds; write a value from 256KiB to 1GiB",
        ),
        ("rings: { shards: 33 }", "capture.rings.shards: `33` is out of bounds; write a value from 1 to 32"),
        ("rings: { shards: some }", "capture.rings.shards: `some` is not possible; write auto or a number"),
        (
            "rings: { size: 1MiB, shards: 5 }",
            "capture.rings: `1MiB` over 5 shards is less than 256KiB for each; raise the size or lower the number of shards",
        ),
    ] {
        let file = LEAST.replace("ports: [8080]", &format!("ports: [8080], {what}"));
        check_refused(&[(&file, &format!("line 1 of F: {message}"))]);
    }
    for (interface, problem) in [
        (
            "\"a b\"",
            "`a b` cannot be the name of an interface; write a name such as eth0 or a glob such as \"veth*\"",
        ),
        (
            "abcdefghijklmnop",
            "`abcdefghijklmnop` cannot be the name of an interface; write a name such as eth0 or a glob such as \"veth*\"",
        ),
        ("\"\"", "the value is empty; give one or leave the key out"),
    ] {
        let file = LEAST.replace("eth0", interface);
        check_refused(&[(&file, &format!("line 1 of F: capture.interfaces[0]: {problem}"))]);
    }
    ok(&LEAST.replace("eth0", "abcdefghijklmno"));
    ok(&LEAST.replace("ports: [8080]", "ports: [8080], rings: { size: 1MiB, shards: 4 }"));
}

#[test]
fn impossible_targets_are_refused() {
    for (url, problem) in [
        ("10.0.0.9:8080", "`10.0.0.9:8080` is not a URL with a host; write one such as http://10.0.0.9:8080"),
        ("http://", "`http://` is not a URL with a host; write one such as http://10.0.0.9:8080"),
        ("http://:80", "`http://:80` is not a URL with a host; write one such as http://10.0.0.9:8080"),
        ("http://a:0", "`http://a:0` is not a URL with a host; write one such as http://10.0.0.9:8080"),
        (
            "http://a:99999",
            "`http://a:99999` is not a URL with a host; write one such as http://10.0.0.9:8080",
        ),
        (
            "https://a",
            "`https://a` wants TLS, which this version cannot speak to a target; write an http:// URL",
        ),
        (
            "http://a/?x=1",
            "`http://a/?x=1` has a query, and requests bring their own; write the URL without it",
        ),
        (
            "http://me:secret@a",
            "the URL holds a user name or password; leave it out and set an authorization header under headers.set",
        ),
    ] {
        let file = LEAST.replace("http://10.0.0.9:8080", url);
        check_refused(&[(&file, &format!("line 2 of F: replay.targets[0].url: {problem}"))]);
    }
    let with = |extra: &str| LEAST.replace("\" }] }", &format!("\"{extra} }}] }}"));
    check_refused(&[
        (
            &LEAST.replace("candidate", "Candidate"),
            "line 2 of F: replay.targets[0].name: `Candidate` cannot be the name of a target; write up to 63 lower-case letters, digits, dashes and underscores",
        ),
        (
            &with(", rate: 0/s"),
            "line 2 of F: replay.targets[0].rate: `0/s` is not a rate; write requests per second such as 500/s, or unlimited",
        ),
        (
            &with(", timeout: 601s"),
            "line 2 of F: replay.targets[0].timeout: `601s` is out of bounds; write a value from 1ms to 600s",
        ),
        (
            &with(", headers: { set: { content-length: 5 } }"),
            "line 2 of F: replay.targets[0].headers.set.content-length: `content-length` is written by the agent itself and cannot be configured; leave it out",
        ),
        (
            &with(", headers: { set: { a: \"b\\r\\nc\" } }"),
            "line 2 of F: replay.targets[0].headers.set.a: the value has characters that a header cannot carry; write visible ASCII on one line",
        ),
        (
            &with("}, { name: candidate, url: \"http://b\""),
            "line 2 of F: replay.targets[1].name: `candidate` is the name of another target too; give each its own",
        ),
        (
            &third("").replace("}] }", "}], baseline: { name: baseline, url: \"http://10.0.0.9:8080/\" } }"),
            "line 2 of F: replay.baseline.url: `http://10.0.0.9:8080/` is the URL of the baseline and of `candidate`, so that no difference could ever be seen; give the baseline production's own version",
        ),
    ]);
}

#[test]
fn lists_are_bounded() {
    let ports = |count: usize| {
        let list: Vec<_> = (1..=count).map(|port| port.to_string()).collect();
        LEAST.replace("[8080]", &format!("[{}]", list.join(", ")))
    };
    ok(&ports(256));
    check_refused(&[(
        &ports(257),
        "line 1 of F: capture.ports: 257 entries are more than the 256 possible; leave some out",
    )]);
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let missing = load(Some(Path::new("/nonexistent.yaml")), std::iter::empty(), &RunArgs::default());
    assert_eq!(
        missing.unwrap_err().to_string(),
        "/nonexistent.yaml: the configuration file cannot be read (No such file or directory (os error 2)); \
         give a readable file with --config"
    );
    let padded = |length: u64| format!("{LEAST}#{}", "x".repeat(length as usize - LEAST.len() - 1));
    ok(&padded(MAX_FILE));
    check_refused(&[(
        &padded(MAX_FILE + 1),
        "F: the configuration file is larger than 1048576 bytes; is it the right file?",
    )]);
    for (file, message) in [
        ("capture: 5", "keys with values are expected here, such as `key: value`"),
        ("- 1", "keys with values are expected here, such as `key: value`"),
        ("capture: { ports: 8080 }", "a list is expected here, such as `[a, b]`"),
        ("enabled: [true]", "a single value is expected here, not a list and not keys"),
        ("select: { rules: [/a] }", "keys with values are expected here, such as `key: value`"),
    ] {
        check_refused(&[(file, &format!("line 1 of F: {message}"))]);
    }
    check_refused(&[("---\n{}\n---\n{}\n", "line 4 of F: a second document begins here; leave `---` out")]);
    for file in ["capture: [", "capture:\n\tports: [1]", "a: *b", "\u{0}"] {
        let refused = load_from(file, &[], "").unwrap_err();
        assert!(refused.starts_with("line "), "{file}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{file}: {refused}");
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
