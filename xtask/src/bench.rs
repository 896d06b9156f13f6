//! `cargo xtask bench NAME`: builds with optimisation, then becomes the benchmark.

use std::env;
use std::path::PathBuf;

use anyhow::Result;
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
    /// How often each variant is measured; medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeats: u32,
    /// Seconds of traffic in each measurement.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Live traffic at a fixed rate through namespaces, with the agent, with nginx's mirror, and with neither.
    Live,
}

/// `cargo xtask bench`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Name::Live = options.name;
    sh::require_root("this benchmark")?;
    setup::ensure(Need::Test)?;
    rings::build_programs("release")?;
    let mut bench = sh::program(rings::built("release", "bench-live"));
    bench.env("SHADOW_TESTS_AGENT", rings::built("release", "shadow-agent"));
    bench.args(["--repeats", &options.repeats.to_string(), "--seconds", &options.seconds.to_string()]);
    if let Some(file) = &options.json {
        bench.arg("--json").arg(env::current_dir()?.join(file));
    }
    sh::become_program(&mut bench)
}
