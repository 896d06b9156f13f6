//! What `cargo xtask bench live` becomes; `shadow_tests::bench::live` says what it measures.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;
use shadow_tests::bench::program::{self, Options};
use shadow_tests::bench::{floor, live};

const REPEATS: u32 = 3;
const SECONDS: u32 = 10;

/// Measures live mirroring at a fixed rate.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Be the bare client that sends to this address, and print answers and CPU seconds.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    floor: Option<SocketAddr>,
}

fn main() -> Result<()> {
    let Arguments { options, floor } = Arguments::parse();
    let (repeats, seconds) = (options.repeats.unwrap_or(REPEATS), options.seconds.unwrap_or(SECONDS));
    if let Some(address) = floor {
        let count = u64::from(live::RATE) * u64::from(seconds);
        let (answered, cpu) = floor::run(address, live::RATE, count)?;
        writeln!(std::io::stdout(), "{answered} {}", cpu.as_secs_f64())?;
        return Ok(());
    }
    program::run(&options, |tell| live::run(repeats, seconds, tell))
}
