//! Starts other programs, shows what is under way, and says in one sentence what failed. Decides nothing.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// The directory that cargo builds into.
pub(crate) fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path))
}

/// Prints one line for people, on standard error so that the output of what is run stays apart.
pub(crate) fn say(line: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Announces a step.
pub(crate) fn step(title: &str) {
    say(&format!("\n── {title}"));
}

/// The cargo that runs us, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program, in the root of the workspace.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// The command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end, its output going where ours goes, and says how long it took.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    run_as(&shown(command), command)
}

/// As [`run`], shown as something shorter.
pub(crate) fn run_as(shown: &str, command: &mut Command) -> Result<()> {
    say(&format!("$ {shown}"));
    let begin = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("`{shown}` could not be started; is it installed and on PATH?"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    say(&format!("  {:.1} s", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Runs a command to its end, showing each line of its standard output and handing it to `line` as well.
///
/// Returns whether it succeeded.
pub(crate) fn follow(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    collect(command, |text| {
        // Nobody is left to tell when standard output is closed.
        let _ = writeln!(std::io::stdout(), "{text}");
        line(text);
    })
}

/// As [`follow`], showing nothing of the standard output.
pub(crate) fn collect(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let shown = shown(command);
    say(&format!("$ {shown}"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{shown}` could not be started"))?;
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).lines() {
            let text = text.with_context(|| format!("reading the output of `{shown}`"))?;
            line(&text);
        }
    }
    Ok(child.wait()?.success())
}

/// The standard output of a command, trimmed; `None` when it cannot be started or fails.
pub(crate) fn output(name: &str, arguments: &[&str]) -> Option<String> {
    let output = program(name).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Becomes the command, so that signals and the exit code are its own. Returns only on failure.
pub(crate) fn become_program(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let error = command.exec();
    Err(error).with_context(|| format!("`{shown}` could not be started"))
}

/// Whether we run as root.
pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default();
    line.split_whitespace().nth(2) == Some("0")
}

/// Fails with the remedy unless we run as root.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "{what} makes network namespaces and loads eBPF programs, which needs root; \
         run `sudo -E env PATH=\"$PATH\" cargo xtask …`"
    )
}
