//! What `cargo xtask bench exchanges` becomes; `shadow_tests::bench::exchanges` says what it measures.

use anyhow::Result;
use clap::Parser;
use shadow_tests::bench::exchanges;
use shadow_tests::bench::program::{self, Options};

const REPEATS: u32 = 3;

/// Measures how fast captures become exchanges, and what flows cost in memory.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let Arguments { options } = Arguments::parse();
    // What is measured takes the time it takes: `--seconds` has no meaning here.
    program::run(&options, |tell| exchanges::run(options.repeats.unwrap_or(REPEATS), tell))
}
