//! Says how a run ended: the summary on standard output, and the report in its file.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::UsageError;
use crate::report::Summary;
use crate::report::text::{self, Style};

/// Refuses a report path that could not be written at the end, before anything was captured for it.
pub(super) fn check_writable(path: &Path) -> anyhow::Result<()> {
    let tried = match place(path) {
        Place::InPlace if path.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        // Opening a pipe would wait for its reader.
        Place::InPlace => Ok(()),
        Place::File { partial, .. } => File::create(&partial).and_then(|_| fs::remove_file(&partial)),
    };
    tried.map_err(|source| UsageError::Report { path: path.to_owned(), source }.into())
}

/// Shows the summary, and writes the report whole or not at all.
pub(super) fn publish(summary: &Summary, report: Option<&Path>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let style = Style { colour: stdout.is_terminal(), ..Style::default() };
    let shown = text::render(summary, style);
    // Whoever reads may be gone; the report must be written all the same.
    let _ = stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush());
    let Some(path) = report else { return Ok(()) };
    let json = serde_json::to_vec_pretty(summary).context("the summary could not be written as JSON")?;
    write(path, &json).with_context(|| format!("--report {} could not be written", path.display()))
}

/// How a report gets to its place.
enum Place {
    /// What is there is no file (a device, a pipe): it must stay, and is written to.
    InPlace,
    /// A file, complete before it takes its name.
    File { partial: PathBuf, whole: PathBuf },
}

fn place(path: &Path) -> Place {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Place::InPlace;
    }
    // A link stays, and what it leads to is replaced.
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut partial = whole.clone().into_os_string();
    partial.push(".partial");
    Place::File { partial: partial.into(), whole }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match place(path) {
        Place::InPlace => File::options().write(true).open(path)?.write_all(bytes),
        Place::File { partial, whole } => {
            fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, &whole))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    #[test]
    fn devices_and_links_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let [device, file, link] = ["device", "file", "link"].map(|name| folder.path().join(name));
        symlink("/dev/null", &device).unwrap();
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        for path in [&device, &link] {
            check_writable(path).unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"old", "trying changes nothing");
            write(path, b"new").unwrap();
            assert!(path.is_symlink());
            fs::write(&file, "old").unwrap();
        }
        assert!(fs::metadata(&device).unwrap().file_type().is_char_device());
        write(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing partial is left");
    }

    #[test]
    fn what_could_not_be_written_at_the_end_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        // Not even root may make a file there.
        for path in [folder.path(), &folder.path().join("none/report.json"), Path::new("/proc/report.json")] {
            let error = check_writable(path).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("--report {} cannot be written (", path.display())),
                "{error}"
            );
        }
    }
}
