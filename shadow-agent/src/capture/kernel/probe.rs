//! Tries out what the running kernel can do, and asks it what is attached. Leaves nothing behind.

use std::fmt;
use std::io;
use std::thread;

use aya::maps::MapType;
use aya::programs::tc::qdisc_add_clsact;
use aya::programs::{ProgramType, SchedClassifier, TcAttachType, loaded_programs};
use aya::sys::{is_map_supported, is_program_supported};
use nix::sched::{CloneFlags, unshare};

use super::attach::clsact::Ours;
use super::attach::{lock, xdp};
use super::error::XdpProgram;
use crate::capture::interfaces::Device;
use crate::capture::interfaces::netlink::Filter;

/// The answer to "can the kernel do it".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It was tried and works.
    Yes,
    /// It was tried and does not exist.
    No,
    /// It could not be tried, and why.
    Unknown(String),
}

impl Support {
    fn of<E: fmt::Display + std::error::Error>(tried: Result<bool, E>) -> Support {
        match tried {
            Ok(true) => Support::Yes,
            Ok(false) => Support::No,
            Err(error) => Support::Unknown(deepest(&error)),
        }
    }
}

/// What the innermost error says: the system's own words.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// What the kernel can do of what capturing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Programs at TC hooks.
    pub classifier: Support,
    /// Ring buffers.
    pub ring_buffer: Support,
    /// Attaching by TCX link.
    pub tcx: Support,
    /// The `clsact` queueing discipline, the fallback for TCX.
    pub clsact: Support,
    /// Programs at the XDP hook.
    pub xdp: Support,
}

/// Tries everything in [`Features`]. TCX and `clsact` are tried on the loopback device of a network namespace that is
/// made for it and goes with the thread, so that no device of this host is touched.
#[must_use]
pub fn features() -> Features {
    let (tcx, clsact) = in_namespace();
    Features {
        classifier: Support::of(is_program_supported(ProgramType::SchedClassifier)),
        ring_buffer: Support::of(is_map_supported(MapType::RingBuf)),
        tcx,
        clsact,
        xdp: Support::of(is_program_supported(ProgramType::Xdp)),
    }
}

fn in_namespace() -> (Support, Support) {
    let unknown = |error: String| (Support::Unknown(error.clone()), Support::Unknown(error));
    let trial = || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("no network namespace to try it in: {error}"))?;
        let tcx = match tcx_programs("lo") {
            Ok(_) => Support::Yes,
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Support::No,
            Err(error) => Support::Unknown(error.to_string()),
        };
        let clsact = match qdisc_add_clsact("lo") {
            Ok(()) => Support::Yes,
            Err(error) => match deepest(&error) {
                said if said.contains("No such file") => Support::No,
                said => Support::Unknown(said),
            },
        };
        Ok((tcx, clsact))
    };
    match thread::Builder::new().name("probe".to_owned()).spawn(trial).map(thread::JoinHandle::join) {
        Ok(Ok(Ok(found))) => found,
        Ok(Ok(Err(error))) => unknown(error),
        Ok(Err(_)) => unknown("the trial failed".to_owned()),
        Err(error) => unknown(error.to_string()),
    }
}

/// The TCX programs of a device of this thread's network namespace, in the order they run: hook and program name.
///
/// # Errors
/// The system's own, above all `EINVAL` where TCX does not exist (below 6.6), and `EPERM`.
pub fn tcx_programs(interface: &str) -> io::Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for (hook, attach_type) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
        let (_, programs) = SchedClassifier::query_tcx(interface, attach_type).map_err(into_io)?;
        found.extend(programs.iter().map(|program| {
            let name = program.name_as_str().filter(|name| !name.is_empty());
            (hook, name.map_or_else(|| format!("id {}", program.id()), str::to_owned))
        }));
    }
    Ok(found)
}

/// Whether mode xdp uses XDP on a device; elsewhere it captures at TC alone.
#[must_use]
pub fn takes_xdp(device: &Device) -> bool {
    xdp::entry(device).is_some()
}

/// The XDP program that has a number, with its name if the kernel tells us.
#[must_use]
pub fn xdp_program(id: u32) -> XdpProgram {
    let found = loaded_programs().flatten().find(|program| program.id() == id);
    let name = found.and_then(|program| program.name_as_str().map(str::to_owned));
    XdpProgram { id, name: name.filter(|name| !name.is_empty()) }
}

/// Whose filter of ours one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An agent that runs.
    Running {
        /// Its place among the agents on the device.
        slot: u16,
    },
    /// An agent that was killed; the filter does nothing, and the next start removes it.
    Killed,
}

/// Whose a filter of a device of this thread's network namespace is; `None` unless it is an agent's.
#[must_use]
pub fn owner(index: u32, filter: &Filter) -> Option<Owner> {
    let slot = Ours::recognise(filter)?.slot;
    // What cannot be asked is taken for running, which is what not to disturb.
    Some(if lock::is_held(index, slot).unwrap_or(true) { Owner::Running { slot } } else { Owner::Killed })
}

/// The system's error within one of aya's.
fn into_io(error: aya::programs::ProgramError) -> io::Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(one) = source {
        if let Some(code) = one.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        source = one.source();
    }
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trying_leaves_loopback_as_it_was() {
        let before = crate::capture::interfaces::netlink::filters(1).unwrap();
        let features = features();
        assert_eq!(crate::capture::interfaces::netlink::filters(1).unwrap(), before);
        if nix::unistd::geteuid().is_root() {
            assert_eq!(features.classifier, Support::Yes);
            assert_eq!(features.ring_buffer, Support::Yes);
        }
    }
}
