//! `cargo xtask setup`: installs what building and testing need. Changes nothing that is already right.

mod collector;
mod debian;
mod tools;

use std::process::Command;

use anyhow::Result;

use crate::sh;

/// For whom to prepare the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Building the agent, its kernel program included.
    Build,
    /// Running the tests on this machine's kernel, the demo and the benchmarks.
    Test,
    /// Running the tests on other kernels.
    Vm,
    /// Everything that `ci` checks.
    Ci,
}

/// `cargo xtask setup`.
pub(crate) fn everything() -> Result<()> {
    sh::step("setup");
    let mut changed = prepare(Need::Ci)?;
    changed.sort_unstable();
    if changed.is_empty() {
        sh::say("everything was there already");
    } else {
        sh::say(&format!("installed: {}", changed.join(", ")));
    }
    sh::say("next: cargo xtask demo");
    Ok(())
}

/// What `demo`, `test`, `ci` and `bench` do first; silent when nothing is missing.
pub(crate) fn ensure(need: Need) -> Result<()> {
    prepare(need).map(drop)
}

/// What `fuzz` does first.
pub(crate) fn ensure_fuzzer() -> Result<()> {
    ensure(Need::Build)?;
    tools::fuzzer().map(drop)
}

/// `cargo miri`, which is installed first where it is missing.
pub(crate) fn miri() -> Result<Command> {
    tools::miri()
}

fn prepare(need: Need) -> Result<Vec<String>> {
    let mut changed = tools::rust_components()?;
    changed.extend(debian::packages(need)?);
    changed.extend(tools::bpf_linker()?);
    if need >= Need::Test {
        changed.extend(collector::install()?);
    }
    if need >= Need::Ci {
        changed.extend(tools::checkers()?);
        changed.extend(tools::fuzzer()?);
    }
    Ok(changed)
}
