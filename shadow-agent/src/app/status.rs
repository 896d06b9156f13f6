//! The one-line live status on a terminal. Elsewhere it shows nothing.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::report::Report;

const INTERVAL: Duration = Duration::from_secs(1);

/// Moves to the start of the line and empties it. Whoever else writes to the terminal sends this first.
pub const CLEAR_LINE: &str = "\r\x1b[2K";

/// Shows the status until it is dropped; at once empty where standard error is no terminal.
pub(super) async fn show(report: Arc<Report>, ledger: Arc<Ledger>) {
    if !io::stderr().is_terminal() {
        return;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let line = report.status_line(&ledger.snapshot());
        // Without a newline, so that a terminal that is too narrow is the worst that can happen.
        let _ = write!(io::stderr(), "{CLEAR_LINE}{line}");
    }
}

/// Takes the line off the terminal.
pub(super) fn clear() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "{CLEAR_LINE}");
    }
}
