//! Records from a file, and says in the end what became of what was in it.

use std::io::{self, Write};
use std::ops::ControlFlow;

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
/// became of the exchanges that are whole. `watched` says that somebody may see a progress on the terminal.
///
/// # Errors
/// When one of the files cannot be read or written, or the summary cannot be printed.
pub fn run(
    source: FileSource,
    settings: &PipelineSettings,
    recorder: &mut Recorder,
    output: &mut dyn Write,
    watched: bool,
) -> Result<(), RunError> {
    let mut failed = None;
    let mut read = offline::read(source, settings, watched, &mut |event| {
        if let Event::Exchange(exchange) = event
            && let Err(error) = recorder.take(exchange)
        {
            failed = Some(error);
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
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
