//! What the agent refuses: one clear sentence on standard error, and its exit code.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use shadow_tests::agent;
use shadow_tests::bed::{Bed, FRONT};
use shadow_tests::servers::program;

const SHADOW: &str = "http://10.77.2.2:8081";

/// Fails unless the agent ended with `code` and one sentence that holds each of `words`.
pub(crate) fn check(what: &str, output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    ensure!(status.code() == Some(code), "{what}: {status} instead of code {code}; it said:\n{said}");
    let sentences = said.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!((1..=2).contains(&sentences), "{what}: {sentences} lines instead of one sentence:\n{said}");
    for word in words {
        ensure!(said.contains(word), "{what}: {word:?} is not in:\n{said}");
    }
    Ok(())
}

#[test]
fn impossible_arguments_are_refused() -> Result<()> {
    let bed = Bed::new()?;
    let cases: [(&str, &[&str], &[&str]); 8] = [
        ("no such interface", &["--interface", "nope0", "--port", "8080", "--shadow", SHADOW], &["nope0"]),
        (
            "a glob without a match",
            &["--interface", "nope*", "--port", "8080", "--shadow", SHADOW],
            &["nope*"],
        ),
        ("no port at all", &["--interface", FRONT, "--shadow", SHADOW], &["port"]),
        ("no shadow at all", &["--interface", FRONT, "--port", "8080"], &["shadow"]),
        ("a URL that is none", &["--interface", FRONT, "--port", "8080", "--shadow", "ht!tp"], &["ht!tp"]),
        (
            "the shadow is production",
            &["--interface", FRONT, "--port", "8080", "--shadow", "http://10.77.1.1:8080"],
            &["10.77.1.1:8080"],
        ),
        (
            "an unsafe method without isolation",
            &["--interface", FRONT, "--port", "8080", "--shadow", SHADOW, "--method", "POST"],
            &["POST", "isolated"],
        ),
        (
            "an open admin API",
            &["--interface", FRONT, "--port", "8080", "--shadow", SHADOW, "--admin", "0.0.0.0:9465"],
            &["0.0.0.0:9465", "token"],
        ),
    ];
    for (what, arguments, words) in cases {
        let output = agent::command(&bed, &["run", "--duration", "1s"])?.args(arguments).output()?;
        check(what, &output, 2, words)?;
    }
    Ok(())
}

#[test]
fn a_configuration_file_is_refused_by_key_and_line() -> Result<()> {
    let bed = Bed::new()?;
    let file = bed.folder().join("agent.yaml");
    let cases = [
        ("capture:\n  interfaces: [front]\n  ports: [8080]\n  prots: [1]\n", vec!["prots", "4"]),
        ("capture:\n  interfaces: [front]\n  ports: [8080]\n  sample: 250%\n", vec!["250%", "4"]),
    ];
    for (text, words) in cases {
        let text = format!("{text}replay: {{ targets: [ {{ name: candidate, url: \"{SHADOW}\" }} ] }}\n");
        std::fs::write(&file, &text)?;
        let path = file.to_string_lossy();
        for command in [&["run", "--config", &path][..], &["config", "check", &path][..]] {
            let output = agent::command(&bed, command)?.output()?;
            check(&text, &output, 2, &words)?;
        }
    }
    Ok(())
}

#[test]
fn without_privilege_it_says_which_one_is_missing() -> Result<()> {
    let bed = Bed::new()?;
    let mut command = bed.production.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]).arg(program("shadow-agent")?);
    command.args(["run", "--interface", FRONT, "--port", "8080", "--shadow", SHADOW, "--duration", "1s"]);
    check("no capabilities", &command.output()?, 4, &["CAP_"])
}

#[test]
fn help_shows_an_example_for_every_command() -> Result<()> {
    for command in [&["run"][..], &["ctl"], &["doctor"], &["config"], &["config", "check"], &[]] {
        let output = Command::new(program("shadow-agent")?).args(command).arg("--help").output()?;
        let said = String::from_utf8(output.stdout).context("help")?;
        ensure!(output.status.success() && said.contains("xample"), "{command:?} --help:\n{said}");
    }
    Ok(())
}

#[test]
fn doctor_reports_what_this_host_can_do() -> Result<()> {
    let bed = Bed::new()?;
    let output = agent::command(&bed, &["doctor"])?.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {said}", output.status);
    for word in ["TCX", "BTF", FRONT] {
        ensure!(said.contains(word), "{word} is not in:\n{said}");
    }
    Ok(())
}

#[test]
fn too_few_open_files_are_named_as_such() -> Result<()> {
    let bed = Bed::new()?;
    let agent = program("shadow-agent")?.display().to_string();
    for limit in ["12", "20"] {
        let mut command = bed.production.command("prlimit");
        command.args([&format!("--nofile={limit}:{limit}"), &agent, "run", "--admin", "off"]);
        command.args(["--interface", FRONT, "--port", "8080", "--shadow", SHADOW]);
        check(
            &format!("{limit} files"),
            &command.output()?,
            5,
            &["no more files may be open", "LimitNOFILE"],
        )?;
    }
    Ok(())
}
