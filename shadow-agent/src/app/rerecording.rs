//! A file into files, until it ends or a signal does: what was taken until then is written, and told.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, anyhow};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::offline::LETTING_GO;
use super::signals::{self, Signals};
use super::{join, masking, runtime};
use crate::capture::file::FileSource;
use crate::cli::Exit;
use crate::record::{self, Recorder};
use crate::shard::PipelineSettings;
use crate::terminal;

/// Records what is in a file. A pipe that gives nothing after a signal is left to itself: after [`LETTING_GO`], or at a
/// second signal.
pub(super) fn record(
    source: FileSource,
    settings: PipelineSettings,
    recorder: Recorder,
) -> anyhow::Result<Exit> {
    signals::hold()?;
    let runtime = runtime()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let recorder = Arc::new(Mutex::new(recorder));
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, mut ended) = oneshot::channel();
    let thread = {
        let (recorder, stop) = (Arc::clone(&recorder), Arc::clone(&stop));
        let read = move || {
            let mut output = BufWriter::new(io::stdout());
            let watched = terminal::is_watched();
            // The other end waits for this thread, or has given it up.
            let _ = tell.send(record::run(source, &settings, &recorder, &stop, &mut output, watched));
        };
        thread::Builder::new().name("reader".to_owned()).spawn(read)
    };
    let thread = thread.context("the thread that reads the file could not be started")?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = &mut ended => return Some(ended),
            () = signals.stop() => stop.store(true, Ordering::Release),
        }
        tokio::select! {
            ended = ended => Some(ended),
            () = sleep(LETTING_GO) => None,
            () = signals.stop() => None,
        }
    });
    match ended {
        Some(ended) => {
            join(thread);
            masking::tell_failures(recorder.lock().unwrap_or_else(PoisonError::into_inner).masker());
            ended
                .map_err(|_| anyhow!("the thread that reads the file panicked; report the panic above"))??;
        }
        None => give_up(&recorder, &mut io::stdout())?,
    }
    Ok(Exit::Success)
}

/// Writes what was taken, and says what became of it; of the file that is read, nobody knows.
fn give_up(recorder: &Mutex<Recorder>, output: &mut dyn Write) -> anyhow::Result<()> {
    tracing::warn!(
        "what is read gives nothing more, and no end; it was given up, and what came before is written"
    );
    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
    let finished = recorder.finish();
    let summary = json!({ "summary": { "record": recorder.summary().json() } });
    // Whoever reads may be gone; that is no reason to fail.
    let _ = writeln!(output, "{summary}");
    Ok(finished?)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::policy::fixture::exchange;
    use crate::record::Options;

    #[test]
    fn what_was_taken_is_written_when_a_pipe_is_given_up() {
        let place = TempDir::new().unwrap();
        let out = place.path().join("a.gor");
        let options = Options { out: out.clone(), ..Options::default() };
        let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
        recorder.take(&exchange("GET /a", "200")).unwrap();
        assert_eq!(recorder.summary().written, 0, "it waits for a tick");
        let recorder = Mutex::new(recorder);
        let mut said = Vec::new();
        give_up(&recorder, &mut said).unwrap();
        assert!(String::from_utf8(said).unwrap().contains("\"written\":1"));
        assert!(std::fs::read(out).unwrap().starts_with(b"1 "));
        // The thread that reads may yet bring one.
        let mut recorder = recorder.into_inner().unwrap();
        recorder.take(&exchange("GET /b", "200")).unwrap();
        assert_eq!((recorder.summary().taken, recorder.summary().written), (2, 1));
    }
}
