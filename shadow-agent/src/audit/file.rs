//! The files of the audit log: appended to, begun anew at a size, the oldest removed. It knows bytes, not entries.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Settings;

/// Readable and writable by its owner only.
const MODE: u32 = 0o600;

/// The file that is written to.
#[derive(Debug)]
pub(super) struct AuditFile {
    settings: Settings,
    file: File,
    /// Bytes in it.
    length: u64,
    /// Whether it may end within a line.
    torn: bool,
}

impl AuditFile {
    /// Opens the file, or makes it. A last line that a killed agent left torn is ended, so that the next one is whole.
    pub(super) fn open(settings: &Settings) -> io::Result<AuditFile> {
        let (file, length, torn) = open(&settings.path)?;
        Ok(AuditFile { settings: settings.clone(), file, length, torn })
    }

    /// Appends a line with its end, where the end of the agent cannot take it away any more.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.was_moved() {
            (self.file, self.length, self.torn) = open(&self.settings.path)?;
        }
        if self.length > 0 && self.length.saturating_add(line.len() as u64) > self.settings.max_size {
            self.rotate()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            (self.torn, self.length) = (false, self.length + 1);
        }
        // Until all of it is there.
        self.torn = true;
        self.file.write_all(line)?;
        self.torn = false;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Waits until everything appended is on the disk, where the end of the machine cannot take it away either.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether somebody took the file away, so that nobody would find what is written to it.
    fn was_moved(&self) -> bool {
        let same = fs::metadata(&self.settings.path).and_then(|there| {
            let ours = self.file.metadata()?;
            Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        });
        !same.unwrap_or(false)
    }

    /// Moves every file one place on, the last one out of the way, and begins another.
    fn rotate(&mut self) -> io::Result<()> {
        let place = |number: usize| match number {
            0 => self.settings.path.clone(),
            _ => numbered(&self.settings.path, number),
        };
        for number in (0..self.settings.keep).rev() {
            match fs::rename(place(number), place(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        (self.file, self.length, self.torn) = open(&self.settings.path)?;
        Ok(())
    }
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The file, its length, and whether its last line is torn.
fn open(path: &Path) -> io::Result<(File, u64, bool)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let length = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok((file, length, last != *b"\n"))
}
