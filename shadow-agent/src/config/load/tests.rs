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
use keys::EVERY_KEY;

mod keys;
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
