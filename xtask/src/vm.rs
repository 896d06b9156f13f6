//! `cargo xtask vm-test`: boots Debian's kernels in QEMU and runs the kernel ring of the tests in each of them.
//!
//! Nothing is installed and nothing of this machine's own network or kernel is touched: kernels are downloaded once into
//! the target folder, and a machine sees nothing but its initial file system.

mod apt;
mod archive;
mod image;
mod kernels;
mod machine;
mod modules;
mod sources;
mod table;
mod transcript;

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::rings::{Count, PROFILE};
use crate::setup::{self, Need};
use crate::sh;
use image::{Image, Limits};
use kernels::{Cache, Kernel, Wanted};
use table::Column;
use transcript::Transcript;

/// The kernels that every change is tried on: the product's floor, what Debian's releases of today run, the newest.
const USUAL: [Wanted; 4] =
    [Wanted::Series(5, 10), Wanted::Series(6, 1), Wanted::Series(6, 12), Wanted::Newest];
/// Seconds that one test may take.
const TEST_LIMIT: u64 = 300;
/// Seconds that a kernel may take unless said otherwise: many times what it takes on two idle cores.
const MACHINE_LIMIT: u64 = 2400;
/// How much longer than its own limit a machine is waited for.
const GRACE: Duration = Duration::from_secs(20);

/// Options of `cargo xtask vm-test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Kernels: a series such as 6.12, of which the newest is taken, or `newest`.
    #[arg(long = "kernel", value_name = "SERIES", value_delimiter = ',', default_values_t = USUAL)]
    kernels: Vec<Wanted>,
    /// Look for newer kernels now; otherwise that is done once a week.
    #[arg(long)]
    refresh: bool,
    /// Debian's archive, where the apt sources of this machine do not name it.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Use hardware virtualisation instead of emulation.
    #[arg(long)]
    kvm: bool,
    /// Machines that run at the same time.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Seconds after which a kernel is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = MACHINE_LIMIT, value_parser = clap::value_parser!(u64).range(1..=7200))]
    timeout: u64,
    /// Run only tests whose name contains this.
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

impl Options {
    /// What the ring of the tests runs: the usual kernels, emulated.
    pub(crate) fn ring(filter: Option<&str>) -> Options {
        Options {
            kernels: USUAL.to_vec(),
            refresh: false,
            mirror: None,
            kvm: false,
            jobs: 2,
            timeout: MACHINE_LIMIT,
            filter: filter.map(str::to_owned),
        }
    }
}

/// `cargo xtask vm-test`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let count = test(options)?;
    sh::say(&format!("{} passed, {} failed", count.passed, count.failed));
    ensure!(count.failed == 0, "the kernel tests failed on the matrix");
    ensure!(count.passed > 0, "no test ran");
    Ok(())
}

/// Runs the tests on every kernel, prints the table, and counts.
pub(crate) fn test(options: &Options) -> Result<Count> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`vm-test` emulates x86-64 with programs of this machine, so it needs to run on x86-64"
    );
    setup::ensure(Need::Vm)?;
    let folder = sh::target_directory().join("vm");
    let kernels =
        Cache::open(folder.clone())?.provide(&options.kernels, options.refresh, options.mirror.as_deref())?;
    let program = test_program(&folder)?;
    let tests = tests(&program, options.filter.as_deref())?;
    if tests.is_empty() {
        return Ok(Count::default());
    }
    let limits = Limits { machine: options.timeout, test: TEST_LIMIT };
    let image = Image::new(&program, &tests, limits)?;
    sh::step(&format!("{} tests on {} kernels", tests.len(), kernels.len()));
    let results = all(&kernels, options, &folder, &image)?;
    let columns: Vec<Column<'_>> = kernels
        .iter()
        .zip(&results)
        .map(|(kernel, Ran { transcript, seconds })| Column {
            short: kernel.release.short(),
            release: kernel.release.name(),
            transcript,
            seconds: *seconds,
        })
        .collect();
    Ok(table::print(&columns, &tests))
}

/// What came of a kernel.
struct Ran {
    transcript: Transcript,
    seconds: f64,
}

/// Runs every kernel, as many at a time as was asked for; gives what they said, in the same order.
fn all(kernels: &[Kernel], options: &Options, folder: &Path, image: &Image) -> Result<Vec<Ran>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut ran = Vec::new();
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(kernel) = kernels.get(at)
        {
            ran.push((at, one(kernel, options, folder, image)?));
        }
        Ok(ran)
    };
    let mut ran = thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        let ended =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended
            .collect::<Result<Vec<Vec<(usize, Ran)>>>>()
            .map(|parts| parts.into_iter().flatten().collect::<Vec<_>>())
    })?;
    ran.sort_by_key(|(at, _)| *at);
    Ok(ran.into_iter().map(|(_, ran)| ran).collect())
}

fn one(kernel: &Kernel, options: &Options, folder: &Path, image: &Image) -> Result<Ran> {
    let name = kernel.release.name();
    let modules = modules::needed(&kernel.modules())?;
    let path = folder.join(format!("initramfs-{name}-{}", std::process::id()));
    fs::write(&path, image.with(&modules)).with_context(|| format!("writing {}", path.display()))?;
    sh::say(&format!("booting {name}"));
    let begin = Instant::now();
    let timeout = Duration::from_secs(options.timeout) + GRACE;
    let result = machine::run(kernel, &path, options.kvm, timeout);
    // It is written anew each time.
    let _ = fs::remove_file(&path);
    let seconds = begin.elapsed().as_secs_f64();
    sh::say(&format!("{name} ended after {seconds:.0} s"));
    Ok(Ran { transcript: result?, seconds })
}

/// Builds the kernel ring; gives a copy of its program without debugging information, which is most of it.
fn test_program(folder: &Path) -> Result<PathBuf> {
    sh::step(&format!("building the kernel tests (profile {PROFILE})"));
    let mut program = None;
    let mut build = sh::cargo();
    build.args([
        "test",
        "--locked",
        "--no-run",
        "--profile",
        PROFILE,
        "-p",
        "shadow-tests",
        "--test",
        "kernel",
    ]);
    build.args(["--message-format", "json-render-diagnostics"]);
    let succeeded = sh::collect(&mut build, |line| program = executable(line).or(program.take()))?;
    ensure!(succeeded, "the kernel tests do not build");
    let program = program.ok_or_else(|| anyhow!("cargo did not say where it left the kernel tests"))?;
    let stripped = folder.join("kernel-tests");
    sh::run_as("strip", sh::program("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(program))?;
    Ok(stripped)
}

/// The program that a message of cargo's speaks of, if it is the kernel ring's.
fn executable(message: &str) -> Option<String> {
    if !message.contains(r#""name":"kernel""#) {
        return None;
    }
    let (_, rest) = message.split_once(r#""executable":""#)?;
    rest.split_once('"').map(|(path, _)| path.to_owned())
}

/// The names of the tests.
fn tests(program: &Path, filter: Option<&str>) -> Result<Vec<String>> {
    let output = sh::program(program).args(["--list", "--format", "terse"]).args(filter).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargo_s_messages() {
        let check = |message: &str, expected: Option<&str>| {
            assert_eq!(executable(message).as_deref(), expected, "{message}");
        };
        check(
            r#"{"target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-1","fresh":true}"#,
            Some("/t/kernel-1"),
        );
        check(r#"{"target":{"kind":["test"],"name":"e2e"},"executable":"/t/e2e-1","fresh":true}"#, None);
        check(r#"{"target":{"kind":["lib"],"name":"kernel"},"executable":null,"fresh":true}"#, None);
        check("", None);
    }
}
