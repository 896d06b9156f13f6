//! The live status of a run.

use std::time::Duration;

use crate::terminal;

const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the status until it is dropped; at once done where nobody could see it.
pub(super) async fn show(status: impl Fn() -> String) {
    if !terminal::is_watched() {
        return;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        terminal::show(&status());
    }
}
