//! What is refused, and in which words.

use super::*;

#[test]
fn what_is_required_is_asked_for() {
    let nothing = load(Needs::RUN, None, std::iter::empty(), &RunArgs::default()).unwrap_err().to_string();
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

#[test]
fn unknown_and_unsupported_keys_are_refused_by_name_and_line() {
    let possible = "possible here: enabled, capture, limits, select, mask, replay, compare, verdict, admin, traces, audit, guards, metrics, store";
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
            &LEAST.replace("ports:", "budget: 0B/s, ports:"),
            "line 1 of F: capture.budget: `0B/s` is too small to capture anything whole; write at least 64KiB/s, or \
             `enabled: false` to copy nothing",
        ),
        (
            &LEAST.replace("ports:", "budget: 100MiB, ports:"),
            "line 1 of F: capture.budget: `100MiB` is not a number of bytes per second; write one such as 100MiB/s, or \
             unlimited",
        ),
        (
            &LEAST.replace("ports:", "netns: a/b, ports:"),
            "line 1 of F: capture.netns: `a/b` is not a network namespace; write a name that `ip netns` shows, or \
             pid:NUMBER for that of a process",
        ),
        (
            &third("limits: { cpu: 0% }"),
            "line 3 of F: limits.cpu: `0%` is out of bounds; write a value from 1% to 6400%",
        ),
        (
            &LEAST.replace("replay: {", "replay: { credentials: keep, "),
            "line 2 of F: replay.credentials: `keep` is not possible; write skip, forward, strip or replace",
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
            "line 3 of F: limits.total_buffer: `2MiB` leaves too little for limits.flow_buffer (1MiB) in every shard; raise it to 8MiB or lower the other".to_owned(),
        ),
        ("select: { methods: [get] }", "line 3 of F: select.methods[0]: `get` is not an HTTP method that can be replayed; write one in capitals, such as GET or POST".to_owned()),
        ("select: { methods: [GET, CONNECT] }", "line 3 of F: select.methods[1]: `CONNECT` is not an HTTP method that can be replayed; write one in capitals, such as GET or POST".to_owned()),
        ("select: { only: [a/*] }", "line 3 of F: select.only[0]: `a/*` matches no path, because paths begin with a slash; write /a/*".to_owned()),
        ("select: { rules: [{ path: \"/a/[\", skip: true }] }", "line 3 of F: select.rules[0].path: `/a/[` is not a glob (unclosed character class; missing ']'); `*` stands for anything within a segment".to_owned()),
        ("select: { rules: [{ path: \"a/*\", skip: true }] }", "line 3 of F: select.rules[0].path: `a/*` matches no path, because paths begin with a slash; write /a/*".to_owned()),
        ("select: { rules: [{ path: /a }] }", "line 3 of F: select.rules[0]: the rule for `/a` needs either `sample` or `skip: true`; write one of the two".to_owned()),
        ("select: { rules: [{ path: /a, skip: true, sample: 1% }] }", "line 3 of F: select.rules[0]: the rule for `/a` needs either `sample` or `skip: true`; write one of the two".to_owned()),
        ("select: { rules: [{ status: [5x], skip: true }] }", "line 3 of F: select.rules[0].status[0]: `5x` is not a status; write one such as 404, a class such as 5xx, or a range such as 500-599".to_owned()),
        ("select: { rules: [{ status: [599-500], skip: true }] }", "line 3 of F: select.rules[0].status[0]: `599-500` is not a status; write one such as 404, a class such as 5xx, or a range such as 500-599".to_owned()),
        ("select: { rules: [{ request_type: [json], skip: true }] }", "line 3 of F: select.rules[0].request_type[0]: `json` matches no media type; write one such as application/json, or a glob such as image/*".to_owned()),
        ("select: { rules: [{ response_body: { min: 2KiB, max: 1KiB }, skip: true }] }", "line 3 of F: select.rules[0].response_body: min is more than max, so that no body fits; swap the two".to_owned()),
        ("select: { rules: [{ headers: { \"a b\": x }, skip: true }] }", "line 3 of F: select.rules[0].headers.a b: `a b` is not a header name; write letters, digits and dashes, such as x-api-key".to_owned()),
        ("select: { rules: [{ methods: [POST] }] }", "line 3 of F: select.rules[0]: the rule for `every path` needs either `sample` or `skip: true`; write one of the two".to_owned()),
        ("select: { rules: [{ methods: [POST], sample: 1% }] }", "line 3 of F: select.rules[0].methods: the rule lists `POST`, which is not a safe method, and nothing says what becomes of such requests; write mode: skip, send, dry-run or record-only".to_owned()),
        ("select: { rules: [{ methods: [POST], mode: send }] }", "line 3 of F: select.rules[0]: `POST` is not a safe method and `candidate` is not declared isolated; leave the method out, or declare (isolated: true, --isolated) that nothing this target writes reaches anybody".to_owned()),
        ("select: { rules: [{ path: /a, mode: dry-run }] }", "line 3 of F: select.rules[0]: stateful requests are to be dry runs and no target declares that it understands them; write dry_run: true at a target that does, or another mode".to_owned()),
        ("select: { stateful: maybe }", "line 3 of F: select.stateful: `maybe` is not possible; write skip, send, dry-run or record-only".to_owned()),
        ("select: { stateful: record-only }", "line 3 of F: select.record.out: required by the mode record-only; name a file such as /var/lib/shadow-agent/kept.gor.gz".to_owned()),
        ("select: { stateful: record-only, record: { out: kept.txt } }", "line 3 of F: select.record.out: `kept.txt` is of no kind that can be written; end its name in .gor, .gor.gz, .har or .pcapng".to_owned()),
        ("mask: { keep: { headers: [\"a b\"] } }", "line 3 of F: mask.keep.headers[0]: `a b` is not a header name; write letters, digits and dashes, such as x-api-key".to_owned()),
        ("mask: { send: { cookies: [\"a b\"] } }", "line 3 of F: mask.send.cookies[0]: `a b` is not the name of a cookie; write letters, digits, dashes and underscores, such as session_id".to_owned()),
        ("mask: { send: { action: drop } }", "line 3 of F: mask.send.action: `drop` is not possible; write redact, hash or drop-exchange".to_owned()),
        ("mask: { send: { query: [{ name: a, action: hide }] } }", "line 3 of F: mask.send.query[0].action: `hide` is not possible; write redact, hash or drop-exchange".to_owned()),
        ("mask: { send: { query: [{ action: hash }] } }", "line 3 of F: mask.send.query[0]: the entry needs a `name`, or a `path` of JSON, and not both; write one such as { name: email, action: hash }".to_owned()),
        ("mask: { send: { query: [{ name: a, path: b }] } }", "line 3 of F: mask.send.query[0]: the entry needs a `name`, or a `path` of JSON, and not both; write one such as { name: email, action: hash }".to_owned()),
        ("mask: { send: { detectors: { email: maybe } } }", "line 3 of F: mask.send.detectors.email: `maybe` is not possible; write true, false, redact, hash or drop-exchange".to_owned()),
        ("mask: { send: { patterns: [{ name: Staff, regex: a }] } }", "line 3 of F: mask.send.patterns[0].name: `Staff` cannot be the name of a pattern; write up to 32 lower-case letters, digits, dashes and underscores, a letter first".to_owned()),
        ("mask: { send: { patterns: [{ regex: a }] } }", "line 3 of F: mask.send.patterns[0].name: required, and nothing was given; give each pattern a name and a regex".to_owned()),
        ("mask: { send: { patterns: [{ name: a }] } }", "line 3 of F: mask.send.patterns[0].regex: required, and nothing was given; give each pattern a name and a regex".to_owned()),
        ("mask: { send: { patterns: [{ name: a, regex: a }, { name: a, regex: b }] } }", "line 3 of F: mask.send.patterns[1].name: `a` is the name of another pattern too; give each its own".to_owned()),
        ("mask: { send: { patterns: [{ name: a, regex: \"a*\" }] } }", "line 3 of F: mask.send.patterns[0].regex: `a*` matches the empty text, and so everywhere; write an expression that needs at least one character".to_owned()),
        ("mask: { send: { patterns: [{ name: a, regex: \"(b\" }] } }", "line 3 of F: mask.send.patterns[0].regex: `(b` is not a regular expression that can be used (unclosed group); write one such as EMP-[0-9]{6}".to_owned()),
        ("compare: { endpoints: [{ path: \"/a/{id\" }] }", "line 3 of F: compare.endpoints[0].path: `/a/{id` is not an endpoint pattern; write a path in which whole segments may be {names}, such as /users/{id}".to_owned()),
        ("compare: { max_endpoints: 10001 }", out_of("compare.max_endpoints", "10001", "1", "10000")),
        ("verdict: { confidence: 100% }", out_of("verdict.confidence", "100%", "50%", "99.99%")),
        ("verdict: { limits: { error_ratio: 0 } }", out_of("verdict.limits.error_ratio", "0", "0.01", "1000")),
        ("audit: { max_size: 4095B }", out_of("audit.max_size", "4095B", "4KiB", "1GiB")),
        ("audit: { keep: 0 }", out_of("audit.keep", "0", "1", "100")),
        ("audit: { keep: 101 }", out_of("audit.keep", "101", "1", "100")),
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
fn patterns_are_bounded_in_number_length_name_and_memory() {
    use super::super::super::resolve::mask::{MAX_PATTERN, MAX_PATTERN_NAME, MAX_PATTERNS};
    let load = |patterns: &str| {
        load_from(&third(&format!("mask: {{ send: {{ patterns: [{patterns}] }} }}")), &[], "")
    };
    let one = |name: &str, regex: &str| format!("{{ name: {name}, regex: \"{regex}\" }}");
    let many = |count: usize| {
        (0..count).map(|number| one(&format!("p{number}"), "a")).collect::<Vec<_>>().join(", ")
    };
    for (fits, beyond, said) in [
        (many(MAX_PATTERNS), many(MAX_PATTERNS + 1), "33 entries are more than the 32 possible"),
        (
            one("a", &"b".repeat(MAX_PATTERN)),
            one("a", &"b".repeat(MAX_PATTERN + 1)),
            "the expression has 1025 bytes, more than the 1024 possible",
        ),
        (
            one(&"n".repeat(MAX_PATTERN_NAME), "a"),
            one(&"n".repeat(MAX_PATTERN_NAME + 1), "a"),
            "cannot be the name of a pattern",
        ),
        (one("a", "b{1000}"), one("a", "b{1000}{1000}"), "is not a regular expression that can be used"),
    ] {
        load(&fits).unwrap();
        let refused = load(&beyond).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn more_connections_than_can_be_kept_out_of_the_capture_are_refused() {
    let targets = |count: usize, more: &str| {
        let target =
            |number| format!("{{ name: t{number}, url: \"http://10.0.0.9:{}\"{more} }}", 9000 + number);
        let targets: Vec<_> = (0..count).map(target).collect();
        format!(
            "capture: {{ interfaces: [eth0], ports: [8080] }}\nreplay: {{ concurrency: 3836, targets: [{}] }}\n",
            targets.join(", ")
        )
    };
    let refused = |line_or_flag: &str, count: usize| {
        Err(format!(
            "{line_or_flag}: the limits of all targets come to {count} connections, idle ones included, and at most 16384 \
             can be kept out of the capture; lower the concurrency of some"
        ))
    };
    // Beside 3,836 requests under way, 256 connections of HTTP/1 and 4 of HTTP/2 may be idle.
    ok(&targets(4, ""));
    let from_file = load_from(&targets(5, ""), &[], "").map(drop);
    assert_eq!(from_file, refused("line 2 of F: replay.concurrency", 5 * 4096));
    let flag = load_from(&targets(4, ""), &[], "--concurrency 3837").map(drop);
    assert_eq!(flag, refused("--concurrency", 4 * 4097));
    let own = load_from(&targets(4, ", concurrency: 4096"), &[], "").map(drop);
    assert_eq!(own, refused("line 2 of F: replay.concurrency", 4 * 4356));
    ok(&targets(8, ", concurrency: 1024"));
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
        ("ftp://a", "`ftp://a` is not a URL with a host; write one such as http://10.0.0.9:8080"),
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
    let replay = |more: &str| LEAST.replace("replay: {", &format!("replay: {{ {more},"));
    let session = "write one of cookie, header and field, such as { cookie: sid }";
    let none = "no place in a message is named that is possible here";
    for (more, key, problem) in [
        ("order: fifo", "order", "`fifo` is not possible; write none, connection or session".to_owned()),
        ("order: session", "session", format!("{none}; {session}")),
        ("session: { cookie: a, header: b }", "session", format!("{none}; {session}")),
        ("session: { query: a }", "session.query", format!("{none}; {session}")),
        (
            "session: { cookie: \"a=b\" }",
            "session.cookie",
            "`a=b` cannot be the name of a cookie or parameter; write up to 256 visible characters without ; , and =".to_owned(),
        ),
        (
            "tokens: [{ name: a, issued: { cookie: a } }]",
            "tokens[0].carried",
            format!("{none}; write one or more of cookie, header, query, field and path, such as {{ header: x-csrf }}"),
        ),
        (
            "tokens: [{ name: a, issued: { cookie: a }, carried: { path: \"/a/*\" } }]",
            "tokens[0].carried.path",
            "`/a/*` is not a path with a token in it; write one in which one segment is {token}, such as /carts/{token}/**".to_owned(),
        ),
        (
            "tokens: [{ issued: { cookie: a }, carried: { cookie: a } }]",
            "tokens[0].name",
            "required, and nothing was given; give the token a name, such as sid".to_owned(),
        ),
    ] {
        let refused = load_from(&replay(more), &[], "").map(|_| "it was accepted");
        let line = if key == "tokens[0].name" { "F" } else { "line 2 of F" };
        assert_eq!(refused, Err(format!("{line}: replay.{key}: {problem}")), "{more}");
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
    let rules = |count: usize| third(&format!("select: {{ rules: [{}] }}", "{ skip: true },".repeat(count)));
    ok(&rules(256));
    check_refused(&[(
        &rules(257),
        "line 3 of F: select.rules: 257 entries are more than the 256 possible; leave some out",
    )]);
    let entries = |count: usize| {
        third(&format!("select: {{ rules: [ {{ skip: true, status: [{}] }} ] }}", "200,".repeat(count)))
    };
    ok(&entries(32));
    check_refused(&[(
        &entries(33),
        "line 3 of F: select.rules[0].status: 33 entries are more than the 32 possible; leave some out",
    )]);
    let glob = |length: usize| {
        third(&format!("select: {{ rules: [ {{ skip: true, headers: {{ a: {} }} }} ] }}", "x".repeat(length)))
    };
    ok(&glob(1024));
    check_refused(&[(
        &glob(1025),
        "line 3 of F: select.rules[0].headers.a: the glob is longer than the 1024 characters possible; shorten it, or make several of it",
    )]);
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let missing =
        load(Needs::RUN, Some(Path::new("/nonexistent.yaml")), std::iter::empty(), &RunArgs::default());
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
fn a_ramp_that_is_no_ladder_is_refused() {
    let many = |count: u32| (1..=count).map(|share| format!("{share}% 1s, ")).collect::<String>() + "100%";
    let cases = [
        ("fast", "replay.ramp[0]: `fast` is not a stage of a ramp; write a share and how long it lasts, such as 10% 1h, and for the last stage the share alone, such as 100%".to_owned()),
        ("1% 10m 2, 100%", "replay.ramp[0]: `1% 10m 2` is not a stage of a ramp; write a share and how long it lasts, such as 10% 1h, and for the last stage the share alone, such as 100%".to_owned()),
        ("0% 10m, 100%", "replay.ramp[0]: `0%` is out of bounds; write a value from 0.01% to 100%".to_owned()),
        ("10% 1h, 10% 1h, 100%", "replay.ramp[1]: `10%` is not more than the stage before it (10%); write shares that rise".to_owned()),
        ("1%, 100%", "replay.ramp[0]: `1%` does not say how long it lasts, and it is not the last stage; write one such as 1% 10m".to_owned()),
        ("1% 10m, 100% 1h", "replay.ramp[1]: `100% 1h` is the last stage and lasts for good; leave the time out".to_owned()),
        ("1% 100ms, 100%", "replay.ramp[0]: `100ms` is out of bounds; write a value from 1s to 2592000s".to_owned()),
        (&many(16), "replay.ramp: 17 entries are more than the 16 possible; leave some out".to_owned()),
    ];
    let with = |ramp: &str| LEAST.replace("}] }", &format!("}}], ramp: [{ramp}] }}"));
    for (ramp, message) in cases {
        check_refused(&[(&with(ramp), &format!("line 2 of F: {message}"))]);
    }
    assert_eq!(ok(&with(&many(15))).portion.ramp.len(), 16);
}

#[test]
fn a_guard_that_cannot_be_is_refused() {
    for (guard, message) in [
        (
            "production_latency: { threshold: 1 }",
            "production_latency.threshold: `1` is out of bounds; write a value from 1.05 to 100",
        ),
        (
            "production_errors: { threshold: 0% }",
            "production_errors.threshold: `0%` is out of bounds; write a value from 0.01% to 100%",
        ),
        (
            "production_errors: { action: pause-target }",
            "production_errors.action: `pause-target` is not possible; write step-back, disable or off",
        ),
        (
            "shadow_errors: { action: stop }",
            "shadow_errors.action: `stop` is not possible; write pause-target, step-back, disable or off",
        ),
        (
            "shadow_latency: { window: 10ms }",
            "shadow_latency.window: `10ms` is out of bounds; write a value from 1s to 3600s",
        ),
        (
            "memory: { threshold: 1MiB }",
            "memory.threshold: `1MiB` is out of bounds; write a value from 32MiB to 64GiB",
        ),
        (
            "mask_failures: { threshold: 1 }",
            "mask_failures.threshold: this guard has no threshold; leave it out",
        ),
        ("pause: 0s", "pause: `0s` is out of bounds; write a value from 1s to 86400s"),
    ] {
        let message = format!("line 3 of F: guards.{message}");
        check_refused(&[(&third(&format!("guards: {{ {guard} }}")), &message)]);
    }
}
