//! Whether this process may capture here: capabilities and the kernel's version. Acquires nothing.

use std::fmt;

use caps::{CapSet, Capability};
use nix::errno::Errno;

use crate::config::NetNs;

pub mod locked_memory;
mod reduction;

pub use reduction::{KEPT, Reduction, drop_after_entering, drop_after_loading, reduction, with_kept_rights};

/// A kernel's version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KernelVersion {
    /// The oldest kernel that is supported: ring buffers, CAP_BPF, and a long-term release.
    pub const FLOOR: KernelVersion = KernelVersion { major: 5, minor: 10 };
    /// From here on BPF memory counts against the cgroup instead of `RLIMIT_MEMLOCK`.
    pub const CGROUP_MEMORY: KernelVersion = KernelVersion { major: 5, minor: 11 };
    /// From here on XDP programs can read packets that lie in several fragments of memory.
    pub const XDP: KernelVersion = KernelVersion { major: 5, minor: 18 };
    /// From here on programs are attached by TCX links.
    pub const TCX: KernelVersion = KernelVersion { major: 6, minor: 6 };

    /// The version in a release such as `6.1.0-18-amd64`.
    #[must_use]
    pub fn parse(release: &str) -> Option<KernelVersion> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(KernelVersion { major: next()?, minor: next()? })
    }

    /// The running kernel's.
    #[must_use]
    pub fn running() -> Option<KernelVersion> {
        KernelVersion::parse(nix::sys::utsname::uname().ok()?.release().to_str()?)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What capturing needs, CAP_PERFMON for loading only. CAP_SYS_ADMIN implies the first and the last.
pub const NEEDED: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Why this process may not capture here.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Capabilities are missing.
    #[error("{} needs {} too; {}", Deed(.netns), Names(.missing), remedy(.netns.as_ref()))]
    Missing {
        /// Those that are missing.
        missing: Vec<Capability>,
        /// The network namespace to capture from.
        netns: Option<NetNs>,
    },
    /// The kernel did not say which capabilities there are.
    #[error("the capabilities of this process cannot be read ({0}); mount /proc")]
    Unreadable(#[from] caps::errors::CapsError),
    /// The kernel is older than supported.
    #[error("kernel {0} is too old; run {floor} or later (6.6 or later is best)", floor = KernelVersion::FLOOR)]
    OldKernel(KernelVersion),
    /// The system refuses to take capabilities away, which only a filter of system calls does.
    #[error(
        "privileges that are not needed any more cannot be dropped ({0}); let the seccomp profile allow capget, capset \
         and prctl"
    )]
    Drop(#[source] caps::errors::CapsError),
    /// As for [`PrivilegeError::Drop`].
    #[error("the process cannot renounce new privileges ({0}); let the seccomp profile allow prctl")]
    NoNewPrivileges(#[source] Errno),
}

/// How to get the capabilities that capturing in `netns` needs.
pub(crate) fn remedy(netns: Option<&NetNs>) -> String {
    let all: Vec<_> = needed(netns).iter().map(|one| one.to_string().to_lowercase()).collect();
    let pods = match netns {
        Some(NetNs::Pid(_)) => " (and hostPID)",
        _ => "",
    };
    format!(
        "run as root, or grant them with `setcap {}=ep` on the binary, AmbientCapabilities= in systemd, or \
         securityContext.capabilities in Kubernetes{pods}",
        all.join(",")
    )
}

/// What is to be done, as the subject of a sentence.
struct Deed<'a>(&'a Option<NetNs>);

impl fmt::Display for Deed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("capturing"),
            Some(netns) => write!(f, "capturing in another network namespace (capture.netns: {netns})"),
        }
    }
}

pub(crate) struct Names<'a>(pub(crate) &'a [Capability]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, capability) in self.0.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{capability}")?;
        }
        Ok(())
    }
}

/// What capturing in `netns` needs: another namespace must be entered, and found when it is that of a process.
#[must_use]
pub fn needed(netns: Option<&NetNs>) -> Vec<Capability> {
    let others: &[Capability] = match netns {
        None => &[],
        Some(NetNs::Name(_)) => &[Capability::CAP_SYS_ADMIN],
        Some(NetNs::Pid(_)) => &[Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE],
    };
    [&NEEDED, others].concat()
}

/// The capabilities of [`needed`] that this thread has not in effect.
///
/// # Errors
/// When the kernel does not say.
pub fn missing(netns: Option<&NetNs>) -> Result<Vec<Capability>, PrivilegeError> {
    let effective = caps::read(None, CapSet::Effective)?;
    let implied = |needed: Capability| {
        [Capability::CAP_BPF, Capability::CAP_PERFMON].contains(&needed)
            && effective.contains(&Capability::CAP_SYS_ADMIN)
    };
    Ok(needed(netns).into_iter().filter(|needed| !effective.contains(needed) && !implied(*needed)).collect())
}

/// Whether this process may load and attach programs in `netns` here; to be asked before loading.
///
/// # Errors
/// One sentence with what is missing, and the remedy.
pub fn check(netns: Option<&NetNs>) -> Result<(), PrivilegeError> {
    // A kernel that says no version is left to loading.
    if let Some(running) = KernelVersion::running().filter(|running| *running < KernelVersion::FLOOR) {
        return Err(PrivilegeError::OldKernel(running));
    }
    match missing(netns)? {
        missing if missing.is_empty() => Ok(()),
        missing => Err(PrivilegeError::Missing { missing, netns: netns.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases() {
        for (release, expected) in [
            ("5.10.0-28-amd64", Some((5, 10))),
            ("6.18.44-fc-v445", Some((6, 18))),
            ("6.6", Some((6, 6))),
            ("7.2-rc1", Some((7, 2))),
            ("linux", None),
            ("6", None),
        ] {
            let expected = expected.map(|(major, minor)| KernelVersion { major, minor });
            assert_eq!(KernelVersion::parse(release), expected, "{release}");
        }
        assert!(KernelVersion { major: 5, minor: 9 } < KernelVersion::FLOOR);
        assert!(KernelVersion { major: 6, minor: 1 } > KernelVersion::FLOOR);
    }

    #[test]
    fn refusals_name_what_is_missing_and_the_remedy() {
        let check = |missing: &[Capability], netns: Option<NetNs>, parts: &[&str]| {
            let said = PrivilegeError::Missing { missing: missing.to_vec(), netns }.to_string();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        };
        check(
            &[Capability::CAP_BPF, Capability::CAP_PERFMON],
            None,
            &[
                "capturing needs CAP_BPF, CAP_PERFMON too; run as root, or grant",
                "`setcap cap_bpf,cap_net_admin,cap_perfmon=ep`",
            ],
        );
        check(
            &[Capability::CAP_SYS_ADMIN],
            Some(NetNs::Name("blue".to_owned())),
            &["(capture.netns: blue) needs CAP_SYS_ADMIN too", "cap_perfmon,cap_sys_admin=ep`"],
        );
        check(
            &[Capability::CAP_SYS_PTRACE],
            Some(NetNs::Pid(7)),
            &["(capture.netns: pid:7)", "cap_sys_admin,cap_sys_ptrace=ep`", "Kubernetes (and hostPID)"],
        );
        let old = PrivilegeError::OldKernel(KernelVersion { major: 4, minor: 19 }).to_string();
        assert_eq!(old, "kernel 4.19 is too old; run 5.10 or later (6.6 or later is best)");
    }

    #[test]
    fn a_thread_is_refused_what_it_lacks() {
        let check = |held: &[Capability], netns: Option<NetNs>, lacks: &[Capability]| {
            let missing = std::thread::scope(|scope| {
                let on_thread = scope.spawn(|| {
                    let effective = held.iter().copied().collect();
                    caps::set(None, CapSet::Effective, &effective).unwrap();
                    missing(netns.as_ref()).unwrap()
                });
                on_thread.join().unwrap()
            });
            assert_eq!(missing, lacks, "{held:?} {netns:?}");
        };
        use Capability::{CAP_SYS_ADMIN, CAP_SYS_PTRACE};
        let (name, pid) = (Some(NetNs::Name("blue".to_owned())), Some(NetNs::Pid(1)));
        check(&[], None, &NEEDED);
        check(&[], pid.clone(), &[&NEEDED[..], &[CAP_SYS_ADMIN, CAP_SYS_PTRACE]].concat());
        // More can be held by those only who have it to begin with.
        if caps::has_cap(None, CapSet::Permitted, CAP_SYS_ADMIN).unwrap() {
            check(&NEEDED, None, &[]);
            check(&NEEDED, name.clone(), &[CAP_SYS_ADMIN]);
            check(&[CAP_SYS_ADMIN], None, &[Capability::CAP_NET_ADMIN]);
            check(&[CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN], name, &[]);
            check(&[CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN], pid, &[CAP_SYS_PTRACE]);
        }
    }
}
