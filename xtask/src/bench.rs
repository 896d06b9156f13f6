//! `cargo xtask bench NAME`: builds with optimisation, then becomes the benchmark.
//!
//! Knows a benchmark by its name only: `NAME` is the program `bench-NAME` of the tests package, which takes the options
//! of `shadow_tests::bench::program`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::setup::{self, Need};
use crate::{rings, sh};

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which benchmark.
    name: Name,
    /// Also write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often each variant is measured; medians are shown. Each benchmark has its own default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeats: Option<u32>,
    /// Seconds of each measurement. Each benchmark has its own default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Live traffic at a fixed rate through namespaces, with the agent, with nginx's mirror, and with neither.
    Live,
    /// What the kernel programs cost a packet, beside an empty program and one that only copies.
    Kernel,
    /// What production's throughput and latency lose under full load, step by step, with tcpdump as a peer; and what
    /// an idle agent costs.
    Overhead,
    /// How fast captures become exchanges, beside tshark, and what flows cost in memory.
    Exchanges,
    /// Production, memory and ledger for ten minutes, while the shadow is fine, slow and dead in turn.
    Soak,
    /// What capturing at TC and at XDP, generic and native, costs production's throughput and round trips.
    Xdp,
    /// How soon nothing reaches the shadow any more once the kill switch is thrown under load.
    Silence,
}

/// `cargo xtask bench`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let name = options.name.to_possible_value().context("every benchmark has a name")?;
    sh::require_root("this benchmark")?;
    setup::ensure(Need::Test)?;
    rings::build_programs("release")?;
    let mut bench = sh::program(rings::built("release", &format!("bench-{}", name.get_name())));
    bench.env("SHADOW_TESTS_AGENT", rings::built("release", "shadow-agent"));
    for (option, value) in [("--repeats", options.repeats), ("--seconds", options.seconds)] {
        bench.args(value.map(|value| format!("{option}={value}")));
    }
    if let Some(file) = &options.json {
        bench.arg("--json").arg(env::current_dir()?.join(file));
    }
    sh::become_program(&mut bench)
}
