//! Records from a file, and says in the end what became of what was in it.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{RecordError, Recorder};
use crate::capture::file::{FileError, FileSource};
use crate::offline;
use crate::shard::{Event, PipelineSettings};

/// Why recording from a file ended before its time. What came before was recorded, and the summary was printed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file read cannot be read to its end.
    #[error(transparent)]
    File(#[from] FileError),
    /// The files written cannot be written any more.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Nobody takes the summary.
    #[error("standard output cannot be written ({0})")]
    Output(#[from] io::Error),
}

/// Records what is in a file, and prints a summary: the ledger of the file as `inspect` prints it, and under `record` what
/// became of the exchanges that are whole. `stop` ends it at the next exchange, and what came before is written. `watched`
/// says that somebody may see a progress on the terminal.
///
/// While the source gives nothing, the recorder is to be had for whoever wants to finish it.
///
/// # Errors
/// When one of the files cannot be read or written, or the summary cannot be printed.
pub fn run(
    source: FileSource,
    settings: &PipelineSettings,
    recorder: &Mutex<Recorder>,
    stop: &AtomicBool,
    output: &mut dyn Write,
    watched: bool,
) -> Result<(), RunError> {
    let recorder = || recorder.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failed = None;
    let mut read = offline::read(source, settings, watched, &mut |event| {
        if let Event::Exchange(exchange) = event
            && let Err(error) = recorder().take(exchange)
        {
            failed = Some(error);
        }
        let enough = failed.is_some() || stop.load(Ordering::Acquire);
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let mut recorder = recorder();
    let finished = recorder.finish();
    read.books.insert("record".to_owned(), Value::Object(recorder.summary().json()));
    writeln!(output, "{}", json!({ "summary": read.books }))?;
    output.flush()?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    finished?;
    Ok(read.ended?)
}
