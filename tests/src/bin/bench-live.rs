//! What `cargo xtask bench live` becomes; `shadow_tests::bench::live` says what it measures.

#![expect(clippy::print_stdout, reason = "what it says is its purpose")]

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use shadow_tests::bench::{floor, live, table};
use shadow_tests::process;

/// Measures live mirroring at a fixed rate.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each variant is measured.
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// Seconds of traffic in each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Also write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Be the bare client that sends to this address, and print answers and CPU seconds.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    floor: Option<SocketAddr>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(address) = arguments.floor {
        let count = u64::from(live::RATE) * u64::from(arguments.seconds);
        let (answered, cpu) = floor::run(address, live::RATE, count)?;
        println!("{answered} {}", cpu.as_secs_f64());
        return Ok(());
    }
    process::stop_on_signals()?;
    println!("{}", table::machine());
    let table = live::run(arguments.repeats, arguments.seconds, &|line| println!("{line}"))?;
    println!("\n{}", table.text());
    if let Some(file) = arguments.json {
        std::fs::write(&file, format!("{:#}\n", table.json()))
            .with_context(|| format!("writing {} (--json)", file.display()))?;
    }
    Ok(())
}
