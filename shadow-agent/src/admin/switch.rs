//! Remembers an operator's `disable` across restarts: a file that is there while capture is disabled.
//!
//! It knows files, not `control`. Whoever starts the agent asks [`SwitchFile::disabled`] before anything is captured.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The file's name in the state directory.
pub const NAME: &str = "disabled";

/// Why the switch cannot be remembered.
#[derive(Debug, Error)]
pub enum SwitchError {
    /// The file cannot be looked for.
    #[error(
        "whether an operator disabled capture cannot be read from {} ({source}): make the state directory readable",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written or removed.
    #[error(
        "the switch was thrown, but cannot be remembered in {} ({source}): it will not outlive a restart until the \
         state directory is writable",
        path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing could be remembered in the directory.
    #[error(
        "--state {} cannot be written to ({source}): give it to the user that the agent runs as, because not even root \
         passes over permissions once the agent has dropped its privileges",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The file that remembers.
#[derive(Clone, Debug)]
pub struct SwitchFile {
    directory: PathBuf,
    path: PathBuf,
}

impl SwitchFile {
    /// The file in a state directory, which need not exist yet.
    #[must_use]
    pub fn in_directory(directory: &Path) -> SwitchFile {
        SwitchFile { directory: directory.to_owned(), path: directory.join(NAME) }
    }

    /// Whether an operator disabled capture, and nobody enabled it since.
    ///
    /// # Errors
    /// When that cannot be told; capturing then would be wrong.
    pub fn disabled(&self) -> Result<bool, SwitchError> {
        self.path.try_exists().map_err(|source| SwitchError::Read { path: self.path.clone(), source })
    }

    /// Makes sure that a position could be remembered, with the rights of now. Makes the directory when there is none.
    ///
    /// # Errors
    /// When the directory cannot be made or written to.
    pub fn check_writable(&self) -> Result<(), SwitchError> {
        let draft = self.draft();
        let tried = fs::create_dir_all(&self.directory)
            .and_then(|()| File::create(&draft))
            .and_then(|_| fs::remove_file(&draft));
        tried.map_err(|source| SwitchError::Directory { path: self.directory.clone(), source })
    }

    /// Remembers the position of the switch; atomically, and on disk when it returns.
    ///
    /// # Errors
    /// When it cannot be remembered.
    pub fn remember(&self, enabled: bool) -> Result<(), SwitchError> {
        let done = if enabled { self.remove() } else { self.create() };
        done.map_err(|source| SwitchError::Write { path: self.path.clone(), source })
    }

    fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let draft = self.draft();
        let mut file = File::create(&draft)?;
        file.write_all(b"An operator or a guard disabled capture. To enable it: shadow-agent ctl enable\n")?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        File::open(&self.directory)?.sync_all()
    }

    fn draft(&self) -> PathBuf {
        self.directory.join(format!("{NAME}.new"))
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Ok(()) => File::open(&self.directory)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::Scratch;

    #[test]
    fn a_disable_is_remembered_until_someone_enables() {
        let scratch = Scratch::new("switch");
        let directory = scratch.path().join("state");
        let file = SwitchFile::in_directory(&directory);
        assert!(!file.disabled().unwrap());
        file.check_writable().unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "trying leaves nothing");
        file.remember(true).unwrap();
        for _ in 0..2 {
            file.remember(false).unwrap();
            assert!(SwitchFile::in_directory(&directory).disabled().unwrap());
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no draft is left");
        file.remember(true).unwrap();
        assert!(!file.disabled().unwrap());
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let scratch = Scratch::new("switch-file");
        let not_a_directory = scratch.path().join("file");
        fs::write(&not_a_directory, "").unwrap();
        let file = SwitchFile::in_directory(&not_a_directory);
        let error = file.remember(false).unwrap_err().to_string();
        assert!(error.contains("file/disabled") && error.contains("will not outlive a restart"), "{error}");
        assert!(file.disabled().is_err(), "unknown is not enabled");
        let error = file.check_writable().unwrap_err().to_string();
        assert!(error.starts_with(&format!("--state {} cannot be", not_a_directory.display())), "{error}");
    }
}
