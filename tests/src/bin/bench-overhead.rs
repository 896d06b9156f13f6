//! What `cargo xtask bench overhead` becomes; `shadow_tests::bench::overhead` says what it measures.

use std::io::{self, Write};

use anyhow::Result;
use clap::Parser;
use shadow_tests::bench::program::{self, Options};
use shadow_tests::bench::{overhead, stages};
use shadow_tests::process;

/// Many short pairs make the median robust against a machine whose speed drifts.
const REPEATS: u32 = 9;
const SECONDS: u32 = 3;

/// Measures what production loses to the agent under full load.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Be the first stages of the agent, and print what they met once interrupted.
    #[arg(long, value_enum, hide = true, requires_all = ["interface", "port"])]
    stage: Option<stages::Stage>,
    /// The interface of the stage.
    #[arg(long, hide = true)]
    interface: Option<String>,
    /// The port of the stage.
    #[arg(long, hide = true)]
    port: Option<u16>,
}

fn main() -> Result<()> {
    let Arguments { options, stage, interface, port } = Arguments::parse();
    if let (Some(stage), Some(interface), Some(port)) = (stage, interface, port) {
        process::stop_on_signals()?;
        // Whoever waits for this line is gone when it cannot be written.
        let said = stages::run(stage, &interface, port, || drop(writeln!(io::stdout(), "ready")))?;
        writeln!(io::stdout(), "{said}")?;
        return Ok(());
    }
    let (repeats, seconds) = (options.repeats.unwrap_or(REPEATS), options.seconds.unwrap_or(SECONDS));
    program::run(&options, |tell| overhead::run(repeats, seconds, tell))
}
