//! `cargo xtask fuzz`: builds the fuzz targets with instrumentation, by cargo-fuzz and the pinned compiler, and runs them.
//!
//! The targets are a package of their own (`tests/fuzz`), outside the workspace. They begin with inputs that their code
//! makes; what they find on the way stays in `target/fuzz/corpus`, and what breaks them in `target/fuzz/artifacts`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::rings::Count;
use crate::{setup, sh};

/// Seconds of each target in the ring.
const SHORT: u64 = 15;
/// The longest input, in bytes: more than a conversation needs to reach every bound.
const LONGEST: u32 = 4096;
/// Memory after which a target has failed, in MiB.
const MEMORY: u32 = 2048;

/// Options of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which targets; all by default.
    targets: Vec<Target>,
    /// Minutes for each target.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Decoding of packets.
    Packet,
    /// Reassembly of TCP streams, against a naive oracle.
    Reassembly,
    /// HTTP/1 on one connection, whole and cut into pieces.
    Http1,
    /// HTTP/2 on one connection, whole and cut into pieces.
    Http2,
    /// Header blocks of HTTP/2, against an encoder that knows what it wrote.
    Hpack,
    /// Readers of captures and recordings.
    Files,
}

/// `cargo xtask fuzz`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let targets = if options.targets.is_empty() { Target::value_variants() } else { &options.targets };
    let count = fuzz(targets, options.minutes * 60)?;
    if count.failed > 0 {
        bail!("{} of {} targets failed", count.failed, targets.len());
    }
    Ok(())
}

/// The ring: every target for a short time.
pub(crate) fn ring() -> Result<Count> {
    fuzz(Target::value_variants(), SHORT)
}

fn fuzz(targets: &[Target], seconds: u64) -> Result<Count> {
    setup::ensure_fuzzer()?;
    let home = sh::target_directory().join("fuzz");
    let programs = build(&home)?;
    let (corpus, artifacts) = (home.join("corpus"), home.join("artifacts"));
    fs::create_dir_all(&artifacts)?;
    sh::run(sh::program(programs.join("seeds")).arg(&corpus))?;
    let mut count = Count::default();
    for target in targets {
        let name = target.to_possible_value().context("every target has a name")?;
        let name = name.get_name();
        sh::step(&format!("fuzzing {name}, {seconds} s"));
        let mut command = sh::program(programs.join(name));
        command.arg(corpus.join(name)).arg(format!("-artifact_prefix={}/{name}-", artifacts.display()));
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={LONGEST}"),
            format!("-rss_limit_mb={MEMORY}"),
        ]);
        command.args(["-verbosity=0", "-print_final_stats=1"]);
        match sh::run(&mut command) {
            Ok(()) => count.passed += 1,
            Err(error) => {
                sh::say(&format!("{error:#}; the input is in {}: make it a test", artifacts.display()));
                count.failed += 1;
            }
        }
    }
    Ok(count)
}

/// Builds all targets, and returns the folder that they are in.
fn build(home: &PathBuf) -> Result<PathBuf> {
    sh::step("building the fuzz targets");
    let mut command = sh::cargo();
    command.args(["fuzz", "build", "--fuzz-dir"]).arg(sh::root().join("tests/fuzz"));
    command.arg("--target-dir").arg(home);
    // Sanitizers are for nightly compilers only; this one has them all the same. No kernel program is fuzzed.
    command.env("RUSTC_BOOTSTRAP", "1").env("SHADOW_EBPF_SKIP", "1");
    sh::run(&mut command)?;
    let version = sh::output("rustc", &["-vV"]).context("rustc does not run")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(home.join(host).join("release"))
}
