//! The one line of live status at the bottom of a terminal. Where standard error is none, it does not appear.

use std::io::{self, IsTerminal, Write};

/// Moves to the start of the line and empties it. Whoever else writes to the terminal sends this first.
pub const CLEAR_LINE: &str = "\r\x1b[2K";

/// Whether somebody could see a status.
#[must_use]
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Shows a status in place of the one before.
pub fn show(status: &str) {
    // Without a newline, so that a terminal that is too narrow is the worst that can happen.
    let _ = write!(io::stderr(), "{CLEAR_LINE}{status}");
}

/// Takes the status off the terminal.
pub fn clear() {
    if is_watched() {
        let _ = write!(io::stderr(), "{CLEAR_LINE}");
    }
}
