//! What every benchmark program has in common: its options, and how it tells its figures. Measures nothing.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::table::{self, Table};
use crate::process;

/// The options that `cargo xtask bench` hands on to every benchmark.
#[derive(Clone, Debug, Default, Args)]
pub struct Options {
    /// How often each variant is measured; medians are shown.
    #[arg(long)]
    pub repeats: Option<u32>,
    /// Seconds of each measurement.
    #[arg(long)]
    pub seconds: Option<u32>,
    /// Also write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs a benchmark that tells what it is about to measure, and shows its table. Whether goals are reached decides
/// nothing.
///
/// # Errors
/// Those of `measure`, and when the figures cannot be written.
pub fn run(options: &Options, measure: impl FnOnce(&dyn Fn(&str)) -> Result<Table>) -> Result<()> {
    process::stop_on_signals()?;
    let machine = table::machine();
    say(&machine);
    let table = measure(&say)?;
    say(&format!("\n{}", table.text()));
    if let Some(file) = &options.json {
        fs::write(file, format!("{:#}\n", table.json(&machine)))
            .with_context(|| format!("writing {} (--json)", file.display()))?;
    }
    Ok(())
}

/// Prints a line at once.
fn say(line: &str) {
    // Whoever reads may be gone; the figures may still be written to a file.
    let _ = writeln!(io::stdout(), "{line}");
}
