//! Network namespaces joined by veth pairs. Each ends with its value, and so does every process inside it.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process, thread};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every name begins with this, followed by the id of the process that made it.
const PREFIX: &str = "shadow-test-";
const FOLDER: &str = "/run/netns";

static NUMBER: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A network namespace with its loopback device up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace; its name holds our process id, a running number and the role.
    ///
    /// # Errors
    /// When the kernel refuses, above all for want of root.
    pub fn new(role: &str) -> Result<Namespace> {
        ensure!(nix::unistd::geteuid().is_root(), "making network namespaces needs root; run this as root");
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name below `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these arguments inside.
    ///
    /// # Errors
    /// When `ip` fails, with what it said.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", self.name.as_str()], arguments].concat())
    }

    /// A command that runs inside, under its own process id, and that dies with the thread that starts it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "setpriv", "--pdeathsig", "KILL", "--"]);
        command.arg(program.as_ref());
        command
    }

    /// Runs `work` in a thread that is inside, and returns what it gives.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and those of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside.join().map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }

    /// Moves the calling thread inside, for the rest of its life.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(Path::new(FOLDER).join(&self.name)).context("opening the namespace")?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering namespace {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// One end of a veth pair: where it is, its name, and its addresses (`address/prefix`).
pub type End<'a> = (&'a Namespace, &'a str, &'a [&'a str]);

/// Joins two namespaces by a veth pair, both ends up and with their addresses.
///
/// # Errors
/// When `ip` fails, with what it said.
pub fn join(left: End<'_>, right: End<'_>) -> Result<()> {
    let (namespace, device, _) = left;
    let (peer, peer_device, _) = right;
    let pair = ["link", "add", device, "type", "veth", "peer", "name", peer_device, "netns", &peer.name];
    namespace.ip(&pair)?;
    for (namespace, device, addresses) in [left, right] {
        for address in addresses {
            namespace.ip(&["address", "add", address, "dev", device, "nodad"])?;
        }
        namespace.ip(&["link", "set", device, "up"])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output =
        Command::new("ip").args(arguments).output().context("running ip (Debian package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {}` failed: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// Ends every process inside a namespace that we made, and removes it.
fn remove(name: &str) {
    let output = Command::new("ip").args(["netns", "pids", name]).output();
    let list = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for id in list.split_whitespace().filter_map(|id| id.parse::<i32>().ok()) {
        // Threads of our own that are inside are ours to end, not to kill.
        if u32::try_from(id).ok() != Some(process::id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
    // Nobody is left to tell in a destructor; what remains is swept at the next start.
    let _ = ip(&["netns", "delete", name]);
}

/// Removes what processes left behind that were killed.
fn sweep() {
    let Ok(entries) = fs::read_dir(FOLDER) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
            remove(&name);
        }
    }
}
