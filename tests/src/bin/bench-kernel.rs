//! What `cargo xtask bench kernel` becomes; `shadow_tests::bench::kernel` says what it measures.

use anyhow::Result;
use clap::Parser;
use shadow_tests::bench::kernel;
use shadow_tests::bench::program::{self, Options};

const REPEATS: u32 = 3;

/// Measures what the kernel programs cost a packet.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let Arguments { options } = Arguments::parse();
    // What is measured takes the time it takes: `--seconds` has no meaning here.
    program::run(&options, |tell| kernel::run(options.repeats.unwrap_or(REPEATS), tell))
}
