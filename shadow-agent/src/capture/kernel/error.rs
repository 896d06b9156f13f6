//! What can go wrong with the kernel side, sorted by what an operator can do about it.
//!
//! Nothing is retried or logged here.

use std::error::Error;
use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::tc::TcError;
use nix::errno::Errno;

use crate::privileges::{self, KernelVersion, locked_memory};

mod xdp;

pub(super) use xdp::program as xdp_program;
pub use xdp::{XdpObstacle, XdpProgram};

/// Whatever lies beneath an error, for the log.
pub(super) type Cause = Box<dyn Error + Send + Sync>;

/// How many lines of the verifier's log an error carries.
const LOG_TAIL: usize = 12;

/// Why the kernel side is not, or no longer, to be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The agent was built with `SHADOW_EBPF_SKIP=1`.
    #[error(
        "this build of shadow-agent carries no kernel programs and cannot capture: build it without SHADOW_EBPF_SKIP"
    )]
    EmptyObject,
    /// The kernel answered "operation not permitted".
    #[error(
        "the kernel does not permit {what}: run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON \
         (before Linux 5.8: CAP_SYS_ADMIN)"
    )]
    Privilege {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: Cause,
    },
    /// The kernel lacks something that the programs need.
    #[error("this kernel does not support {what}: Linux 5.10 or later with CONFIG_BPF_SYSCALL is needed")]
    Unsupported {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: Cause,
    },
    /// A device vanished between being found and being attached to, or is in another network namespace.
    #[error("there is no network device {device:?} any more: check `ip link`, or wait for it to come back")]
    Device {
        /// The device's name.
        device: String,
        /// The kernel's answer.
        #[source]
        source: Cause,
    },
    /// Something of others leaves no place for our filters on a device without TCX. Nothing was changed.
    #[error(
        "capture.interfaces: {by} on {device}, so that clsact filters cannot be attached: {}, or leave {device} out; from \
         Linux 6.6 on, TCX needs no such place",
        .by.remedy()
    )]
    Occupied {
        /// The device's name.
        device: String,
        /// What it is.
        by: Occupant,
    },
    /// XDP programs need a newer kernel than this one.
    #[error(
        "capture.mode xdp needs Linux {floor}, and this is {running}: set it to tc, which captures the same",
        floor = KernelVersion::XDP
    )]
    XdpKernel {
        /// This kernel.
        running: KernelVersion,
        /// Its answer.
        #[source]
        source: Cause,
    },
    /// A device does not take our XDP program. Nothing on it was changed.
    #[error("capture.mode xdp cannot be had on {device}: {obstacle}: {}", .obstacle.remedy())]
    Xdp {
        /// The device's name.
        device: String,
        /// Why not.
        obstacle: XdpObstacle,
        /// The kernel's answer.
        #[source]
        source: Cause,
    },
    /// The verifier did not accept a program.
    #[error(
        "the kernel's verifier rejects program {program}; please report this with the log that follows:\n{log}"
    )]
    Verifier {
        /// The program's name.
        program: String,
        /// The last lines of the verifier's log.
        log: String,
        /// The kernel's answer.
        #[source]
        source: Cause,
    },
    /// The kernel is out of memory, or a limit on locked memory or of the cgroup is reached.
    #[error(
        "there is no memory for {what}: make capture.rings.size smaller, or raise the memory limit (before Linux 5.11: \
         RLIMIT_MEMLOCK)"
    )]
    Memory {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: Cause,
    },
    /// The process, or the system, has too many files open.
    #[error(
        "no more files may be open, and {what} is one: raise the limit (`ulimit -n`, LimitNOFILE= in systemd)"
    )]
    OpenFiles {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: Cause,
    },
    /// More sockets of the agent than the programs can leave alone.
    #[error(
        "the agent has {limit} connections, and no more can be kept out of the capture: lower replay.concurrency"
    )]
    OwnSockets {
        /// How many there can be.
        limit: u32,
    },
    /// More networks than the trie holds.
    #[error("capture.cidrs comes to {count} networks, and there can be {limit}: merge some")]
    Networks {
        /// How many there are.
        count: usize,
        /// How many there can be.
        limit: u32,
    },
    /// More rings than there can be, or none.
    #[error("capture.rings.shards is {shards}, and must be 1 to {limit}")]
    Shards {
        /// How many are wanted.
        shards: u16,
        /// How many there can be.
        limit: usize,
    },
    /// Rings that cannot hold a record, or that the kernel cannot address.
    #[error(
        "capture.rings.size is {size} bytes for {shards} rings, and each must have {minimum} to {maximum}: change it, \
         or capture.rings.shards"
    )]
    RingSize {
        /// The configured size of all rings together.
        size: u64,
        /// The number of rings.
        shards: u16,
        /// The least size of one ring.
        minimum: u64,
        /// The largest size of one ring.
        maximum: u64,
    },
    /// A map or program is not in the object, which was then built from other sources.
    #[error("the embedded kernel object has no {name}: rebuild shadow-agent")]
    Object {
        /// What is missing.
        name: &'static str,
    },
    /// Waiting for a ring failed.
    #[error("cannot wait for ring buffer {shard}")]
    Wait {
        /// The ring.
        shard: usize,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused for a reason that has no remedy of its own.
    #[error("the kernel refuses {what}")]
    Refused {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: Cause,
    },
}

/// What takes the place of our filters on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Occupant {
    /// Another queueing discipline for incoming packets, which has no hook for outgoing ones.
    #[error("there is a queueing discipline `{0}` of another program")]
    Discipline(String),
    /// A `clsact` whose filters are kept elsewhere, together with those of other devices.
    #[error("there is a clsact with a shared block of another program")]
    SharedBlock,
    /// A filter of another type or protocol that has our priority.
    #[error("another program has a `{kind}` filter with priority {priority}")]
    Filter {
        /// Our priority.
        priority: u16,
        /// Its classifier.
        kind: String,
    },
    /// As many agents as there can be.
    #[error("{0} agents capture already, which is as many as there can be")]
    Agents(u16),
    /// Another agent that is attaching or detaching, and does not get done with it.
    #[error("another agent has been attaching or detaching for seconds")]
    Turn,
}

impl Occupant {
    const fn remedy(&self) -> &'static str {
        match self {
            Occupant::Discipline(_) => "have its owner use clsact, which does the same and more",
            Occupant::SharedBlock => "have its owner use a block of the device's own",
            Occupant::Filter { .. } => "have its owner choose another priority",
            Occupant::Agents(_) => "stop one of them",
            Occupant::Turn => "stop it if it hangs, or try again",
        }
    }
}

/// Sorts an error by the number that the kernel gave.
pub(super) fn classify(what: impl Into<String>, source: impl Into<Cause>) -> KernelError {
    let (what, source) = (what.into(), source.into());
    match number(source.as_ref()) {
        Some(Errno::EPERM) => KernelError::Privilege { what, source },
        Some(Errno::ENOMEM) => KernelError::Memory { what, source },
        Some(Errno::EMFILE | Errno::ENFILE) => KernelError::OpenFiles { what, source },
        Some(Errno::EOPNOTSUPP | Errno::ENOSYS) => KernelError::Unsupported { what, source },
        _ => KernelError::Refused { what, source },
    }
}

/// As [`classify`], for what is made in the kernel: one that counts it as locked memory says that the limit is reached as
/// if privileges were missing, and whoever gets here was found to have them.
fn classify_made(what: String, source: impl Into<Cause>, locked_memory: bool) -> KernelError {
    match classify(what, source) {
        KernelError::Privilege { what, source } if locked_memory => KernelError::Memory { what, source },
        error => error,
    }
}

/// An operation on a map failed.
pub(super) fn map(name: &str, source: MapError) -> KernelError {
    let created = matches!(source, MapError::CreateError { .. });
    let what = format!("map {name}");
    match number(&source) {
        // A kernel that does not know a type of map or a flag says so.
        Some(Errno::EINVAL) if created => KernelError::Unsupported { what, source: source.into() },
        _ if created => classify_made(what, source, locked_memory::counts(KernelVersion::running())),
        _ => classify(what, source),
    }
}

/// The object could not be taken to the kernel.
pub(super) fn load(source: EbpfError) -> KernelError {
    match source {
        EbpfError::MapError(source) => {
            let name = match &source {
                MapError::CreateError { name, .. } => name.clone(),
                _ => "of the kernel object".into(),
            };
            map(&name, source)
        }
        source => classify("loading the kernel object", source),
    }
}

/// A program was not accepted.
pub(super) fn program(name: &str, source: ProgramError) -> KernelError {
    let permitted = privileges::missing(None).map_or(true, |missing| missing.is_empty());
    rejected(name, source, permitted)
}

/// As [`program`]; `permitted` says whether this thread has what loading takes.
fn rejected(name: &str, source: ProgramError, permitted: bool) -> KernelError {
    let what = format!("loading program {name}");
    let ProgramError::LoadError { verifier_log, .. } = &source else { return classify(what, source) };
    if let Some(number @ (Errno::EMFILE | Errno::ENFILE)) = number(&source) {
        // It was verified, and there was no descriptor for it: the log is of no use.
        return classify(what, io::Error::from(number));
    }
    // Without CAP_PERFMON the verifier is stricter, in ever other words.
    if !permitted {
        return KernelError::Privilege { what, source: source.into() };
    }
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return classify_made(what, source, locked_memory::counts(KernelVersion::running()));
    }
    let log = lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default().join("\n");
    KernelError::Verifier { program: name.into(), log, source: source.into() }
}

/// An operation on a device failed.
pub(super) fn device(name: &str, what: &str, source: impl Into<Cause>) -> KernelError {
    let source = source.into();
    match number(source.as_ref()) {
        Some(Errno::ENODEV | Errno::ENXIO) => KernelError::Device { device: name.into(), source },
        _ => classify(format!("{what} {name}"), source),
    }
}

/// The number that the kernel gave, found in the chain of causes.
pub(super) fn number(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(number) = own_number(error) {
            return Some(Errno::from_raw(number));
        }
        next = error.source();
    }
    None
}

/// The number in one link of the chain. Several errors of aya wrap another one without showing it as their source.
fn own_number(error: &(dyn Error + 'static)) -> Option<i32> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.raw_os_error();
    }
    if let Some(number) = error.downcast_ref::<Errno>() {
        return Some(*number as i32);
    }
    match error.downcast_ref::<ProgramError>() {
        Some(ProgramError::IOError(error)) => return error.raw_os_error(),
        Some(ProgramError::NetlinkError(error)) => return error.raw_os_error(),
        Some(ProgramError::TcError(error)) => return own_number(error),
        Some(ProgramError::MapError(error)) => return own_number(error),
        _ => {}
    }
    match error.downcast_ref::<TcError>() {
        Some(TcError::IoError(error)) => return error.raw_os_error(),
        Some(TcError::NetlinkError(error)) => return error.raw_os_error(),
        _ => {}
    }
    match error.downcast_ref::<MapError>() {
        Some(MapError::IoError(error)) => error.raw_os_error(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use KernelError::Verifier;
    use aya_obj::VerifierLog;

    use super::*;

    fn refused(number: Errno) -> ProgramError {
        ProgramError::IOError(io::Error::from_raw_os_error(number as i32))
    }

    #[test]
    fn errors_are_sorted_by_what_an_operator_can_do() {
        let check = |error: KernelError, start: &str| {
            let text = error.to_string();
            assert!(text.starts_with(start), "{text:?} should start with {start:?}");
        };
        check(program("p", refused(Errno::EPERM)), "the kernel does not permit loading program p");
        check(program("p", refused(Errno::ENOMEM)), "there is no memory for loading program p");
        check(program("p", refused(Errno::EOPNOTSUPP)), "this kernel does not support loading program p");
        check(program("p", refused(Errno::EBUSY)), "the kernel refuses loading program p");
        check(
            device("veth9", "attaching to", refused(Errno::ENODEV)),
            "there is no network device \"veth9\"",
        );
        check(
            device("veth9", "attaching to", refused(Errno::EPERM)),
            "the kernel does not permit attaching to veth9",
        );
        let refusal = |log: &str| ProgramError::LoadError {
            io_error: io::Error::from_raw_os_error(Errno::EACCES as i32),
            verifier_log: VerifierLog::new(log.into()),
        };
        let long: String = (0..100).map(|line| format!("line {line}\n\n")).collect();
        check(rejected("p", refusal(&long), false), "the kernel does not permit loading program p");
        let Verifier { log, .. } = rejected("p", refusal(&long), true) else { panic!("not the verifier") };
        assert!(log.starts_with("line 88\nline 89") && log.ends_with("line 99"), "{log}");
        for (locked_memory, start) in
            [(true, "there is no memory for map RINGS"), (false, "the kernel does not permit map RINGS")]
        {
            check(classify_made("map RINGS".into(), refused(Errno::EPERM), locked_memory), start);
        }
        let unknown = MapError::CreateError {
            name: "RINGS".into(),
            io_error: io::Error::from_raw_os_error(Errno::EINVAL as i32),
        };
        check(load(EbpfError::MapError(unknown)), "this kernel does not support map RINGS");
    }
}
