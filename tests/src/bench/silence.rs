//! `bench silence`: from the moment at which the kill switch is thrown, under load, to the last byte of a request at the
//! shadow; by the API and by the signal, in turn.

use anyhow::{Context, Result};

use super::median;
use super::table::Table;
use crate::agent::Agent;
use crate::bed::{Bed, PORT};
use crate::servers::Nginx;
use crate::service::filler;
use crate::silence::{How, Listener, RATE, measure};

/// What is promised, in milliseconds.
const GOAL: f64 = 100.0;

/// Measures everything and returns the table.
///
/// # Errors
/// When a part does not come up, or when interrupted.
pub fn run(repeats: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    let bed = Bed::new()?;
    std::fs::write(bed.folder().join("large"), filler(1024))?;
    let server = format!("server {{ listen {PORT}; access_log off; root {}; }}", bed.folder().display());
    let _production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &server)?;
    let shadow = Listener::start(&bed, bed.candidate_address())?;
    let mut agent = Agent::start(&bed, &[])?;
    let mut all = How::ALL.map(|how| (how, Vec::new()));
    for repeat in 1..=repeats {
        for (how, measured) in &mut all {
            tell(&format!("{repeat} of {repeats}: {} at {RATE} requests/s", how.name()));
            measured.push(measure(&bed, &agent, &shadow, *how)?.as_secs_f64() * 1000.0);
        }
    }
    agent.finish()?;
    let mut table = Table { name: "silence", ..Table::default() };
    for (how, measured) in &all {
        let most = measured.iter().copied().fold(0.0, f64::max);
        let middle = median(measured).context("no measurement")?;
        table.row(&format!("last byte after {}, median", how.name()), middle, "ms", None);
        table.row(&format!("last byte after {}, most", how.name()), most, "ms", None);
        table.goal(&format!("silence after {}, most, ms", how.name()), most, GOAL, false);
    }
    Ok(table)
}
