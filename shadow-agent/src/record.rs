//! `record`: exchanges into files that others read, masked, a new file when the last one is large or old enough.
//!
//! It takes exchanges of one thread; what the time is, the caller says. Only `Kept` values are written.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::exchange::{Exchange, SkipReason, Timestamp, reasons};
use crate::offline::named;
use crate::policy::mask::Masker;

mod encoder;
mod file;
mod gor;
mod har;
mod names;
mod offline;
mod pcapng;
#[cfg(test)]
mod tests;
mod wire;

pub use names::Kind;
pub use offline::{RunError, run};

use encoder::{Encoder, Prepared};
use file::Output;
use names::Names;

/// What was taken is written at the first [`Recorder::tick`] after so long.
pub const FLUSH_AFTER: Duration = Duration::from_millis(250);

/// How long the packets of a capture wait for others that precede them. An exchange that takes longer begins in the file
/// behind what was written meanwhile.
pub const HOLD: Duration = Duration::from_millis(500);

/// Why nothing more is written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The name says none of the kinds that can be written.
    #[error("--out {} is of no kind that can be written; end its name in .gor, .gor.gz, .har or .pcapng", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// There is a file of that name.
    #[error("--out {} exists already; name another file, or replace it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is the file that is read.
    #[error("--out {} is the file that is read, which would be lost; name another file", path.display())]
    Itself {
        /// The file.
        path: PathBuf,
    },
    /// No file of that name can be made.
    #[error("--out {} cannot be created ({source}); name a file in a folder that you may write to", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written any more.
    #[error("{} cannot be written ({source}); make room, or record elsewhere; what was written before is whole", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

reasons! {
    /// Why a whole exchange is not in a file.
    LeftOut {
        /// Rules may apply to a body that cannot be decoded or parsed (fail closed).
        Unmaskable = "unmaskable",
        /// The file could not be written any more.
        Unwritten = "unwritten",
        /// A masking rule with the action `drop-exchange` found something.
        DropExchange = "drop_exchange",
        /// The self-check found something that masking should have hidden (fail closed).
        MaskFailed = "mask_failed",
    }
}

/// Where to, and when into another file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The file; with a limit on size or age, what the names of the files are made of.
    pub out: PathBuf,
    /// The largest file, in bytes, before compression. An exchange that alone is larger has a file of its own.
    pub rotate_size: Option<u64>,
    /// How long a file is written to.
    pub rotate_every: Option<Duration>,
    /// How many files of this run stay; the oldest goes.
    pub keep: Option<usize>,
    /// Whether a file that exists is replaced.
    pub force: bool,
    /// The file that is read, if there is one; it is never replaced.
    pub from: Option<PathBuf>,
}

impl Options {
    fn rotates(&self) -> bool {
        self.rotate_size.is_some() || self.rotate_every.is_some()
    }
}

/// What was taken and what became of it: `taken = written + left out + pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Exchanges taken.
    pub taken: u64,
    /// Exchanges in files.
    pub written: u64,
    /// Exchanges that will be in a file after the next tick.
    pub pending: u64,
    /// Exchanges in no file, indexed by `LeftOut as usize`.
    pub left_out: [u64; LeftOut::ALL.len()],
    /// Bytes in files, those removed among them.
    pub bytes: u64,
    /// Files written.
    pub files: u64,
    /// Files removed again, to keep so many.
    pub removed: u64,
}

impl Summary {
    /// The summary by name.
    #[must_use]
    pub fn json(&self) -> Map<String, Value> {
        let left_out = named(LeftOut::ALL.iter().map(|reason| reason.as_str()), &self.left_out);
        let all = [
            ("taken", json!(self.taken)),
            ("written", json!(self.written)),
            ("left_out", json!(left_out)),
            ("bytes", json!(self.bytes)),
            ("files", json!(self.files)),
            ("files_removed", json!(self.removed)),
        ];
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Writes exchanges to files.
///
/// [`Recorder::take`] each of them, [`Recorder::tick`] four times a second or more often, [`Recorder::finish`] in the end: then
/// what was taken is in a file a second later. After an error nothing more is written; what is taken then is counted as
/// left out.
#[derive(Debug)]
pub struct Recorder {
    masker: Arc<Masker>,
    options: Options,
    names: Names,
    encoder: Encoder,
    output: Option<Output>,
    /// The latest time heard of.
    now: Timestamp,
    /// When the first exchange was taken of those that are pending.
    since: Option<Timestamp>,
    failed: bool,
    summary: Summary,
}

impl Recorder {
    /// Makes sure that there is a place to write to. A file that is not rotated exists from here on.
    ///
    /// # Errors
    /// When the name says no kind, the file exists, or it cannot be made.
    pub fn new(options: &Options, masker: Arc<Masker>) -> Result<Recorder, RecordError> {
        let kind = Kind::of(&options.out)?;
        let mut recorder = Recorder {
            masker,
            options: options.clone(),
            names: Names::new(options, kind),
            encoder: Encoder::new(kind),
            output: None,
            now: Timestamp::default(),
            since: None,
            failed: false,
            summary: Summary::default(),
        };
        if options.rotates() {
            file::check_folder(&options.out)?;
        } else {
            recorder.open()?;
        }
        Ok(recorder)
    }

    /// Masks by these rules from now on.
    pub fn mask_by(&mut self, masker: Arc<Masker>) {
        self.masker = masker;
    }

    /// What masks the exchanges.
    #[must_use]
    pub fn masker(&self) -> &Masker {
        &self.masker
    }

    /// Takes an exchange. The end of its response moves the time on, as a tick does.
    ///
    /// # Errors
    /// When a file cannot be made or written; nothing more is written then.
    pub fn take(&mut self, exchange: &Exchange) -> Result<(), RecordError> {
        self.summary.taken += 1;
        if self.failed {
            self.leave_out(LeftOut::Unwritten, 1);
            return Ok(());
        }
        let kept = match self.masker.keep_exchange(exchange) {
            Ok(kept) => kept,
            Err(reason) => {
                self.leave_out(
                    match reason {
                        SkipReason::DropExchange => LeftOut::DropExchange,
                        SkipReason::MaskFailed => LeftOut::MaskFailed,
                        _ => LeftOut::Unmaskable,
                    },
                    1,
                );
                return Ok(());
            }
        };
        self.summary.pending += 1;
        let added = self.turn(exchange.times.response_done).and_then(|()| {
            let mut prepared = self.encoder.prepare(&kept);
            if self.is_full(&prepared) {
                self.close()?;
                prepared = self.encoder.prepare(&kept);
            }
            self.add(prepared)
        });
        self.or_failed(added)
    }

    /// Tells the time, on the clock of the exchanges: what is pending is written, and a file that is old enough ends.
    ///
    /// # Errors
    /// As for [`Recorder::take`].
    pub fn tick(&mut self, now: Timestamp) -> Result<(), RecordError> {
        if self.failed {
            return Ok(());
        }
        let turned = self.turn(now);
        self.or_failed(turned)
    }

    /// Writes what is pending, and closes the file. Nothing can be taken any more.
    ///
    /// # Errors
    /// As for [`Recorder::take`].
    pub fn finish(&mut self) -> Result<(), RecordError> {
        if self.failed {
            return Ok(());
        }
        let closed = self.close();
        let finished = self.or_failed(closed);
        self.failed = true;
        finished
    }

    /// What became of everything so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let open = self.output.as_ref().map_or(0, Output::written);
        Summary { bytes: self.summary.bytes + open, ..self.summary }
    }

    fn leave_out(&mut self, reason: LeftOut, exchanges: u64) {
        if let Some(count) = self.summary.left_out.get_mut(reason as usize) {
            *count += exchanges;
        }
    }

    fn or_failed(&mut self, result: Result<(), RecordError>) -> Result<(), RecordError> {
        if result.is_err() {
            self.failed = true;
            let pending = std::mem::take(&mut self.summary.pending);
            self.leave_out(LeftOut::Unwritten, pending);
            if let Some(output) = self.output.take() {
                self.summary.bytes += output.written();
            }
        }
        result
    }

    fn turn(&mut self, now: Timestamp) -> Result<(), RecordError> {
        self.now = self.now.max(now);
        let aged = |every: Duration| {
            self.output.as_ref().is_some_and(|output| self.now.since(output.opened()) >= every)
        };
        if self.options.rotate_every.is_some_and(aged) {
            return self.close();
        }
        if self.since.is_some_and(|since| self.now.since(since) >= FLUSH_AFTER) {
            self.flush(false)?;
        }
        Ok(())
    }

    fn is_full(&self, prepared: &Prepared) -> bool {
        let (Some(limit), Some(output)) = (self.options.rotate_size, &self.output) else { return false };
        let size = output.size() + self.encoder.held() + prepared.size();
        output.exchanges() + self.encoder.held_exchanges() > 0 && size > limit
    }

    fn add(&mut self, prepared: Prepared) -> Result<(), RecordError> {
        if self.output.is_none() {
            self.open()?;
        }
        self.since.get_or_insert(self.now);
        let Some(output) = &mut self.output else { return Ok(()) };
        self.encoder.commit(prepared, output);
        if output.is_much() { self.write(self.since) } else { Ok(()) }
    }

    fn open(&mut self) -> Result<(), RecordError> {
        let path = self.names.next(self.now);
        let (head, tail) = (self.encoder.head(), self.encoder.tail());
        self.output = Some(Output::create(&path, self.names.kind(), &self.options, &head, tail, self.now)?);
        self.summary.files += 1;
        self.summary.removed += self.names.opened(path);
        Ok(())
    }

    /// Writes what is due, or everything there is.
    fn flush(&mut self, all: bool) -> Result<(), RecordError> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let before = (!all).then(|| self.now.before(HOLD));
        self.encoder.release(before, output);
        let since = (self.encoder.held_exchanges() > 0).then_some(self.now);
        self.write(since)
    }

    fn write(&mut self, since: Option<Timestamp>) -> Result<(), RecordError> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let written = output.flush()?;
        self.summary.written += written;
        self.summary.pending -= written;
        self.since = since;
        Ok(())
    }

    fn close(&mut self) -> Result<(), RecordError> {
        self.flush(true)?;
        if let Some(mut output) = self.output.take() {
            let ended = output.finish();
            self.summary.bytes += output.written();
            ended?;
        }
        self.encoder.restart();
        Ok(())
    }
}
