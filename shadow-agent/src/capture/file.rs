//! Segments from files: captures (pcap and pcapng), and what others recorded (GoReplay, HTTP archives), compressed with
//! gzip or not, read once from front to back.
//!
//! What kind a file is, its first bytes say, never its name. However large it is, memory stays the same.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use shadow_ebpf::packet::Unusable;

use super::{Segment, SegmentSource};
use crate::exchange::reasons;

mod dialogue;
mod frame;
mod gor;
mod har;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;
mod window;

use dialogue::{Dialogues, Message};
use frame::{Link, Packet};
use gor::{Gor, Record};
use har::{Har, Written};
use pcap::Pcap;
use pcapng::PcapNg;
use window::Window;

/// The largest packet that a file may hold, in bytes: more than any link carries and any tool captures. A length beyond
/// it is damage.
pub const MAX_RECORD: usize = 16 << 20;

/// Records handed over in one go.
const BATCH: usize = 1024;

const GZIP: [u8; 2] = [0x1F, 0x8B];

/// Why a file cannot be used, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("{} cannot be opened ({source}); name a capture that you may read, or - for standard input", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("{} cannot be read behind byte {offset} ({source}); what comes before was used", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// How far it was read.
        offset: u64,
        /// What the system said, or the decompressor.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no capture that can be read: it begins with {begins}; pcap, pcapng, GoReplay's recordings and HTTP \
             archives can be read, compressed with gzip or not", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        begins: String,
    },
    /// Its packets are of a kind that cannot be read.
    #[error("{} holds packets with link-layer header type {number}; Ethernet (1), raw IP (101), Linux cooked (113, 276) and \
             loopback (0, 108) can be read", path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// The number in the registry of link-layer header types.
        number: u32,
    },
    /// It is no HTTP archive, or not to its end.
    #[error("{} cannot be read as an HTTP archive ({source}); what comes before was used", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// It contradicts itself.
    #[error("{} is damaged at byte {offset}: {problem}; what comes before was used", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, after decompression.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Why reading ends before its time, before anybody knows the name of the file.
#[derive(Debug)]
enum Broken {
    Io(io::Error),
    Link {
        number: u32,
    },
    Damaged {
        offset: u64,
        problem: String,
    },
    Archive(serde_json::Error),
    /// It ends within a record, as a file does whose writer was killed.
    Cut,
}

impl Broken {
    fn damaged(offset: u64, problem: impl Into<String>) -> Broken {
        Broken::Damaged { offset, problem: problem.into() }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        // So says a decompressor.
        if error.kind() == io::ErrorKind::UnexpectedEof { Broken::Cut } else { Broken::Io(error) }
    }
}

reasons! {
    /// What became of a record of a file.
    FileRecord {
        /// A packet that gave a segment.
        Segment = "segment",
        /// A packet that is not TCP.
        NotTcp = "not_tcp",
        /// An IP fragment: it cannot be attributed to a flow.
        Fragment = "fragment",
        /// A packet that ends within a header, or whose headers contradict themselves; a record that cannot be read.
        Malformed = "malformed",
        /// A packet that begins with a link-layer header that cannot be read.
        Link = "link",
        /// A message of a recording.
        Message = "message",
        /// A recorded response that no request in the file asked for.
        Unasked = "unasked",
        /// A recorded response of a shadow.
        Replayed = "replayed",
        /// An entry of an HTTP archive that never went over the wire, or is not HTTP.
        NotHttp = "not_http",
    }
}

/// What was met in a file so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records by what became of them, indexed by `FileRecord as usize`.
    pub records: [u64; FileRecord::ALL.len()],
    /// Segments of which the capture holds a part only (snap length).
    pub snapped: u64,
    /// Where the file ends within a record, in bytes after decompression.
    pub cut: Option<u64>,
}

/// How far a file was read; it can be asked from any thread.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Progress {
    /// Bytes read, before decompression.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How much of it was read, 0 to 1; of a pipe, nobody knows.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let total = self.total.filter(|&total| total > 0)?;
        Some((self.read() as f64 / total as f64).min(1.0))
    }

    /// Bytes in all; of a pipe, nobody knows.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }
}

/// The segments of one file.
pub struct FileSource {
    path: PathBuf,
    records: Records,
    progress: Progress,
    tally: Tally,
    /// Nothing more is to be had.
    done: bool,
}

type Input = Box<dyn Read + Send>;

enum Records {
    Pcap(Pcap<Input>),
    PcapNg(PcapNg<Input>),
    Gor(Box<Gor<Input>>, Dialogues),
    Har(Har, Dialogues),
}

impl Records {
    /// Reads a record, hands over what it holds, and says what it was; nothing at the end of the file.
    fn next(
        &mut self,
        snapped: &mut u64,
        handle: &mut dyn FnMut(&Segment<'_>),
    ) -> Result<Option<FileRecord>, Broken> {
        Ok(match self {
            Records::Pcap(pcap) => pcap.next()?.map(|packet| take(&packet, snapped, handle)),
            Records::PcapNg(pcapng) => pcapng.next()?.map(|packet| take(&packet, snapped, handle)),
            Records::Gor(gor, dialogues) => gor.next()?.map(|record| match record {
                Record::Message(message) if dialogues.take(&message, handle) => FileRecord::Message,
                Record::Message(_) => FileRecord::Unasked,
                Record::Replayed => FileRecord::Replayed,
                Record::Malformed => FileRecord::Malformed,
            }),
            Records::Har(har, dialogues) => har.next()?.map(|written| {
                let Some(Written { direction, number, time, bytes }) = written else {
                    return FileRecord::NotHttp;
                };
                let (name, bytes) = (number.to_string(), bytes.as_slice());
                dialogues.take(&Message { direction, name: &name, time, bytes }, handle);
                FileRecord::Message
            }),
        })
    }

    /// How far the file was read, in bytes after decompression; of an archive, nobody knows.
    fn position(&self) -> u64 {
        match self {
            Records::Pcap(pcap) => pcap.position(),
            Records::PcapNg(pcapng) => pcapng.position(),
            Records::Gor(gor, _) => gor.position(),
            Records::Har(..) => 0,
        }
    }
}

impl FileSource {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be read, or is not one.
    pub fn open(path: &Path) -> Result<FileSource, FileError> {
        let error = |source| FileError::Open { path: path.to_owned(), source };
        if path == Path::new("-") {
            return FileSource::new(path, Box::new(io::stdin()), None);
        }
        let file = File::open(path).map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        if metadata.is_dir() {
            return Err(error(io::ErrorKind::IsADirectory.into()));
        }
        let total = metadata.is_file().then_some(metadata.len());
        FileSource::new(path, Box::new(file), total)
    }

    /// Reads a file from anywhere; `path` is what it is called in messages.
    ///
    /// # Errors
    /// When it cannot be read, or is not one.
    pub fn new(path: &Path, input: Input, total: Option<u64>) -> Result<FileSource, FileError> {
        let progress = Progress { read: Arc::default(), total };
        let counted = Counted { input, read: Arc::clone(&progress.read) };
        let records = begin(Box::new(counted)).map_err(|broken| match broken {
            Beginning::Broken(broken) => named(path, 0, broken),
            Beginning::Unknown(begins) => FileError::Unknown { path: path.to_owned(), begins },
        })?;
        Ok(FileSource { path: path.to_owned(), records, progress, tally: Tally::default(), done: false })
    }

    /// How far it was read.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// What was met so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

impl SegmentSource for FileSource {
    type Error = FileError;

    fn can_wait(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        _timeout: Duration,
        handle: &mut dyn FnMut(&Segment<'_>),
    ) -> Result<Option<usize>, FileError> {
        if self.done {
            return Ok(None);
        }
        let mut segments = 0;
        for _ in 0..BATCH {
            let mut count = |segment: &Segment<'_>| {
                segments += 1;
                handle(segment);
            };
            match self.records.next(&mut self.tally.snapped, &mut count) {
                Ok(Some(record)) => {
                    if let Some(count) = self.tally.records.get_mut(record as usize) {
                        *count += 1;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(Broken::Cut) => self.tally.cut = Some(self.records.position()),
                Err(broken) => {
                    self.done = true;
                    return Err(named(&self.path, self.records.position(), broken));
                }
            }
            self.done = true;
            break;
        }
        Ok(Some(segments))
    }
}

/// Hands a packet over if it is of use.
fn take(packet: &Packet<'_>, snapped: &mut u64, handle: &mut dyn FnMut(&Segment<'_>)) -> FileRecord {
    match packet.segment() {
        Ok(segment) => {
            *snapped += u64::from(segment.missing > 0);
            handle(&segment);
            FileRecord::Segment
        }
        Err(_) if matches!(packet.link, Link::Other(_)) => FileRecord::Link,
        Err(Unusable::NotTcp) => FileRecord::NotTcp,
        Err(Unusable::Fragment) => FileRecord::Fragment,
        Err(Unusable::Malformed) => FileRecord::Malformed,
    }
}

enum Beginning {
    Broken(Broken),
    /// Its first bytes, as text.
    Unknown(String),
}

/// How many bytes say what a file is.
const BEGINNING: usize = 64;

/// Finds out what a file is.
fn begin(input: Input) -> Result<Records, Beginning> {
    let broken = |error: io::Error| Beginning::Broken(error.into());
    let mut window = Window::new(input);
    window.reach(BEGINNING).map_err(broken)?;
    if window.bytes().starts_with(&GZIP) {
        let decoder: Input = Box::new(MultiGzDecoder::new(window.into_rest()));
        window = Window::new(decoder);
        window.reach(BEGINNING).map_err(broken)?;
    }
    let first = window.bytes();
    if pcap::magic(first).is_some() {
        return Pcap::new(window).map(Records::Pcap).map_err(Beginning::Broken);
    }
    if first.starts_with(&pcapng::SECTION) {
        return Ok(Records::PcapNg(PcapNg::new(window)));
    }
    if gor::begins(first) {
        return Ok(Records::Gor(Box::new(Gor::new(window)), Dialogues::default()));
    }
    if har::begins(first) {
        window.pass(har::mark(window.bytes()));
        let har = Har::new(window.into_rest()).map_err(Beginning::Broken)?;
        return Ok(Records::Har(har, Dialogues::default()));
    }
    let shown: Vec<u8> = first.iter().take(16).copied().collect();
    Err(Beginning::Unknown(match shown.as_slice() {
        [] => "nothing".to_owned(),
        shown => format!("\"{}\"", shown.escape_ascii()),
    }))
}

/// The error for a file of which so much was read.
fn named(path: &Path, offset: u64, broken: Broken) -> FileError {
    let path = path.to_owned();
    match broken {
        Broken::Io(source) => FileError::Read { path, offset, source },
        Broken::Link { number } => FileError::Link { path, number },
        Broken::Damaged { offset, problem } => FileError::Damaged { path, offset, problem },
        Broken::Archive(source) => FileError::Archive { path, source },
        Broken::Cut => FileError::Damaged { path, offset, problem: "it ends there".to_owned() },
    }
}

/// Counts what is read.
struct Counted {
    input: Input,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
