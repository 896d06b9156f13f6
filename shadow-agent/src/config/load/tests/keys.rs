//! Every key reaches its field.

use super::*;

/// Every key of this version, each with a value that is not its default.
pub(super) const EVERY_KEY: &str = r#"
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
fn a_ramp_turns_on_guards_unless_they_are_said_to_be_off() {
    let with = |more: &str| {
        let text = LEAST.replace("}] }", "}], ramp: [5% 10m, 100%] }");
        let guards = ok(&format!("{text}{more}\n")).guards;
        [guards.production_latency.action, guards.production_errors.action, guards.ring_losses.action]
    };
    let (on, off) = (GuardAction::StepBack, GuardAction::Off);
    assert_eq!(with(""), [on, on, on]);
    assert_eq!(with("guards: { production_latency: { action: off } }"), [off, on, on]);
    let without = ok(LEAST).guards;
    assert_eq!((without.production_errors.action, without.ring_losses.action), (off, off));
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
