//! Tests of what can be changed through the API, and of what the audit log says about it.

use std::sync::Mutex;

use super::*;
use crate::admin::operate::{Refusal, Reloaded, RunStarted};
use crate::audit::{self, Actor};
use crate::runs::LABEL;

/// Does nothing, and remembers who asked for what.
#[derive(Default)]
struct Asked {
    refuse: Option<Refusal>,
    by: Mutex<Vec<(Actor, String)>>,
}

impl Asked {
    fn note<T>(&self, actor: Actor, what: &str, done: T) -> Result<T, Refusal> {
        self.by.lock().unwrap().push((actor, what.to_owned()));
        self.refuse.clone().map_or(Ok(done), Err)
    }
}

impl Operate for Asked {
    fn reload(&self, actor: Actor) -> Result<Reloaded, Refusal> {
        let changed = vec!["compare.ignore".to_owned()];
        let done = Reloaded { changed, run: "v2 #2".to_owned(), new_run: true, enabled: false, held: true };
        self.note(actor, "reload", done)
    }

    fn start_run(&self, actor: Actor, label: &str) -> Result<RunStarted, Refusal> {
        if label.chars().count() > LABEL {
            return Err(Refusal::Label);
        }
        self.note(actor, label, RunStarted { run: label.to_owned(), before: String::new() })
    }
}

fn operated(asked: Asked) -> (AdminState, Arc<Asked>) {
    let asked = Arc::new(asked);
    (AdminState { operate: Some(Arc::clone(&asked) as Arc<dyn Operate>), ..state() }, asked)
}

fn audited(name: &str) -> (AdminState, Audit, Scratch) {
    let scratch = Scratch::new(name);
    let settings = audit::Settings { path: Audit::in_directory(scratch.path()), max_size: 1 << 20, keep: 1 };
    let audit = Audit::start(&settings).unwrap();
    let mut state = state();
    state.sources.audit = audit.clone();
    state.switch = Arc::new(KillSwitch::new(state.sources.control.clone(), None, audit.clone(), false));
    (state, audit, scratch)
}

#[test]
fn sampling_is_set_and_shown_and_a_share_that_is_none_is_refused() {
    let state = state();
    let control = state.sources.control.clone();
    control.set_sample(Share(0.5));
    let server = start(state);
    let put = |body: &str| ask(&server, "PUT", "/api/v1/sample", &[JSON], body);
    let (status, body) = put("{\"sample\": \"10%\"}");
    assert_eq!(status, 200, "{body}");
    let expected = serde_json::json!({ "sample": "10%", "before": "100%", "effective": "5%" });
    assert_eq!(json(&body), expected, "what the guard lowered stays lowered");
    assert_eq!((control.configured_sample(), control.sample()), (Share(0.1), Share(0.05)));
    let shown = json(&get(&server, "/api/v1/status").1);
    assert_eq!((&shown["sample_configured"], &shown["sample"]), (&0.1.into(), &0.05.into()));
    for body in ["{\"sample\": \"110%\"}", "{\"sample\": \"x\"}", "{\"sample\": 0.1}", "{}", ""] {
        check_problem(body, put(body), 400);
    }
    assert_eq!(control.configured_sample(), Share(0.1), "a refusal changes nothing");
}

#[test]
fn reload_and_runs_are_done_by_who_can_do_them_and_refused_with_a_remedy() {
    let (state, asked) = operated(Asked::default());
    let server = start(state);
    let (status, body) = ask(&server, "POST", "/api/v1/reload", &[], "");
    assert_eq!((status, &json(&body)["changed"][0]), (200, &"compare.ignore".into()));
    let post =
        |label: &str| ask(&server, "POST", "/api/v1/runs", &[JSON], &format!("{{\"label\":\"{label}\"}}"));
    assert_eq!(post("v3").0, 200);
    assert_eq!(post(&"x".repeat(LABEL)).0, 200);
    check_problem("a label over the bound", post(&"x".repeat(LABEL + 1)), 400);
    let by = asked.by.lock().unwrap();
    assert_eq!(by.iter().map(|(_, what)| what.as_str()).take(2).collect::<Vec<_>>(), ["reload", "v3"]);
    assert!(by.iter().all(|(actor, _)| actor.to_string().starts_with("api 127.0.0.1:")), "{by:?}");
    for (refusal, expected) in [
        (Refusal::Invalid("line 3".to_owned()), 422),
        (Refusal::NeedsRestart(vec!["capture.ports".to_owned()]), 409),
        (Refusal::Busy, 429),
    ] {
        let (state, _) = operated(Asked { refuse: Some(refusal.clone()), ..Asked::default() });
        let (status, body) = ask(&start(state), "POST", "/api/v1/reload", &[], "");
        assert!(body.contains(&refusal.to_string()), "{body}");
        check_problem("refused", (status, body), expected);
    }
    check_problem("no operator", ask(&start(super::state()), "POST", "/api/v1/reload", &[], ""), 409);
}

#[test]
fn a_run_that_ended_is_asked_about_by_its_label() {
    let state = state();
    let (runs, ledger) = (Arc::clone(&state.sources.runs), Arc::clone(&state.sources.ledger));
    let mark = Mark { ledger: ledger.snapshot(), kernel: Counters::default() };
    let next = runs.current().report().next("v3");
    runs.succeed(mark.clone(), Arc::new(Run::new(next, mark)));
    let server = start(state);
    let outcome = |path: &str| json(&get(&server, path).1)["outcome"].clone();
    assert_eq!(outcome("/api/v1/verdict?run=v2"), "fail");
    assert_eq!(outcome("/api/v1/verdict?run=v3"), "insufficient");
    assert_eq!(outcome("/api/v1/verdict"), "insufficient");
    let status = json(&get(&server, "/api/v1/status").1);
    assert_eq!((&status["run"], &status["runs"]), (&"v3".into(), &serde_json::json!(["v3", "v2"])));
}

#[test]
fn the_audit_log_says_who_changed_what_and_who_looked_at_bodies() {
    let (state, audit, scratch) = audited("audited");
    let server = start(state);
    ask(&server, "PUT", "/api/v1/capture", &[JSON], "{\"enabled\": false}");
    ask(&server, "PUT", "/api/v1/sample", &[JSON], "{\"sample\": \"10%\"}");
    get(&server, "/api/v1/endpoints");
    get(&server, "/api/v1/status");
    audit.flush();
    let text = fs::read_to_string(Audit::in_directory(scratch.path())).unwrap();
    let lines: Vec<Value> = text.lines().map(json).collect();
    let actions: Vec<_> = lines.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["disabled", "sample changed", "body viewed"]);
    for line in &lines {
        let actor = line["actor"].as_str().unwrap();
        assert!(actor.starts_with("api 127.0.0.1:") && actor.ends_with(" no-token"), "{actor}");
    }
}

#[test]
fn the_audit_log_tells_who_brought_the_token_and_never_the_token() {
    let (state, audit, scratch) = audited("audited-token");
    let token = scratch.path().join("token");
    fs::write(&token, SECRET).unwrap();
    let server = serve(&local(Some(token)), state);
    let authorization = format!("Bearer {SECRET}");
    for fields in [vec![JSON], vec![JSON, ("authorization", authorization.as_str())]] {
        ask(&server, "PUT", "/api/v1/capture", &fields, "{\"enabled\": false}");
        ask(&server, "GET", "/api/v1/endpoints", &fields, "");
    }
    audit.flush();
    let text = fs::read_to_string(Audit::in_directory(scratch.path())).unwrap();
    let by = |line: &str| json(line)["actor"].as_str().unwrap().ends_with(" token");
    assert_eq!(text.lines().map(by).collect::<Vec<_>>(), [false, true, true], "{text}");
    assert!(!text.contains(SECRET));
}

#[test]
fn the_client_asks_for_all_of_it() {
    let (state, _) = operated(Asked::default());
    let server = start(state);
    let client = client(server.local_addr(), None);
    let said = block_on(client.set_sample("25%")).unwrap().to_string();
    assert_eq!(said, "25% of flows are asked for instead of 100%, until a restart");
    let said = block_on(client.reload()).unwrap().to_string();
    assert_eq!(
        said,
        "reloaded: compare.ignore changed; a new run began, `v2 #2`; capture stays disabled until `shadow-agent ctl \
         enable`"
    );
    let said = block_on(client.start_run("v3")).unwrap().to_string();
    assert_eq!(said, "run `v3` began; without a label ended");
    let refused = block_on(client.set_sample("x")).unwrap_err().to_string();
    assert!(refused.contains("is not a share"), "{refused}");
}
