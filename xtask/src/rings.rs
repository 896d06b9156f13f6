//! `cargo xtask test`: runs the rings of tests, from pure functions to real servers, and counts what ran.
//!
//! A ring that was asked for and in which nothing ran is a failure: silence is not a pass.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::setup::{self, Need};
use crate::{fuzz, sh, vm};

/// The profile of what end-to-end tests and the demo run: optimised, with overflow checks and debug assertions.
pub(crate) const PROFILE: &str = "e2e";

/// Options of `cargo xtask test`.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Run this ring only; may be given several times. All but `miri`, `fuzz` and `vm` by default.
    #[arg(long = "ring", value_name = "NAME")]
    rings: Vec<Ring>,
    /// Run only tests whose name contains this; then a ring without a match is not a failure.
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// A ring of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ring {
    /// Pure unit and property tests: no root, no network.
    Unit,
    /// The kernel programs in this kernel, fed with crafted packets; needs root.
    Kernel,
    /// The agent between real servers in network namespaces; needs root.
    E2e,
    /// The decoders in Miri, which watches every access to memory; no root, no network.
    Miri,
    /// The fuzz targets, each for a short time; no root, no network.
    Fuzz,
    /// The ring `kernel` in virtual machines with other kernels, which are downloaded once.
    Vm,
}

/// What runs when no ring is named.
const RINGS: [Ring; 3] = [Ring::Unit, Ring::Kernel, Ring::E2e];

impl Options {
    /// Every ring but `miri`, which takes a quarter of an hour.
    pub(crate) fn for_ci() -> Options {
        Options { rings: [&RINGS[..], &[Ring::Fuzz, Ring::Vm]].concat(), filter: None }
    }
}

impl Ring {
    const fn name(self) -> &'static str {
        match self {
            Ring::Unit => "unit",
            Ring::Kernel => "kernel",
            Ring::E2e => "e2e",
            Ring::Miri => "miri",
            Ring::Fuzz => "fuzz",
            Ring::Vm => "vm",
        }
    }

    /// The arguments of the `cargo test` calls that make up the ring.
    fn calls(self) -> &'static [&'static [&'static str]] {
        match self {
            Ring::Unit => &[
                &["-p", "shadow-agent", "-p", "shadow-ebpf", "-p", "xtask", "--lib", "--bins", "--tests"],
                &["-p", "shadow-tests", "--lib", "--bins"],
            ],
            Ring::Kernel => &[&["-p", "shadow-tests", "--profile", PROFILE, "--test", "kernel"]],
            Ring::E2e => &[&["-p", "shadow-tests", "--profile", PROFILE, "--test", "e2e"]],
            Ring::Miri => &[
                &["-p", "shadow-ebpf", "--lib", "--"],
                // Reaching bounds takes thousands of steps, and each of them thousands of times as long here.
                &[
                    "-p",
                    "shadow-agent",
                    "--lib",
                    "--",
                    "tcp::",
                    "http::",
                    "--skip",
                    "::bounds::",
                    "--skip",
                    "bounded",
                ],
            ],
            Ring::Fuzz | Ring::Vm => &[],
        }
    }
}

/// What `cargo test` said about a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Count {
    /// Adds a closing line of the test harness (`test result: ok. 3 passed; 0 failed; 1 ignored; …`), if it is one.
    fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let counts = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// `cargo xtask test`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rings = if options.rings.is_empty() { RINGS.to_vec() } else { options.rings.clone() };
    let needs_root = rings.iter().any(|ring| matches!(ring, Ring::Kernel | Ring::E2e));
    if needs_root {
        sh::require_root("the kernel and e2e rings of the tests")?;
    }
    setup::ensure(if needs_root { Need::Test } else { Need::Build })?;

    let mut all = Count::default();
    let mut lines = Vec::new();
    let mut broken = Vec::new();
    for ring in rings {
        let (count, succeeded) = run_ring(ring, options.filter.as_deref())?;
        let name = ring.name();
        lines.push(format!(
            "ring {name:<7} {} passed, {} failed, {} ignored",
            count.passed, count.failed, count.ignored
        ));
        if !succeeded {
            broken.push(format!("ring {name} failed"));
        } else if count.passed == 0 && options.filter.is_none() {
            broken.push(format!("ring {name} ran no test"));
        }
        all.passed += count.passed;
        all.failed += count.failed;
        all.ignored += count.ignored;
    }
    sh::say("");
    for line in &lines {
        sh::say(line);
    }
    sh::say(&format!("{} passed, {} failed", all.passed, all.failed));
    if !broken.is_empty() {
        bail!("{}", broken.join("; "));
    }
    Ok(())
}

fn run_ring(ring: Ring, filter: Option<&str>) -> Result<(Count, bool)> {
    sh::step(&format!("ring {}", ring.name()));
    if ring == Ring::Fuzz {
        let count = fuzz::ring()?;
        return Ok((count, count.failed == 0));
    }
    if ring == Ring::Vm {
        let count = vm::test(&vm::Options::ring(filter))?;
        return Ok((count, count.failed == 0));
    }
    if ring == Ring::E2e {
        build_programs(PROFILE)?;
    }
    let mut count = Count::default();
    let mut succeeded = true;
    for call in ring.calls() {
        if ring == Ring::Miri {
            succeeded &= sh::follow(&mut miri(call, filter)?, |line| count.read(line))?;
            continue;
        }
        let mut command = sh::cargo();
        command.args(["test", "--locked", "--no-fail-fast"]).args(*call).arg("--").args(filter);
        if ring != Ring::Unit {
            // One at a time: they load the machine, and a namespace more does not make it faster.
            command.arg("--test-threads=1");
        }
        command.env("SHADOW_TESTS_AGENT", built(PROFILE, "shadow-agent"));
        succeeded &= sh::follow(&mut command, |line| count.read(line))?;
    }
    Ok((count, succeeded && count.failed == 0))
}

/// One call of tests in Miri, which only nightly compilers have.
fn miri(call: &[&str], filter: Option<&str>) -> Result<Command> {
    let mut command = setup::miri()?;
    // A filter takes the place of those of the call.
    let call = match (filter, call.iter().position(|&word| word == "--")) {
        (Some(_), Some(end)) => call.split_at(end + 1).0,
        _ => call,
    };
    command.args(["test", "--locked", "--no-fail-fast"]).args(call).args(filter);
    command.env("CARGO_TARGET_DIR", sh::target_directory().join("miri"));
    // Random cases take seconds each; that all of them pass is for the other rings to show.
    command
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", "1")
        .env("SHADOW_EBPF_SKIP", "1");
    Ok(command)
}

/// Builds the agent and the programs of the tests package.
pub(crate) fn build_programs(profile: &str) -> Result<()> {
    sh::step(&format!("building the agent and the demo services (profile {profile})"));
    let arguments =
        ["build", "--locked", "--profile", profile, "-p", "shadow-agent", "-p", "shadow-tests", "--bins"];
    sh::run(sh::cargo().args(arguments))
}

/// Where cargo leaves the program of that name.
pub(crate) fn built(profile: &str, name: &str) -> PathBuf {
    sh::target_directory().join(profile).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_the_harness_are_counted_and_nothing_else() {
        let mut count = Count::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "note: 7 passed; 7 failed",
        ] {
            count.read(line);
        }
        assert_eq!(count, Count { passed: 4, failed: 2, ignored: 1 });
    }
}
