//! Logging to standard error. Lines of the log never hold a body, a header value or a secret.

use std::io::{self, Stderr, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::terminal::{self, CLEAR_LINE};

/// The HTTP/2 library says at `debug` what peers sent: some field values, and the text of a GOAWAY.
const QUIET: &str = "h2=info";

/// Starts logging with a filter that the command line has checked.
pub fn start(filter: &str) {
    let terminal = terminal::is_watched();
    tracing_subscriber::fmt()
        .with_env_filter(masked(filter))
        .with_ansi(terminal)
        .with_target(false)
        .with_writer(Lines { terminal })
        .init();
}

/// That filter, without what would show values.
fn masked(filter: &str) -> EnvFilter {
    EnvFilter::new(format!("{filter},{QUIET}"))
}

/// Says on standard error why the program ends.
pub fn fail(error: &anyhow::Error) {
    let clear = if terminal::is_watched() { CLEAR_LINE } else { "" };
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr(), "{clear}shadow-agent: {}", sentence(error));
}

/// An error and its causes, save those whose words are already in it.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence.push_str(": ");
            sentence.push_str(&cause);
        }
    }
    sentence
}

/// Writes lines to standard error; on a terminal, each takes the live status off its line first.
#[derive(Clone, Copy, Debug)]
struct Lines {
    terminal: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Stderr;

    fn make_writer(&'a self) -> Stderr {
        let mut stderr = io::stderr();
        if self.terminal {
            // The log line that follows fails in the same way, and is reported there.
            let _ = stderr.write_all(CLEAR_LINE.as_bytes());
        }
        stderr
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::UsageError;

    #[test]
    fn the_http2_library_s_frames_are_never_logged() {
        #[derive(Clone, Default)]
        struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

        impl Write for Log {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        for filter in ["debug", "trace", "info,h2=trace"] {
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(masked(filter))
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::debug!(target: "h2::codec::framed_read", "secret");
                tracing::warn!(target: "h2::proto", "fine");
                tracing::info!("ours");
            });
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let expected = (false, true, true);
            let found = (text.contains("secret"), text.contains("fine"), text.contains("ours"));
            assert_eq!(found, expected, "{filter}: {text}");
        }
    }

    #[test]
    fn nothing_is_said_twice_and_no_cause_is_left_out() {
        let source = io::ErrorKind::NotFound.into();
        let error = anyhow::Error::from(UsageError::Report { path: "/a".into(), source });
        let expected =
            "--report /a cannot be written (entity not found); name a file in a folder that you may write to";
        assert_eq!(sentence(&error), expected);
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound)).context("no way");
        assert_eq!(sentence(&error), "no way: entity not found");
    }
}
