//! The live status of a run.

use std::sync::Arc;
use std::time::Duration;

use crate::capture::file::Progress;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::terminal;

const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the status until it is dropped; at once done where nobody could see it.
/// Of a file, how far it was read comes first.
pub(super) async fn show(report: Arc<Report>, ledger: Arc<Ledger>, file: Option<Progress>) {
    if !terminal::is_watched() {
        return;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let line = report.status_line(&ledger.snapshot());
        match file.as_ref().and_then(Progress::share) {
            Some(share) => terminal::show(&format!("{:.0} % read · {line}", share * 100.0)),
            None => terminal::show(&line),
        }
    }
}
