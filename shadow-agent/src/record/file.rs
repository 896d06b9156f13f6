//! One file that grows: what is written is written at once, and a failure leaves whole what came before.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::unistd::{AccessFlags, access};

use super::{Kind, Options, RecordError};
use crate::exchange::Timestamp;

/// So many bytes are written before the next tick.
const MUCH: usize = 256 << 10;

/// A file that is written to.
pub(super) struct Output {
    path: PathBuf,
    sink: Sink,
    /// What was added and is not written yet.
    pending: Vec<u8>,
    /// What stands behind all that was added, for the file to be whole.
    tail: &'static str,
    /// Bytes added, the tail among them.
    size: u64,
    opened: Timestamp,
    exchanges: u64,
    exchanges_pending: u64,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({}, {} bytes)", self.path.display(), self.size)
    }
}

enum Sink {
    Plain {
        file: File,
        /// Where the tail stands.
        end: u64,
    },
    Gzip(Box<GzEncoder<Counted>>),
}

/// Counts what a compressor gives.
struct Counted {
    file: File,
    written: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether files can be made beside this one.
///
/// # Errors
/// When its folder is none, or may not be written to.
pub(super) fn check_folder(path: &Path) -> Result<(), RecordError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let error = |source| RecordError::Create { path: path.to_owned(), source };
    if !fs::metadata(folder).map_err(error)?.is_dir() {
        return Err(error(io::ErrorKind::NotADirectory.into()));
    }
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| error(errno.into()))
}

impl Output {
    /// Makes a file that nobody else may read, with its beginning and end.
    ///
    /// # Errors
    /// When there is one and it shall not be replaced, or is the one that is read, or it cannot be made.
    pub(super) fn create(
        path: &Path,
        kind: Kind,
        options: &Options,
        head: &[u8],
        tail: &'static str,
        opened: Timestamp,
    ) -> Result<Output, RecordError> {
        if options.from.as_deref().is_some_and(|from| is_same(from, path)) {
            return Err(RecordError::Itself { path: path.to_owned() });
        }
        let file = create(path, options.force).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists if !options.force => RecordError::Exists { path: path.to_owned() },
            _ => RecordError::Create { path: path.to_owned(), source },
        })?;
        let sink = match kind {
            Kind::GorGz => {
                let counted = Counted { file, written: 0 };
                Sink::Gzip(Box::new(GzEncoder::new(counted, Compression::default())))
            }
            Kind::Gor | Kind::Har | Kind::PcapNg => Sink::Plain { file, end: 0 },
        };
        let (pending, size) = (head.to_vec(), (head.len() + tail.len()) as u64);
        let path = path.to_owned();
        let mut output =
            Output { path, sink, pending, tail, size, opened, exchanges: 0, exchanges_pending: 0 };
        output.flush()?;
        Ok(output)
    }

    /// Adds a part of the file, in which so many exchanges end.
    pub(super) fn add(&mut self, bytes: &[u8], exchanges: u64) {
        self.pending.extend_from_slice(bytes);
        self.size += bytes.len() as u64;
        self.exchanges += exchanges;
        self.exchanges_pending += exchanges;
    }

    /// Bytes added, before compression.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Exchanges added.
    pub(super) fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// When it was made.
    pub(super) fn opened(&self) -> Timestamp {
        self.opened
    }

    /// Whether so much is pending that it should be written.
    pub(super) fn is_much(&self) -> bool {
        self.pending.len() >= MUCH
    }

    /// Bytes in the file.
    pub(super) fn written(&self) -> u64 {
        match &self.sink {
            Sink::Plain { end, .. } => end + self.tail.len() as u64,
            Sink::Gzip(encoder) => encoder.get_ref().written,
        }
    }

    /// Writes what is pending, with the tail behind it; says how many exchanges that were.
    ///
    /// # Errors
    /// When it cannot be written; then the file is as it was before, unless it is compressed.
    pub(super) fn flush(&mut self) -> Result<u64, RecordError> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        let added = self.pending.len() as u64;
        let result = match &mut self.sink {
            Sink::Plain { file, end } => {
                self.pending.extend_from_slice(self.tail.as_bytes());
                let written = file.write_all_at(&self.pending, *end);
                if written.is_ok() {
                    *end += added;
                } else {
                    restore(file, *end, self.tail);
                }
                written
            }
            Sink::Gzip(encoder) => encoder.write_all(&self.pending).and_then(|()| encoder.flush()),
        };
        self.pending.clear();
        // A large exchange need not be paid for any longer than it lasts.
        self.pending.shrink_to(2 * MUCH);
        result.map_err(|source| RecordError::Write { path: self.path.clone(), source })?;
        Ok(std::mem::take(&mut self.exchanges_pending))
    }

    /// Ends the file: a compressed one has an end of its own.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn finish(&mut self) -> Result<(), RecordError> {
        match &mut self.sink {
            Sink::Plain { .. } => Ok(()),
            Sink::Gzip(encoder) => {
                encoder.try_finish().map_err(|source| RecordError::Write { path: self.path.clone(), source })
            }
        }
    }
}

/// Takes back what was written in part. Where there is no room for anything, there still is for what was there before.
fn restore(file: &File, end: u64, tail: &str) {
    let restored = file.set_len(end).and_then(|()| file.write_all_at(tail.as_bytes(), end));
    if let Err(error) = restored {
        tracing::warn!("the end of the file is damaged, too ({error})");
    }
}

/// Whether both names are of one file; `-` is standard input. A link to it may be replaced.
fn is_same(from: &Path, out: &Path) -> bool {
    let from = if from == Path::new("-") { Path::new("/dev/stdin") } else { from };
    let (Ok(from), Ok(out)) = (fs::metadata(from), fs::symlink_metadata(out)) else { return false };
    (from.dev(), from.ino()) == (out.dev(), out.ino())
}

fn create(path: &Path, force: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    if force {
        match fs::symlink_metadata(path) {
            // What is no file stays: a device, a folder, a pipe.
            Ok(there) if there.is_file() || there.is_symlink() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    options.open(path)
}
