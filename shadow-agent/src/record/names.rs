//! What the files of a recording are called, and of what kind they are. Removes the oldest when there are too many.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Options, RecordError};
use crate::exchange::Timestamp;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GoReplay's recording.
    Gor,
    /// The same, compressed with gzip.
    GorGz,
    /// An HTTP archive (HAR 1.2).
    Har,
    /// A capture.
    PcapNg,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Gor, Kind::GorGz, Kind::Har, Kind::PcapNg];

    /// The kind that the end of a name says.
    ///
    /// # Errors
    /// When it says none, or nothing stands before it.
    pub fn of(path: &Path) -> Result<Kind, RecordError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is = |kind: &Kind| name.strip_suffix(kind.ending()).is_some_and(|stem| !stem.is_empty());
        Kind::ALL.into_iter().find(is).ok_or_else(|| RecordError::Kind { path: path.to_owned() })
    }

    /// The end of the name.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Kind::Gor => ".gor",
            Kind::GorGz => ".gor.gz",
            Kind::Har => ".har",
            Kind::PcapNg => ".pcapng",
        }
    }
}

/// Names passed over at once, because there are files of that name.
pub(super) const MAX_TAKEN: usize = 1000;

/// Names files one after the other.
#[derive(Debug)]
pub(super) struct Names {
    out: PathBuf,
    kind: Kind,
    rotates: bool,
    keep: Option<usize>,
    force: bool,
    count: u64,
    /// The files of this run that are still there, if some of them will not stay.
    opened: VecDeque<PathBuf>,
}

impl Names {
    pub(super) fn new(options: &Options, kind: Kind) -> Names {
        let Options { keep, force, .. } = *options;
        let (out, rotates) = (options.out.clone(), options.rotates());
        Names { out, kind, rotates, keep, force, count: 0, opened: VecDeque::new() }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The next name: that of `--out`, and with rotation, in front of its ending, the time in UTC and a number. Names that
    /// an earlier run gave to its files are passed over, up to [`MAX_TAKEN`] of them.
    pub(super) fn next(&mut self, now: Timestamp) -> PathBuf {
        if !self.rotates {
            return self.out.clone();
        }
        for _ in 0..MAX_TAKEN {
            let path = self.numbered(now);
            if self.force || fs::symlink_metadata(&path).is_err() {
                return path;
            }
        }
        self.numbered(now)
    }

    fn numbered(&mut self, now: Timestamp) -> PathBuf {
        self.count += 1;
        let name = self.out.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.strip_suffix(self.kind.ending()).unwrap_or(&name);
        let time: String =
            now.to_string().chars().take(19).filter(|char| !matches!(char, '-' | ':')).collect();
        self.out.with_file_name(format!("{stem}-{time}Z-{:04}{}", self.count, self.kind.ending()))
    }

    /// Notes that a file is there, and removes the oldest of those that are too many; says how many these were.
    pub(super) fn opened(&mut self, path: PathBuf) -> u64 {
        let Some(keep) = self.keep else { return 0 };
        self.opened.push_back(path);
        let mut removed = 0;
        while self.opened.len() > keep.max(1)
            && let Some(oldest) = self.opened.pop_front()
        {
            match fs::remove_file(&oldest) {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!("{} cannot be removed ({error})", oldest.display()),
            }
        }
        removed
    }
}
