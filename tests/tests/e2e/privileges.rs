//! Least privilege: three capabilities to start with, two from then on, whoever the agent runs as.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::load::{self, Plan};
use shadow_tests::netns;
use shadow_tests::process::wait_until;
use shadow_tests::report::Report;
use shadow_tests::servers::{Shop, program};
use shadow_tests::service::Version;

use crate::refusals::check;

/// The user and group `nobody` of every distribution.
const NOBODY: u32 = 65_534;
const NEEDED: [&str; 3] = ["bpf", "net_admin", "perfmon"];
/// CAP_NET_ADMIN and CAP_BPF, as /proc/PID/status writes them.
const KEPT: &str = "0000008000001000";
const MARK: &str = "fwmark:0x1050";

/// Who the agent runs as, in a world of its own: its program and its folder.
struct Whom {
    name: &'static str,
    id: u32,
    program: PathBuf,
    folder: PathBuf,
}

impl Whom {
    /// A user as systemd starts it with `User=` and `AmbientCapabilities=`.
    fn nobody(bed: &Bed) -> Result<Whom> {
        Whom::new(bed, "nobody", NOBODY)
    }

    /// UID 0 as a container runtime starts it, with all capabilities dropped and some added.
    fn root(bed: &Bed) -> Result<Whom> {
        Whom::new(bed, "root", 0)
    }

    fn new(bed: &Bed, name: &'static str, id: u32) -> Result<Whom> {
        // The agent may be built where others than root do not come.
        fs::set_permissions(bed.folder(), Permissions::from_mode(0o755))?;
        let own = bed.folder().join("shadow-agent");
        fs::copy(program("shadow-agent")?, &own)?;
        let folder = folder_of(bed, name, id)?;
        Ok(Whom { name, id, program: own, folder })
    }

    /// The command line that runs what follows it as this user, with these capabilities.
    fn way(&self, capabilities: &[&str]) -> Vec<String> {
        let all: String = capabilities.iter().map(|capability| format!(",+{capability}")).collect();
        let id = self.id;
        let mut way = vec!["setpriv".to_owned(), "--no-new-privs".to_owned(), "--clear-groups".to_owned()];
        way.extend([format!("--reuid={id}"), format!("--regid={id}"), format!("--bounding-set=-all{all}")]);
        match id {
            0 => way.push("--inh-caps=-all".to_owned()),
            _ => way.extend([format!("--inh-caps=-all{all}"), format!("--ambient-caps=-all{all}")]),
        }
        way.extend(["--pdeathsig", "KILL", "--"].map(str::to_owned));
        way
    }

    fn start<'a>(&self, bed: &'a Bed, arguments: &[&str]) -> Result<Agent<'a>> {
        let way = self.way(&NEEDED);
        let way: Vec<&str> = way.iter().map(String::as_str).collect();
        let shadow = bed.candidate_url();
        let base = ["--port", "8080", "--shadow", &shadow];
        let report = self.folder.join("report.json");
        Agent::by_way_of(bed, &way, &self.program, report, &[&base, arguments].concat())
    }
}

/// A folder that belongs to a user, and that others may look into.
fn folder_of(bed: &Bed, name: &str, id: u32) -> Result<PathBuf> {
    let folder = bed.folder().join(format!("of-{name}"));
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
    chown(&folder, Some(id), Some(id))?;
    Ok(folder)
}

fn shops(bed: &Bed) -> Result<(Shop, Shop)> {
    let production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Production, CANDIDATE_PORT)?;
    Ok((production, candidate))
}

/// Sends `count` requests at 500 a second; all must be answered.
fn load(bed: &Bed, address: SocketAddr, count: u64) -> Result<()> {
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /products/{number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan = Plan { address, rate: 500, count, connections: 8, request: &request };
    let outcome = bed.client.run(|| load::run(&plan))?;
    ensure!(outcome.ok == count, "production answered {} of {count}", outcome.ok);
    Ok(())
}

/// Fails unless every thread of a process has the two capabilities that are kept, no others, and no way to regain any.
fn check_threads(id: u32) -> Result<()> {
    let none = "0".repeat(16);
    let expected =
        [("CapEff", KEPT), ("CapPrm", KEPT), ("CapInh", &none), ("CapAmb", &none), ("NoNewPrivs", "1")];
    let mut threads = 0;
    for entry in fs::read_dir(format!("/proc/{id}/task"))? {
        let status = fs::read_to_string(entry?.path().join("status"))?;
        let value = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            line.map(str::trim).with_context(|| format!("no {field} in:\n{status}"))
        };
        for (field, expected) in expected {
            ensure!(value(field)? == expected, "thread {}: {field} {}", value("Name")?, value(field)?);
        }
        threads += 1;
    }
    ensure!(threads > 4, "{threads} threads are not all of them");
    Ok(())
}

/// The marks of the agent's connections to the candidate.
fn marks(bed: &Bed) -> Result<String> {
    let candidate = bed.candidate_address().ip().to_string();
    let output = bed.production.command("ss").args(["-Htne", "dst", &candidate]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Captures, replays and compares as `whom`; later devices, the kill switch, its memory, and the mark must work with
/// what is left.
fn check_whole(bed: &Bed, whom: &Whom) -> Result<()> {
    let (_production, _candidate) = shops(bed)?;
    let state = whom.folder.join("state");
    let state_text = state.to_string_lossy();
    let mut agent = whom.start(bed, &["--interface", "front*", "--state", &state_text])?;
    check_threads(agent.process.id())?;
    load(bed, bed.production_address(), 200)?;
    agent.settle(200)?;
    let marks = marks(bed)?;
    ensure!(!marks.is_empty() && marks.lines().all(|line| line.contains(MARK)), "unmarked:\n{marks}");

    // It has its address before its name matches, so that it is known which way it leads.
    netns::join((&bed.client, "eth1", &["10.77.3.2/24"]), (&bed.production, "late", &["10.77.3.1/24"]))?;
    for change in [&["down"][..], &["name", "front2"]] {
        bed.production.ip(&[&["link", "set", "late"], change].concat())?;
    }
    bed.production.ip(&["link", "set", "front2", "up"])?;
    wait_until("the later device to be captured from", Duration::from_secs(20), || {
        let said = agent.process.log();
        ensure!(said.contains("one more interface") && said.contains("front2"), "the agent said:\n{said}");
        Ok(())
    })?;
    load(bed, SocketAddr::from(([10, 77, 3, 1], PORT)), 100)?;
    agent.settle(300)?;
    check_threads(agent.process.id())?;

    for (enabled, position) in [(false, r#"{"enabled": false}"#), (true, r#"{"enabled": true}"#)] {
        let reply = agent.ask("PUT", "/api/v1/capture", position)?;
        ensure!((200..300).contains(&reply.status), "{} {}", reply.status, reply.text());
        ensure!(state.join("disabled").exists() != enabled, "the switch at {enabled} was not remembered");
        let copied = || {
            let copied = agent.metrics()?.count("shadow_capture_packets_total", &[("result", "copied")]);
            anyhow::Ok(copied)
        };
        let before = copied()?;
        load(bed, bed.production_address(), 50)?;
        ensure!((copied()? > before) == enabled, "the switch at {enabled} is not obeyed");
    }
    let report = agent.finish()?;
    let endpoint = report.endpoint("/products/{id}").context("no such endpoint in the report")?;
    // Both versions are the same; these two differ from answer to answer, so they prove that answers were compared.
    let differing = ["body:$.generated_at", "body:$.request_id"].map(str::to_owned).into();
    ensure!(endpoint.requests == 350 && endpoint.mismatches == differing, "{endpoint:?}");
    Ok(())
}

#[test]
fn another_user_needs_three_capabilities_to_start_and_two_from_then_on() -> Result<()> {
    let bed = Bed::new()?;
    check_whole(&bed, &Whom::nobody(&bed)?)
}

#[test]
fn so_does_root_of_a_container() -> Result<()> {
    let bed = Bed::new()?;
    check_whole(&bed, &Whom::root(&bed)?)
}

#[test]
fn a_sample_is_taken_with_what_is_left() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = shops(&bed)?;
    let mut agent = Whom::nobody(&bed)?.start(&bed, &["--interface", FRONT, "--sample", "30%"])?;
    for _ in 0..8 {
        load(&bed, bed.production_address(), 20)?;
    }
    let results = agent.metrics()?;
    for result in ["copied", "sampled_out"] {
        let packets = results.count("shadow_capture_packets_total", &[("result", result)]);
        ensure!(packets > 0, "no packet was {result}");
    }
    agent.finish().map(drop)
}

#[test]
fn each_capability_that_is_missing_is_named() -> Result<()> {
    let bed = Bed::new()?;
    let shadow = bed.candidate_url();
    for whom in [Whom::nobody(&bed)?, Whom::root(&bed)?] {
        for missing in NEEDED {
            let rest: Vec<&str> = NEEDED.into_iter().filter(|one| *one != missing).collect();
            let way = whom.way(&rest);
            let mut command = bed.production.command(&way[0]);
            command.args(&way[1..]).arg(&whom.program).env_remove("RUST_LOG");
            command.args(["run", "--interface", FRONT, "--port", "8080", "--shadow", &shadow]);
            let what = format!("{} without {missing}", whom.name);
            let name = format!("CAP_{}", missing.to_uppercase());
            check(&what, &command.output()?, 4, &[&format!("capturing needs {name} too")])?;
        }
    }
    Ok(())
}

#[test]
fn root_drops_its_privileges_too_and_still_writes_where_it_could() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = shops(&bed)?;
    let folder = folder_of(&bed, "nobody", NOBODY)?;
    let old = folder.join("old.json");
    fs::write(&old, "x".repeat(1 << 20))?;
    for path in [old, folder.join("new.json"), bed.folder().join("own.json")] {
        let agent = program("shadow-agent")?;
        let shadow = bed.candidate_url();
        let arguments = ["--interface", FRONT, "--port", "8080", "--shadow", &shadow];
        let mut agent = Agent::by_way_of(&bed, &["env"], &agent, path.clone(), &arguments)?;
        check_threads(agent.process.id())?;
        load(&bed, bed.production_address(), 50)?;
        agent.settle(50)?;
        agent.finish().with_context(|| format!("the report {}", path.display()))?;
    }
    let left: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    ensure!(left.len() == 2, "something partial is left: {left:?}");
    Ok(())
}

#[test]
fn a_low_port_and_a_token_of_another_user_are_had_before() -> Result<()> {
    let bed = Bed::new()?;
    let folder = folder_of(&bed, "nobody", NOBODY)?;
    let (token, config) = (folder.join("token"), bed.folder().join("agent.yaml"));
    fs::write(&token, "a-token-that-is-long-enough")?;
    fs::set_permissions(&token, Permissions::from_mode(0o600))?;
    chown(&token, Some(NOBODY), Some(NOBODY))?;
    let text = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\n\
         replay: {{ targets: [ {{ name: candidate, url: \"{}\" }} ] }}\n\
         admin: {{ listen: \"127.0.0.1:80\", token_file: {} }}\n",
        bed.candidate_url(),
        token.display(),
    );
    fs::write(&config, text)?;
    let mut command = agent::command(&bed, &["run", "--duration", "1s", "--config"])?;
    let output = command.arg(&config).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_report_to_standard_output_reaches_a_pipe_of_another_user() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = shops(&bed)?;
    let pipe = bed.folder().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    chown(&pipe, Some(NOBODY), Some(NOBODY))?;
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read_to_string(pipe))
    };
    let out = fs::File::options().write(true).open(&pipe)?;
    let shadow = bed.candidate_url();
    let status = agent::command(&bed, &["run", "--duration", "1s", "--report", "/dev/stdout"])?
        .args(["--interface", FRONT, "--port", "8080", "--shadow", &shadow])
        .stdout(out)
        .stderr(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "{status}");
    let said = reader.join().ok().context("the reader panicked")??;
    let json = said.find("\n{").with_context(|| format!("no report in:\n{said}"))?;
    Report::parse(&said[json..]).map(drop)
}

#[test]
fn a_state_directory_that_could_not_be_written_is_refused_at_the_start() -> Result<()> {
    let bed = Bed::new()?;
    let folder = folder_of(&bed, "nobody", NOBODY)?;
    let shadow = bed.candidate_url();
    for directory in [folder.clone(), folder.join("none-yet")] {
        let output = agent::command(&bed, &["run", "--duration", "1s", "--state"])?
            .arg(&directory)
            .args(["--interface", FRONT, "--port", "8080", "--shadow", &shadow])
            .output()?;
        check(
            "a state directory of another user",
            &output,
            2,
            &[&text_of(&directory), "give it to the user"],
        )?;
    }
    Ok(())
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn doctor_rehearses_the_start_as_each_of_them() -> Result<()> {
    let bed = Bed::new()?;
    for whom in [Whom::nobody(&bed)?, Whom::root(&bed)?] {
        let ask = |capabilities: &[&str]| {
            let way = whom.way(capabilities);
            let mut command = bed.production.command(&way[0]);
            let output = command.args(&way[1..]).arg(&whom.program).arg("doctor").output()?;
            anyhow::Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
        };
        let (code, said) = ask(&NEEDED)?;
        ensure!(code == Some(0), "{}: {code:?}:\n{said}", whom.name);
        for words in ["accepts all", "CAP_NET_ADMIN, CAP_BPF kept, CAP_PERFMON dropped", "still work"] {
            ensure!(said.contains(words), "{}: {words:?} is not in:\n{said}", whom.name);
        }
        ensure!(!said.contains("SYS_ADMIN"), "{}:\n{said}", whom.name);
        let (code, said) = ask(&["bpf", "net_admin"])?;
        ensure!(code == Some(4) && said.contains("without CAP_PERFMON"), "{}: {code:?}:\n{said}", whom.name);
    }
    Ok(())
}
