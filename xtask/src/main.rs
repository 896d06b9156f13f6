//! `cargo xtask`: everything a person types while developing. Parses the command line; each command has its own file.

mod bench;
mod ci;
mod demo;
mod fuzz;
mod rings;
mod setup;
mod sh;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything a person types while developing shadow-agent.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what building and testing need; a second run changes nothing.
    #[command(after_help = "Example:\n  cargo xtask setup")]
    Setup,
    /// Watch the agent find planted regressions in live traffic, in network namespaces of its own.
    #[command(after_help = "Example:\n  sudo -E env PATH=\"$PATH\" cargo xtask demo")]
    Demo,
    /// Run the tests.
    #[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --ring unit")]
    Test(rings::Options),
    /// Run the kernel tests on other kernels: Debian's, in virtual machines.
    #[command(after_help = "Examples:\n  cargo xtask vm-test\n  cargo xtask vm-test --kernel 5.10,6.18 tcx")]
    VmTest(vm::Options),
    /// Fuzz the decoders: packets, reassembly, HTTP, capture files.
    #[command(after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz http1 --minutes 60")]
    Fuzz(fuzz::Options),
    /// Run everything that a change must pass: format, lints, tests, documentation, dependencies.
    #[command(after_help = "Example:\n  cargo xtask ci")]
    Ci,
    /// Measure, and print a table; figures are reported, not asserted.
    #[command(
        after_help = "Examples:\n  cargo xtask bench live\n  cargo xtask bench overhead --json overhead.json"
    )]
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::everything(),
        Command::Demo => demo::run(),
        Command::Test(options) => rings::run(&options),
        Command::VmTest(options) => vm::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Ci => ci::run(),
        Command::Bench(options) => bench::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sh::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
