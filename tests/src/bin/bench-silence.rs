//! What `cargo xtask bench silence` becomes; `shadow_tests::bench::silence` says what it measures.

use anyhow::Result;
use clap::Parser;
use shadow_tests::bench::program::{self, Options};
use shadow_tests::bench::silence;

const REPEATS: u32 = 5;

/// Measures how soon nothing is sent any more once the kill switch is thrown.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let Arguments { options } = Arguments::parse();
    let repeats = options.repeats.unwrap_or(REPEATS);
    program::run(&options, |tell| silence::run(repeats, tell))
}
