//! What `cargo xtask bench xdp` becomes; `shadow_tests::bench::xdp` says what it measures.

use anyhow::Result;
use clap::Parser;
use shadow_tests::bench::program::{self, Options};
use shadow_tests::bench::xdp;

const REPEATS: u32 = 5;
const SECONDS: u32 = 2;

/// Measures what capturing at TC and at XDP costs production.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let Arguments { options } = Arguments::parse();
    let (repeats, seconds) = (options.repeats.unwrap_or(REPEATS), options.seconds.unwrap_or(SECONDS));
    program::run(&options, |tell| xdp::run(repeats, seconds, tell))
}
