//! Enters the network namespace that `capture.netns` names. Only a thread that does nothing else may enter.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::config::NetNs;

/// Where `ip netns` keeps the namespaces that have names.
const NAMED: &str = "/run/netns";

/// Why the network namespace of `capture.netns` is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// There is none of that name.
    #[error(
        "capture.netns is `{name}`, and there is no network namespace of that name in {NAMED}: create it, or write a \
         name that `ip netns list` shows"
    )]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// There is no such process.
    #[error(
        "capture.netns is `pid:{pid}`, and no such process is running here: give the id of a running process, as seen \
         from the agent (in Kubernetes, with hostPID)"
    )]
    NoSuchProcess {
        /// The id.
        pid: u32,
    },
    /// A file of that name is none.
    #[error(
        "capture.netns is `{name}`, and {NAMED}/{name} is not a network namespace: create it by `ip netns add`"
    )]
    NotOne {
        /// The name.
        name: String,
    },
    /// This process may not enter it.
    #[error(
        "entering the network namespace `{netns}` of capture.netns is not permitted: run as root, or grant \
         CAP_SYS_ADMIN too, and for `pid:` also CAP_SYS_PTRACE (in Kubernetes, with hostPID)"
    )]
    Privilege {
        /// As configured.
        netns: NetNs,
    },
    /// The system refused for another reason.
    #[error(
        "the network namespace `{netns}` of capture.netns cannot be entered ({source}): check that it is usable"
    )]
    Refused {
        /// As configured.
        netns: NetNs,
        /// What the system said.
        source: io::Error,
    },
}

/// A network namespace that the calling thread has entered.
#[derive(Debug)]
pub struct Entered {
    path: PathBuf,
    /// Device and inode: what tells a namespace from another one at the same path.
    identity: (u64, u64),
    before: File,
}

impl Entered {
    /// Moves the calling thread into a network namespace.
    ///
    /// # Errors
    /// When there is none, or entering it is not permitted.
    pub fn enter(netns: &NetNs) -> Result<Entered, NetNsError> {
        let path = path(netns);
        let failed = |source: io::Error| refusal(netns, source);
        let before = File::open("/proc/thread-self/ns/net").map_err(failed)?;
        let file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|number| failed(number.into()))?;
        Ok(Entered { path, identity: (metadata.dev(), metadata.ino()), before })
    }

    /// Whether the namespace is not to be found any more where it was: then it lives on only because of this thread.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()) != self.identity,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Moves the calling thread back to where it was.
    ///
    /// # Errors
    /// When that is not permitted any more.
    pub fn leave(self) -> io::Result<()> {
        Ok(setns(&self.before, CloneFlags::CLONE_NEWNET)?)
    }
}

/// Does `work` in the network namespace that is configured, on a thread of its own unless that is our own.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn within<T: Send>(netns: Option<&NetNs>, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
    let Some(netns) = netns else { return Ok(work()) };
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, move || {
            let _entered = Entered::enter(netns)?;
            Ok(work())
        });
        let inside = inside.map_err(|source| NetNsError::Refused { netns: netns.clone(), source })?.join();
        inside.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn path(netns: &NetNs) -> PathBuf {
    match netns {
        NetNs::Name(name) => Path::new(NAMED).join(name),
        NetNs::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
    }
}

fn refusal(netns: &NetNs, source: io::Error) -> NetNsError {
    match (source.raw_os_error().map(Errno::from_raw), netns) {
        (Some(Errno::ENOENT), NetNs::Name(name)) => NetNsError::NoSuchName { name: name.clone() },
        (Some(Errno::ENOENT | Errno::ESRCH), NetNs::Pid(pid)) => NetNsError::NoSuchProcess { pid: *pid },
        (Some(Errno::EINVAL), NetNs::Name(name)) => NetNsError::NotOne { name: name.clone() },
        (Some(Errno::EPERM | Errno::EACCES), _) => NetNsError::Privilege { netns: netns.clone() },
        _ => NetNsError::Refused { netns: netns.clone(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_value_and_the_remedy() {
        let check = |netns: NetNs, start: &str| {
            let message = Entered::enter(&netns).unwrap_err().to_string();
            assert!(message.starts_with(start), "{message}");
        };
        check(
            NetNs::Name("no-such-ns".to_owned()),
            "capture.netns is `no-such-ns`, and there is no network namespace of that name in /run/netns: create it",
        );
        check(
            NetNs::Pid(u32::MAX),
            "capture.netns is `pid:4294967295`, and no such process is running here: give the id",
        );
        let refused =
            |number: Errno| refusal(&NetNs::Pid(7), io::Error::from_raw_os_error(number as i32)).to_string();
        let privilege = refused(Errno::EPERM);
        assert!(
            privilege.starts_with("entering the network namespace `pid:7` of capture.netns is not permitted")
        );
        assert_eq!(refused(Errno::EACCES), privilege);
    }

    #[test]
    fn work_without_a_namespace_is_done_here() {
        let thread = thread::current().id();
        assert_eq!(within(None, || thread::current().id()).unwrap(), thread);
    }
}
