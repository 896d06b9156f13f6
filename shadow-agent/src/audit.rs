//! The audit log: who changed what the agent does, and when, one JSON object a line.
//!
//! Whoever acts calls [`Audit::record`], which costs a place in a queue and cannot fail: the data path never waits for a
//! disk. A thread of its own writes. What could not be written is said once and counted. It holds what operators and
//! guards did, names of settings and targets, and never a value from traffic.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::config::Share;
use crate::config::units::write_share;

mod file;

use file::AuditFile;

/// The file's name in the state directory.
pub const NAME: &str = "audit.log";

/// Entries that wait to be written at most; further ones are not kept, and count as failures.
pub const QUEUE: usize = 1024;

/// Characters of any one text in an entry; the rest is cut off.
pub const TEXT: usize = 512;

/// Entries of any one list in an entry; the rest is cut off.
pub const LIST: usize = 64;

/// How long the agent waits at its end for what is left to be written.
const END: Duration = Duration::from_secs(2);

/// Where the log is, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file that is written to; older ones lie beside it, with `.1` (the newest), `.2` and so on behind its name.
    pub path: PathBuf,
    /// Bytes after which another file is begun.
    pub max_size: u64,
    /// Older files kept.
    pub keep: usize,
}

/// Why there is no audit log.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file cannot be made or written to.
    #[error(
        "the audit log {} cannot be written to ({source}): name a file in audit.path that the user which the agent runs \
         as may write to, or write `audit: {{ path: off }}`",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refuses the thread that writes.
    #[error("the thread that writes the audit log cannot be started ({0}): check the limits on threads")]
    Thread(#[source] std::io::Error),
}

/// Who acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Whoever asked the admin API.
    Api {
        /// Where the request came from.
        peer: SocketAddr,
        /// Whether it brought the bearer token.
        token: bool,
    },
    /// Whoever sent this signal.
    Signal(&'static str),
    /// Whoever wrote the configuration in force.
    Config,
    /// A guard, by its name.
    Guard(&'static str),
    /// The agent itself: it starts and ends.
    Agent,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Api { peer, token } => {
                write!(f, "api {peer} {}", if *token { "token" } else { "no-token" })
            }
            Actor::Signal(name) => write!(f, "signal {name}"),
            Actor::Config => f.write_str("config"),
            Actor::Guard(name) => write!(f, "guard {name}"),
            Actor::Agent => f.write_str("agent"),
        }
    }
}

/// What was done, with what was so before and after.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The agent started.
    Started {
        /// The label of its run.
        run: String,
        /// Whether it captures.
        enabled: bool,
    },
    /// The agent was asked to end.
    Stopped,
    /// Unsafe methods are sent to targets that are declared isolated, from now on.
    UnsafeMethods {
        /// The methods.
        methods: Vec<String>,
        /// The names of the targets.
        targets: Vec<String>,
    },
    /// The kill switch was thrown either way.
    Switched {
        /// Its position before.
        before: bool,
        /// Its position after.
        after: bool,
    },
    /// Another configuration is in force.
    Reloaded {
        /// The sections that changed.
        sections: Vec<String>,
    },
    /// A configuration was refused; the old one stays in force.
    ReloadRefused {
        /// Why, as the operator was told.
        why: String,
    },
    /// The share of flows captured was set.
    Sample {
        /// The share before.
        before: Share,
        /// The share after.
        after: Share,
    },
    /// Another run began.
    RunStarted {
        /// The label of the run that ended.
        before: String,
        /// The label of the one that began.
        after: String,
    },
    /// A difference was declared to be noise.
    NoiseMarked {
        /// The difference, by its id.
        difference: String,
        /// Whether it counted as noise before.
        before: bool,
        /// Whether it does after.
        after: bool,
    },
    /// Values from bodies were shown.
    BodyViewed {
        /// The resource that shows them.
        resource: &'static str,
    },
    /// A guard did something, or undid it.
    Guarded {
        /// What: `ramp`, `target`, `switch`.
        what: &'static str,
        /// The target that it is about, if it is about one.
        target: Option<String>,
        /// How that stood before.
        before: String,
        /// How it stands after.
        after: String,
    },
}

impl Action {
    /// Its name in the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Action::Started { .. } => "started",
            Action::Stopped => "stopped",
            Action::UnsafeMethods { .. } => "unsafe methods allowed",
            Action::Switched { after: true, .. } => "enabled",
            Action::Switched { after: false, .. } => "disabled",
            Action::Reloaded { .. } => "reloaded",
            Action::ReloadRefused { .. } => "reload refused",
            Action::Sample { .. } => "sample changed",
            Action::RunStarted { .. } => "run started",
            Action::NoiseMarked { .. } => "noise marked",
            Action::BodyViewed { .. } => "body viewed",
            Action::Guarded { .. } => "guard stepped",
        }
    }

    /// What was so before, and what is so after; null where there is nothing to say.
    fn change(&self) -> (Value, Value) {
        match self {
            Action::Started { run, enabled } => (
                Value::Null,
                json!({ "run": text(run), "enabled": enabled, "version": env!("CARGO_PKG_VERSION") }),
            ),
            Action::Stopped => (Value::Null, Value::Null),
            Action::UnsafeMethods { methods, targets } => {
                (Value::Null, json!({ "methods": list(methods), "targets": list(targets) }))
            }
            Action::Switched { before, after } => (json!({ "enabled": before }), json!({ "enabled": after })),
            Action::Reloaded { sections } => (Value::Null, json!({ "changed": list(sections) })),
            Action::ReloadRefused { why } => (Value::Null, json!({ "refused": text(why) })),
            Action::Sample { before, after } => {
                (json!({ "sample": write_share(*before) }), json!({ "sample": write_share(*after) }))
            }
            Action::RunStarted { before, after } => {
                (json!({ "run": text(before) }), json!({ "run": text(after) }))
            }
            Action::NoiseMarked { difference, before, after } => {
                let difference = text(difference);
                (
                    json!({ "difference": difference, "noise": before }),
                    json!({ "difference": difference, "noise": after }),
                )
            }
            Action::BodyViewed { resource } => (Value::Null, json!({ "resource": resource })),
            Action::Guarded { what, target, before, after } => {
                let target = target.as_deref().map(text);
                let state = |state: &str| json!({ "what": what, "target": target, "state": text(state) });
                (state(before), state(after))
            }
        }
    }
}

fn text(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

fn list(texts: &[String]) -> Vec<String> {
    texts.iter().take(LIST).map(|item| text(item)).collect()
}

/// One line.
#[derive(Serialize)]
struct Entry {
    time: String,
    actor: String,
    action: &'static str,
    before: Value,
    after: Value,
}

impl Entry {
    fn line(time: Timestamp, actor: Actor, action: &Action) -> serde_json::Result<Vec<u8>> {
        let (before, after) = action.change();
        let entry =
            Entry { time: time.to_string(), actor: actor.to_string(), action: action.name(), before, after };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        Ok(line)
    }
}

enum Message {
    Entry(Timestamp, Actor, Action),
    /// Answered when everything before it is written.
    End(SyncSender<()>),
}

#[derive(Debug)]
struct Shared {
    /// None when there is no log.
    queue: Option<SyncSender<Message>>,
    failures: AtomicU64,
    complained: AtomicBool,
}

impl Shared {
    fn failed(&self, why: &dyn fmt::Display) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the audit log cannot be written ({why}), and what happens meanwhile is missing from it; make room or give \
                 it back its place (shadow_audit_failures_total counts what is missing)"
            );
        }
    }

    fn succeeded(&self) {
        self.complained.store(false, Ordering::Relaxed);
    }
}

/// A handle to the log; clones share it.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Shared>);

impl Audit {
    /// No log: what is recorded goes nowhere.
    #[must_use]
    pub fn off() -> Audit {
        Audit(Arc::new(Shared {
            queue: None,
            failures: AtomicU64::new(0),
            complained: AtomicBool::new(false),
        }))
    }

    /// Opens the log, and starts the thread that writes it.
    ///
    /// # Errors
    /// When the file cannot be written to, or the system refuses the thread.
    pub fn start(settings: &Settings) -> Result<Audit, AuditError> {
        let file = AuditFile::open(settings)
            .map_err(|source| AuditError::Open { path: settings.path.clone(), source })?;
        let (queue, entries) = sync_channel(QUEUE);
        let audit = Audit(Arc::new(Shared {
            queue: Some(queue),
            failures: AtomicU64::new(0),
            complained: AtomicBool::new(false),
        }));
        let shared = Arc::clone(&audit.0);
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(file, &entries, &shared))
            .map_err(AuditError::Thread)?;
        Ok(audit)
    }

    /// The file of a state directory.
    #[must_use]
    pub fn in_directory(directory: &Path) -> PathBuf {
        directory.join(NAME)
    }

    /// Notes what was done just now. Never waits and never fails: what finds the queue full is counted.
    pub fn record(&self, actor: Actor, action: Action) {
        let Some(queue) = &self.0.queue else { return };
        if queue.try_send(Message::Entry(Timestamp::now(), actor, action)).is_err() {
            self.0.failed(&"more happens than can be written");
        }
    }

    /// Whether there is a log.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.queue.is_some()
    }

    /// Entries that are missing from the log.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// Waits, for a moment, until everything recorded so far is written.
    pub fn flush(&self) {
        let (written, when) = sync_channel(1);
        if let Some(queue) = &self.0.queue
            && queue.try_send(Message::End(written)).is_ok()
        {
            // Whether it was in time or not, the agent goes on.
            let _ = when.recv_timeout(END);
        }
    }
}

/// Writes entries until the agent ends. The disk is waited for when all that wait are written, not for each of them.
fn write(mut file: AuditFile, entries: &Receiver<Message>, shared: &Shared) {
    while let Ok(first) = entries.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::End(written) => {
                    // Whoever asked may have given up.
                    let _ = written.try_send(());
                }
                Message::Entry(time, actor, action) => {
                    let line = Entry::line(time, actor, &action).map_err(std::io::Error::other);
                    match line.and_then(|line| file.append(&line)) {
                        Ok(()) => shared.succeeded(),
                        Err(error) => shared.failed(&error),
                    }
                }
            }
            next = entries.try_recv().ok();
        }
        if let Err(error) = file.sync() {
            tracing::debug!(%error, "the disk did not take the audit log at once");
        }
    }
}

#[cfg(test)]
mod tests;
