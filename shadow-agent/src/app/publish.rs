//! Says how a run ended: the summary on standard output, and the report in its place.
//!
//! The place is made sure of at the start: at the end the agent has no privileges left that would pass over the
//! permissions of files.

use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::oneshot;

use crate::cli::UsageError;
use crate::privileges::with_kept_rights;
use crate::report::Summary;
use crate::report::text::{self, Style};

/// How long whoever reads has left once the agent was asked again to end.
const GRACE: Duration = Duration::from_secs(2);

/// Where the report goes, and how it gets there.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// What is there is no file (a device, a pipe): it must stay, and is written to.
    Open(File),
    /// A pipe without a reader: opening it would wait for one.
    Pipe,
    /// A file, complete before it takes its name.
    Whole { partial: PathBuf, whole: PathBuf },
    /// A file in a folder of somebody else, who may not lose it: it is emptied and written to.
    Held(File),
}

impl Place {
    /// Makes sure of a place, before anything is captured for it.
    ///
    /// # Errors
    /// When it could not be written to at the end.
    pub(super) fn secure(path: &Path) -> anyhow::Result<Place> {
        let way = match fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(there) if !there.is_file() => Way::in_place(path, &there),
            _ => Way::file(path),
        };
        match way {
            Ok(way) => Ok(Place { path: path.to_owned(), way }),
            Err(source) => Err(UsageError::Report { path: path.to_owned(), source }.into()),
        }
    }

    /// Writes the report, whole or not at all where that is possible.
    fn write(self, bytes: &[u8]) -> io::Result<()> {
        match self.way {
            Way::Open(mut file) => file.write_all(bytes),
            Way::Pipe => File::options().write(true).open(&self.path)?.write_all(bytes),
            Way::Whole { partial, whole } => {
                fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, &whole))
            }
            Way::Held(mut file) => file.set_len(0).and_then(|()| file.write_all(bytes)),
        }
    }
}

impl Way {
    fn in_place(path: &Path, there: &Metadata) -> io::Result<Way> {
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        match File::options().write(true).custom_flags(flags).open(path) {
            Ok(file) => {
                let waiting = FcntlArg::F_SETFL(OFlag::empty());
                fcntl(&file, waiting).map_err(io::Error::from)?;
                Ok(Way::Open(file))
            }
            Err(error) if there.file_type().is_fifo() && error.raw_os_error() == Some(nix::libc::ENXIO) => {
                Ok(Way::Pipe)
            }
            Err(error) => Err(error),
        }
    }

    fn file(path: &Path) -> io::Result<Way> {
        // A link stays, and what it leads to is replaced.
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut partial = whole.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let tried = with_kept_rights(|| File::create(&partial).and_then(|_| fs::remove_file(&partial)));
        match tried.map_err(io::Error::other)? {
            Ok(()) => Ok(Way::Whole { partial, whole }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                File::options().write(true).create(true).truncate(false).open(&whole).map(Way::Held)
            }
            Err(error) => Err(error),
        }
    }
}

/// Shows the summary, and writes the report. A pipe that nobody reads would hold that up for ever, so it is given up soon
/// after `again`, the wish to end at once, came true.
pub(super) async fn unless_given_up(
    summary: Summary,
    report: Option<Place>,
    again: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (tell, told) = oneshot::channel();
    // Not one of the runtime's threads: all of them may be taken.
    thread::Builder::new()
        .name("publish".to_owned())
        .spawn(move || tell.send(publish(&summary, report)))
        .context("the thread that writes the summary could not be started")?;
    let given_up = async {
        again.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        published = told => published.unwrap_or_else(|_| Err(anyhow!("writing the summary or --report panicked"))),
        () = given_up => Err(anyhow!(
            "the summary or --report was given up at the second signal, because nobody reads the pipe that it goes to"
        )),
    }
}

fn publish(summary: &Summary, report: Option<Place>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let style = Style { colour: stdout.is_terminal(), ..Style::default() };
    let shown = text::render(summary, style);
    // Whoever reads may be gone; the report must be written all the same.
    let _ = stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush());
    let Some(place) = report else { return Ok(()) };
    let json = serde_json::to_vec_pretty(summary).context("the summary could not be written as JSON")?;
    let said = format!("--report {} could not be written", place.path.display());
    place.write(&json).context(said)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn devices_and_links_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let [device, file, link] = ["device", "file", "link"].map(|name| folder.path().join(name));
        symlink("/dev/null", &device).unwrap();
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        for path in [&device, &link] {
            let place = Place::secure(path).unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"old", "securing a place changes nothing");
            place.write(b"new").unwrap();
            assert!(path.is_symlink());
            fs::write(&file, "old").unwrap();
        }
        assert!(fs::metadata(&device).unwrap().file_type().is_char_device());
        Place::secure(&link).unwrap().write(b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing partial is left");
    }

    #[test]
    fn a_file_that_is_held_is_replaced_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old, and longer").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        Place { path: path.clone(), way: Way::Held(file) }.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_pipe_is_opened_when_there_is_a_reader_and_otherwise_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let read = |path: PathBuf| {
            let mut said = String::new();
            File::open(path).unwrap().read_to_string(&mut said).unwrap();
            said
        };
        let place = Place::secure(&path).unwrap();
        assert!(matches!(place.way, Way::Pipe), "{place:?}");
        let reader = {
            let path = path.clone();
            thread::spawn(move || read(path))
        };
        place.write(b"late").unwrap();
        assert_eq!(reader.join().unwrap(), "late");
        let waiting = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path).unwrap();
        let place = Place::secure(&path).unwrap();
        assert!(matches!(place.way, Way::Open(_)), "{place:?}");
        place.write(b"early").unwrap();
        assert_eq!(io::read_to_string(waiting).unwrap(), "early");
    }

    #[test]
    fn what_could_not_be_written_at_the_end_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        // Not even root may make a file there.
        for path in [folder.path(), &folder.path().join("none/report.json"), Path::new("/proc/report.json")] {
            let error = Place::secure(path).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("--report {} cannot be written (", path.display())),
                "{error}"
            );
        }
    }
}
