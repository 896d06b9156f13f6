//! What `cargo xtask bench soak` becomes; `shadow_tests::bench::soak` says what it measures.

use anyhow::Result;
use clap::Parser;
use shadow_tests::bench::program::{self, Options};
use shadow_tests::bench::soak;

const REPEATS: u32 = 3;
const SECONDS: u32 = 600;

/// Measures production, memory and ledger while the shadow is in changing moods.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let Arguments { options } = Arguments::parse();
    let (repeats, seconds) = (options.repeats.unwrap_or(REPEATS), options.seconds.unwrap_or(SECONDS));
    program::run(&options, |tell| soak::run(repeats, seconds, tell))
}
