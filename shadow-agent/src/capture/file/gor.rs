//! GoReplay's recordings: a line that says what a message is, the message as it was on the wire, a separator.

use std::io::Read;

use memchr::memmem::Finder;

use super::Broken;
use super::dialogue::Message;
use super::window::Window;
use crate::capture::Direction;
use crate::exchange::Timestamp;

/// What stands behind every message: three monkeys in a line of their own.
pub(super) const SEPARATOR: &[u8] = "\n🐵🙈🙉\n".as_bytes();

/// The largest message with its first line, in bytes; a larger one is passed over.
const MAX_MESSAGE: usize = 256 << 20;
/// The longest first line, in bytes.
const MAX_META: usize = 512;

/// One record of a file.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// A request, or production's response to one.
    Message(Message<'a>),
    /// What a replayed request was answered with.
    Replayed,
    /// It cannot be understood.
    Malformed,
}

/// Whether a file with this beginning is a recording.
pub(super) fn begins(bytes: &[u8]) -> bool {
    matches!(bytes, [b'1'..=b'3', b' ', third, ..] if third.is_ascii_alphanumeric())
}

/// The records of a file.
pub(super) struct Gor<R> {
    window: Window<R>,
    separator: Finder<'static>,
    /// Bytes of the window that the last record took.
    taken: usize,
}

impl<R: Read> Gor<R> {
    pub(super) fn new(window: Window<R>) -> Gor<R> {
        Gor { window, separator: Finder::new(SEPARATOR), taken: 0 }
    }

    /// How far the file was read, in bytes.
    pub(super) fn position(&self) -> u64 {
        self.window.position()
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Broken> {
        self.window.pass(std::mem::take(&mut self.taken));
        let mut searched = 0_usize;
        let length = loop {
            let bytes = self.window.bytes();
            let from = searched.saturating_sub(SEPARATOR.len() - 1);
            if let Some(at) = self.separator.find(bytes.get(from..).unwrap_or_default()) {
                break from + at;
            }
            searched = bytes.len();
            if searched > MAX_MESSAGE {
                return self.pass_over().map(|()| Some(Record::Malformed));
            }
            if !self.window.extend()? {
                let blank = self.window.bytes().iter().all(u8::is_ascii_whitespace);
                return if blank { Ok(None) } else { Err(Broken::Cut) };
            }
        };
        self.taken = length + SEPARATOR.len();
        Ok(Some(record(self.window.bytes().get(..length).unwrap_or_default())))
    }

    /// Passes over a record that is too large to be held.
    fn pass_over(&mut self) -> Result<(), Broken> {
        loop {
            let bytes = self.window.bytes();
            if let Some(at) = self.separator.find(bytes) {
                self.taken = at + SEPARATOR.len();
                return Ok(());
            }
            let kept = bytes.len().min(SEPARATOR.len() - 1);
            self.window.pass(bytes.len() - kept);
            if !self.window.extend()? {
                return Err(Broken::Cut);
            }
        }
    }
}

fn record(bytes: &[u8]) -> Record<'_> {
    let meta = bytes.get(..bytes.len().min(MAX_META)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', meta) else { return Record::Malformed };
    let (meta, bytes) = bytes.split_at(end);
    let bytes = bytes.get(1..).unwrap_or_default();
    let Ok(meta) = std::str::from_utf8(meta) else { return Record::Malformed };
    let mut fields = meta.split_ascii_whitespace();
    let (kind, name, time) = (fields.next(), fields.next(), fields.next());
    let time = time.and_then(|time| time.parse().ok()).map(Timestamp);
    match (kind, name, time) {
        (Some("1"), Some(name), Some(time)) => {
            Record::Message(Message { direction: Direction::ToServer, name, time, bytes })
        }
        (Some("2"), Some(name), Some(time)) => {
            Record::Message(Message { direction: Direction::ToClient, name, time, bytes })
        }
        (Some("3"), Some(_), Some(_)) => Record::Replayed,
        _ => Record::Malformed,
    }
}
