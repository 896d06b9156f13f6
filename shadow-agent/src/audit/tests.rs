//! Tests of what is written, and of what happens when it cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const PEER: Actor =
    Actor::Api { peer: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7), token: true };

fn settings(folder: &tempfile::TempDir) -> Settings {
    Settings { path: Audit::in_directory(folder.path()), max_size: 1 << 20, keep: 2 }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line))).collect()
}

#[test]
fn every_action_is_one_line_that_says_who_and_what_and_when() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    let audit = Audit::start(&settings).unwrap();
    let cases = [
        (Actor::Agent, Action::Started { run: "v2".into(), enabled: true }, "agent", "started"),
        (PEER, Action::Switched { before: true, after: false }, "api 127.0.0.1:7 token", "disabled"),
        (
            Actor::Signal("SIGUSR1"),
            Action::Switched { before: false, after: false },
            "signal SIGUSR1",
            "disabled",
        ),
        (PEER, Action::Switched { before: false, after: true }, "api 127.0.0.1:7 token", "enabled"),
        (
            Actor::Config,
            Action::UnsafeMethods { methods: vec!["POST".into()], targets: vec!["candidate".into()] },
            "config",
            "unsafe methods allowed",
        ),
        (
            PEER,
            Action::Reloaded { sections: vec!["compare.ignore".into()] },
            "api 127.0.0.1:7 token",
            "reloaded",
        ),
        (PEER, Action::ReloadRefused { why: "no".into() }, "api 127.0.0.1:7 token", "reload refused"),
        (
            PEER,
            Action::Sample { before: Share(1.0), after: Share(0.1) },
            "api 127.0.0.1:7 token",
            "sample changed",
        ),
        (
            PEER,
            Action::RunStarted { before: "v1".into(), after: "v2".into() },
            "api 127.0.0.1:7 token",
            "run started",
        ),
        (
            PEER,
            Action::NoiseMarked { difference: "7".into(), before: false, after: true },
            "api 127.0.0.1:7 token",
            "noise marked",
        ),
        (PEER, Action::BodyViewed { resource: "/x" }, "api 127.0.0.1:7 token", "body viewed"),
        (
            Actor::Guard("cpu"),
            Action::Guarded { what: "ramp", target: None, before: "50%".into(), after: "10%".into() },
            "guard cpu",
            "guard stepped",
        ),
        (Actor::Agent, Action::Stopped, "agent", "stopped"),
    ];
    for (actor, action, ..) in cases.clone() {
        audit.record(actor, action);
    }
    audit.flush();
    let found = lines(&settings.path);
    assert_eq!(found.len(), cases.len());
    for (line, (_, _, actor, action)) in found.iter().zip(cases) {
        assert_eq!((&line["actor"], &line["action"]), (&json!(actor), &json!(action)));
        assert!(line["time"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{line}");
        assert!(line.get("before").is_some() && line.get("after").is_some(), "{line}");
    }
    assert_eq!(found[1]["before"], json!({ "enabled": true }));
    assert_eq!(found[7]["after"], json!({ "sample": "10%" }));
    assert_eq!(fs::metadata(&settings.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(audit.failures(), 0);
}

#[test]
fn texts_and_lists_are_cut_off_at_their_bounds() {
    let action = |length: usize| Action::ReloadRefused { why: "x".repeat(length) };
    let said = |action: &Action| action.change().1["refused"].as_str().unwrap().len();
    assert_eq!((said(&action(TEXT)), said(&action(TEXT + 1))), (TEXT, TEXT));
    let sections = |length: usize| Action::Reloaded { sections: vec!["s".into(); length] };
    let said = |action: &Action| action.change().1["changed"].as_array().unwrap().len();
    assert_eq!((said(&sections(LIST)), said(&sections(LIST + 1))), (LIST, LIST));
}

#[test]
fn another_file_is_begun_at_the_size_and_so_many_older_ones_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { max_size: 20, ..settings(&folder) };
    let mut file = AuditFile::open(&settings).unwrap();
    for line in
        ["1234567890\n", "12345678\n", "a\n", "bbbbbbbbbbbbbbbbbbb\n", "cc\n", "dddddddddddddddddddddddd\n"]
    {
        file.append(line.as_bytes()).unwrap();
    }
    let read = |end: &str| fs::read_to_string(format!("{}{end}", settings.path.display())).ok();
    assert_eq!(
        read("").as_deref(),
        Some("dddddddddddddddddddddddd\n"),
        "a line longer than the size has a file to itself"
    );
    assert_eq!(read(".1").as_deref(), Some("cc\n"));
    assert_eq!(read(".2").as_deref(), Some("bbbbbbbbbbbbbbbbbbb\n"));
    assert_eq!(read(".3"), None, "what is older is gone");
}

#[test]
fn a_file_that_is_exactly_full_is_rotated_by_the_next_line_only() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { max_size: 4, ..settings(&folder) };
    let mut file = AuditFile::open(&settings).unwrap();
    file.append(b"1\n").unwrap();
    file.append(b"2\n").unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    file.append(b"3\n").unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_torn_last_line_is_ended_and_nothing_before_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    fs::write(&settings.path, "{\"whole\":1}\n{\"to").unwrap();
    let mut file = AuditFile::open(&settings).unwrap();
    file.append(b"{\"next\":1}\n").unwrap();
    file.append(b"{\"last\":1}\n").unwrap();
    let text = fs::read_to_string(&settings.path).unwrap();
    assert_eq!(text, "{\"whole\":1}\n{\"to\n{\"next\":1}\n{\"last\":1}\n");
}

#[test]
fn a_file_that_was_moved_away_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    let mut file = AuditFile::open(&settings).unwrap();
    file.append(b"1\n").unwrap();
    fs::rename(&settings.path, folder.path().join("away")).unwrap();
    file.append(b"2\n").unwrap();
    assert_eq!(fs::read_to_string(&settings.path).unwrap(), "2\n");
}

#[test]
fn what_cannot_be_written_is_counted_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { path: folder.path().join("below/audit.log"), ..settings(&folder) };
    fs::create_dir(folder.path().join("below")).unwrap();
    let audit = Audit::start(&settings).unwrap();
    audit.record(Actor::Agent, Action::Stopped);
    audit.flush();
    assert_eq!(audit.failures(), 0);
    fs::remove_dir_all(folder.path().join("below")).unwrap();
    audit.record(Actor::Agent, Action::Stopped);
    audit.flush();
    assert_eq!(audit.failures(), 1);
    fs::create_dir(folder.path().join("below")).unwrap();
    audit.record(Actor::Agent, Action::Stopped);
    audit.flush();
    assert_eq!((audit.failures(), lines(&settings.path).len()), (1, 1));
}

#[test]
fn the_queue_is_bounded_and_what_is_beyond_is_counted() {
    let (queue, entries) = sync_channel(QUEUE);
    let shared =
        Shared { queue: Some(queue), failures: AtomicU64::new(0), complained: AtomicBool::new(false) };
    let audit = Audit(Arc::new(shared));
    (0..QUEUE).for_each(|_| audit.record(Actor::Agent, Action::Stopped));
    assert_eq!(audit.failures(), 0);
    audit.record(Actor::Agent, Action::Stopped);
    assert_eq!(audit.failures(), 1);
    audit.flush();
    drop(entries);
}

#[test]
fn a_place_that_cannot_be_written_to_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("none/audit.log"), "/dev/null".into()] {
        let error =
            Audit::start(&Settings { path: path.clone(), ..settings(&folder) }).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the audit log {} cannot be", path.display())), "{error}");
        assert!(error.contains("audit.path"), "{error}");
    }
    let audit = Audit::off();
    audit.record(Actor::Agent, Action::Stopped);
    audit.flush();
    assert_eq!((audit.is_on(), audit.failures()), (false, 0));
}
