//! Tests of the API over real sockets on the loopback interface.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use http::Uri;
use serde_json::Value;

use super::client::{Client, ClientError};
use super::*;
use crate::audit::Audit;
use crate::capture::kernel::{Attached, Attachment};
use crate::capture::{Counters, PacketResult};
use crate::config::Share;
use crate::control::Control;
use crate::ledger::Ledger;
use crate::metrics::ReplayState;
use crate::policy::mask::Masker;
use crate::report::testing::{report, run, traffic};
use crate::runs::{Mark, Run, Runs};

const SECRET: &str = "a-token-nobody-may-see";

/// A directory of its own for one test, removed at its end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("shadow-agent-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn state() -> AdminState {
    let (ledger, first) = (Arc::new(Ledger::new(1, 2)), Run::new(report(true), Mark::default()));
    run(first.report(), &ledger, traffic("/users/{id}", 40, 4, true));
    for observation in traffic("/users/{id}", 40, 4, true) {
        first.selected();
        let ends = observation.targets.iter().enumerate();
        ends.for_each(|(target, end)| first.replayed(target, end.outcome));
    }
    let sources = Sources {
        ledger,
        runs: Arc::new(Runs::new(Arc::new(first))),
        control: Control::new(true),
        kernel: Arc::new(|| Counters { packets: vec![1; PacketResult::ALL.len()], bytes: 10 }),
        replay: Arc::new(|| vec![ReplayState::default(); 2]),
        interfaces: Arc::new(|| {
            vec![Attached { device: "eth0".to_owned(), attachment: Attachment::Clsact, xdp: None }]
        }),
        spans: Arc::new(|| None),
        cpu: Arc::default(),
        cpu_limit: Some(Share::ALL),
        audit: Audit::off(),
        guards: Arc::default(),
        masks: Arc::new(|| Masker::default().tallies()),
    };
    let metrics = Arc::new(Metrics::new(sources.clone()).unwrap());
    let switch = Arc::new(KillSwitch::new(sources.control.clone(), None, Audit::off(), false));
    AdminState { sources, metrics, readiness: Readiness::new(), switch, operate: None }
}

/// The same, with a switch that is remembered.
fn remembering(file: SwitchFile) -> AdminState {
    let state = state();
    let control = state.sources.control.clone();
    let switch = Arc::new(KillSwitch::new(control, Some(file), Audit::off(), false));
    AdminState { switch, ..state }
}

fn local(token_file: Option<PathBuf>) -> config::Admin {
    config::Admin { listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), token_file }
}

fn start(state: AdminState) -> Server {
    serve(&local(None), state)
}

fn serve(admin: &config::Admin, state: AdminState) -> Server {
    Server::start(Door::open(admin).unwrap().unwrap(), state).unwrap()
}

/// Sends bytes as they are; gives the status and everything behind the head.
fn raw(server: &Server, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.local_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status, body)
}

fn ask(server: &Server, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !fields.iter().any(|(name, _)| *name == "host") {
        request += "host: localhost\r\n";
    }
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    raw(server, &format!("{request}\r\n{body}"))
}

fn get(server: &Server, path: &str) -> (u16, String) {
    ask(server, "GET", path, &[], "")
}

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn check_problem(name: &str, (status, body): (u16, String), expected: u16) {
    assert_eq!(status, expected, "{name}: {body}");
    let problem = json(&body);
    for field in ["error", "remedy"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{name}: {body}");
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn probes_follow_the_latches() {
    let state = state();
    let latch = state.readiness.latch("capture");
    let server = start(state);
    assert_eq!(get(&server, "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(get(&server, "/readyz"), (503, "waiting for capture\n".to_owned()));
    latch.release();
    assert_eq!(get(&server, "/readyz"), (200, "ok\n".to_owned()));
    server.shutdown();
}

#[test]
fn metrics_status_endpoints_and_verdict_are_served() {
    let server = start(state());
    let (status, text) = get(&server, "/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("shadow_ledger_imbalance 0"), "{text}");
    let status = json(&get(&server, "/api/v1/status").1);
    assert_eq!(status["enabled"], true);
    assert_eq!(status["seen"], 40);
    assert_eq!(status["imbalance"], 0);
    assert_eq!(status["targets"][0]["mismatches"], 10);
    assert_eq!(status["packets"]["ring_full"], 1);
    assert_eq!(status["interfaces"], serde_json::json!([{ "name": "eth0", "attachment": "clsact" }]));
    let endpoints = json(&get(&server, "/api/v1/endpoints").1);
    assert_eq!(endpoints[0]["endpoint"], "/users/{id}");
    assert_eq!(endpoints[0]["targets"][0]["differences"][0]["place"], "body:$.price");
    let verdict = json(&get(&server, "/api/v1/verdict").1);
    assert_eq!(verdict["outcome"], "fail");
    assert_eq!(get(&server, "/api/v1/verdict?run=v2").0, 200);
    check_problem("another run", get(&server, "/api/v1/verdict?run=v3"), 404);
}

#[test]
fn the_switch_is_thrown_and_remembered() {
    let scratch = Scratch::new("remember");
    let file = SwitchFile::in_directory(scratch.path());
    let state = remembering(file.clone());
    let control = state.sources.control.clone();
    let server = start(state);
    for (enabled, changed) in [(false, true), (false, false), (true, true)] {
        let (status, body) =
            ask(&server, "PUT", "/api/v1/capture", &[JSON], &format!("{{\"enabled\": {enabled}}}"));
        assert_eq!(status, 200, "{body}");
        let body = json(&body);
        assert_eq!((&body["enabled"], &body["changed"]), (&enabled.into(), &changed.into()));
        assert_eq!(body["persistent"], true);
        assert_eq!(control.enabled(), enabled);
        assert_eq!(file.disabled().unwrap(), !enabled);
    }
}

#[test]
fn a_switch_that_cannot_be_remembered_is_thrown_all_the_same() {
    let scratch = Scratch::new("unwritable");
    let not_a_directory = scratch.path().join("file");
    fs::write(&not_a_directory, "").unwrap();
    let state = remembering(SwitchFile::in_directory(&not_a_directory));
    let control = state.sources.control.clone();
    let server = start(state);
    let answer = ask(&server, "PUT", "/api/v1/capture", &[JSON], "{\"enabled\": false}");
    check_problem("unwritable", answer, 500);
    assert!(!control.enabled());
}

#[test]
fn what_cannot_be_done_is_refused_with_a_remedy() {
    let state = state();
    let control = state.sources.control.clone();
    let server = start(state);
    let off = "{\"enabled\": false}";
    let put = |fields: &[(&str, &str)], body: &str| ask(&server, "PUT", "/api/v1/capture", fields, body);
    let spaces = |length: usize| format!("{off}{}", " ".repeat(length - off.len()));
    check_problem("no such path", get(&server, "/nothing"), 404);
    check_problem("wrong method", ask(&server, "POST", "/api/v1/capture", &[JSON], off), 405);
    check_problem("a form", put(&[("content-type", "text/plain")], off), 415);
    check_problem("no type", put(&[], off), 415);
    check_problem("no JSON", put(&[JSON], "off"), 400);
    check_problem("a typing error", put(&[JSON], "{\"enable\": false}"), 400);
    check_problem("too much", put(&[JSON], "{\"enabled\": false, \"for\": 3}"), 400);
    check_problem("a body over the bound", put(&[JSON], &spaces(actions::BODY_BYTES + 1)), 413);
    check_problem(
        "a rebound name",
        ask(&server, "GET", "/api/v1/status", &[("host", "evil.example")], ""),
        403,
    );
    check_problem("a page elsewhere", put(&[JSON, ("origin", "http://evil.example")], off), 403);
    assert!(control.enabled(), "nothing of this has switched anything");
    assert_eq!(put(&[JSON], &spaces(actions::BODY_BYTES)).0, 200, "a body at the bound");
    assert!(!control.enabled());
}

#[test]
fn garbage_does_no_harm() {
    let server = start(state());
    for garbage in ["\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}", &"x".repeat(64 << 10)] {
        let mut stream = TcpStream::connect(server.local_addr()).unwrap();
        let _ = stream.write_all(garbage.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(get(&server, "/livez").0, 200);
}

#[test]
fn silent_clients_at_the_bound_do_not_shut_others_out_for_good() {
    let server = start(state());
    let silent: Vec<TcpStream> =
        (0..serve::CONNECTIONS).map(|_| TcpStream::connect(server.local_addr()).unwrap()).collect();
    // Every slot is taken by a client that says nothing; it is given up after the head timeout.
    assert_eq!(get(&server, "/livez").0, 200);
    drop(silent);
}

#[test]
fn the_token_is_needed_off_loopback_and_shown_nowhere() {
    let scratch = Scratch::new("secret");
    let token_file = scratch.path().join("token");
    fs::write(&token_file, format!("{SECRET}\n")).unwrap();
    let off_loopback = config::Admin {
        listen: Some(SocketAddr::from(([0, 0, 0, 0], 0))),
        token_file: Some(token_file.clone()),
    };
    let server = serve(&off_loopback, state());
    let bearer = format!("Bearer {SECRET}");
    let host = ("host", "agent.example:9465");
    let port = server.local_addr().port();
    let server_at = |path: &str, fields: &[(&str, &str)]| {
        assert_ne!(port, 0);
        ask(&server, "GET", path, fields, "")
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(server_at(path, &[host]).0, 200, "{path}");
    }
    for path in ["/api/v1/status", "/api/v1/endpoints", "/api/v1/verdict", "/api/v1/nothing"] {
        check_problem(path, server_at(path, &[host]), 401);
        check_problem(path, server_at(path, &[host, ("authorization", "Bearer wrong")]), 401);
    }
    for path in ["/metrics", "/api/v1/status", "/api/v1/endpoints", "/api/v1/verdict"] {
        let (status, body) = server_at(path, &[host, ("authorization", &bearer)]);
        assert_eq!(status, 200, "{path}");
        let place = scratch.path().display().to_string();
        assert!(!body.contains(SECRET) && !body.contains(&place), "{path}: {body}");
    }
    let on_loopback = serve(&local(Some(token_file)), state());
    assert_eq!(get(&on_loopback, "/api/v1/status").0, 200);
    check_problem("values from bodies", get(&on_loopback, "/api/v1/endpoints"), 401);
}

#[test]
fn starting_is_refused_in_one_clear_sentence() {
    let taken = start(state());
    let missing = PathBuf::from("/nonexistent/token");
    let off_loopback = Some(SocketAddr::from(([0, 0, 0, 0], 0)));
    let foreign = Some(SocketAddr::from(([192, 0, 2, 1], 9465)));
    let token = Scratch::new("foreign");
    let token_file = token.path().join("token");
    fs::write(&token_file, SECRET).unwrap();
    let cases = [
        (config::Admin { listen: off_loopback, token_file: None }, "there is no token: set admin.token_file"),
        (
            config::Admin { listen: off_loopback, token_file: Some(missing) },
            "/nonexistent/token cannot be read",
        ),
        (config::Admin { listen: Some(taken.local_addr()), token_file: None }, "is already in use"),
        (
            config::Admin { listen: foreign, token_file: Some(token_file) },
            "192.0.2.1:9465 cannot be listened on",
        ),
    ];
    for (admin, part) in cases {
        let error = Door::open(&admin).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
    let off = config::Admin { listen: None, token_file: None };
    assert!(Door::open(&off).unwrap().is_none());
}

#[test]
fn shutdown_frees_the_address_even_with_a_client_connected() {
    let server = start(state());
    let address = server.local_addr();
    let _idle = TcpStream::connect(address).unwrap();
    server.shutdown();
    let again = config::Admin { listen: Some(address), token_file: None };
    serve(&again, state()).shutdown();
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn client(address: SocketAddr, token: Option<&str>) -> Client {
    Client::new(format!("http://{address}").parse().unwrap(), token).unwrap()
}

#[test]
fn the_client_reads_status_and_throws_the_switch() {
    let state = state();
    let control = state.sources.control.clone();
    let server = start(state);
    let client = client(server.local_addr(), None);
    let status = block_on(client.status()).unwrap();
    assert_eq!((status.enabled, status.seen, status.verdict.as_str()), (true, 40, "fail"));
    let shown = status.to_string();
    for part in
        ["capture    enabled", "40 seen, 40 replayed", "candidate: 40 answered (100 %)", "verdict    fail"]
    {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let switched = block_on(client.set_enabled(false)).unwrap();
    assert!(!switched.enabled && switched.changed && !switched.persistent);
    assert!(!control.enabled());
    assert!(block_on(client.status()).unwrap().to_string().contains("capture    disabled"));
}

#[test]
fn the_client_says_what_is_wrong() {
    let scratch = Scratch::new("client");
    let token_file = scratch.path().join("token");
    fs::write(&token_file, SECRET).unwrap();
    let listen = Some(SocketAddr::from(([0, 0, 0, 0], 0)));
    let guarded = serve(&config::Admin { listen, token_file: Some(token_file) }, state());
    let at = SocketAddr::from(([127, 0, 0, 1], guarded.local_addr().port()));
    assert!(block_on(client(at, Some(SECRET)).status()).is_ok());
    let refused = block_on(client(at, None).status()).unwrap_err();
    assert!(matches!(refused, ClientError::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains("Authorization: Bearer"), "{refused}");

    let gone = start(state());
    let nobody = gone.local_addr();
    gone.shutdown();
    let unreachable = block_on(client(nobody, None).status()).unwrap_err();
    let text = unreachable.to_string();
    assert!(
        text.contains(&format!("no agent answers at http://{nobody} (")) && text.contains("--admin"),
        "{text}"
    );

    for base in ["https://127.0.0.1:1", "http://127.0.0.1:1/api", "/status", "http://user@host"] {
        let error = Client::new(base.parse().unwrap(), None).unwrap_err();
        assert!(matches!(error, ClientError::Address { .. }), "{base}: {error}");
    }
    let error = Client::new(Uri::from_static("http://h"), Some("line\nbreak")).unwrap_err();
    assert!(!error.to_string().contains("break"), "{error}");
    assert!(!format!("{:?}", client(at, Some(SECRET))).contains(SECRET));
}

#[test]
fn the_client_recognises_another_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "SSH-2.0-x\r\n"];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1_024]);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let strange = block_on(client(address, None).status()).unwrap_err();
    assert!(matches!(strange, ClientError::Strange { .. }), "{strange:?}");
    let protocol = block_on(client(address, None).status()).unwrap_err();
    assert!(matches!(protocol, ClientError::Protocol { .. }), "{protocol:?}");
    server.join().unwrap();
}

mod changes;
