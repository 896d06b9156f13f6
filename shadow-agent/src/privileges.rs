//! Whether this process may capture here: capabilities and the kernel's version. Acquires nothing.

use std::fmt;

use caps::{CapSet, Capability};

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

/// What capturing needs. CAP_SYS_ADMIN implies the first and the last.
pub const NEEDED: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Why this process may not capture here.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Capabilities are missing.
    #[error("capturing needs {} too; {REMEDY}", Names(.0))]
    Missing(Vec<Capability>),
    /// The kernel did not say which capabilities there are.
    #[error("the capabilities of this process cannot be read ({0}); mount /proc")]
    Unreadable(#[from] caps::errors::CapsError),
    /// The kernel is older than supported.
    #[error("kernel {0} is too old; run {floor} or later (6.6 or later is best)", floor = KernelVersion::FLOOR)]
    OldKernel(KernelVersion),
}

/// How to get the capabilities.
pub(crate) const REMEDY: &str = "run as root, or grant them with `setcap cap_bpf,cap_net_admin,cap_perfmon=ep` on the \
     binary, AmbientCapabilities= in systemd, or securityContext.capabilities in Kubernetes";

struct Names<'a>(&'a [Capability]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, capability) in self.0.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{capability}")?;
        }
        Ok(())
    }
}

/// The capabilities of [`NEEDED`] that this thread has not in effect.
///
/// # Errors
/// When the kernel does not say.
pub fn missing() -> Result<Vec<Capability>, PrivilegeError> {
    let effective = caps::read(None, CapSet::Effective)?;
    let implied = |needed: Capability| {
        needed != Capability::CAP_NET_ADMIN && effective.contains(&Capability::CAP_SYS_ADMIN)
    };
    Ok(NEEDED.into_iter().filter(|needed| !effective.contains(needed) && !implied(*needed)).collect())
}

/// Whether this process may load and attach programs here; to be asked before loading.
///
/// # Errors
/// One sentence with what is missing, and the remedy.
pub fn check() -> Result<(), PrivilegeError> {
    // A kernel that says no version is left to loading.
    if let Some(running) = KernelVersion::running().filter(|running| *running < KernelVersion::FLOOR) {
        return Err(PrivilegeError::OldKernel(running));
    }
    match missing()? {
        missing if missing.is_empty() => Ok(()),
        missing => Err(PrivilegeError::Missing(missing)),
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
        let missing = PrivilegeError::Missing(vec![Capability::CAP_BPF, Capability::CAP_PERFMON]).to_string();
        assert!(
            missing.starts_with("capturing needs CAP_BPF, CAP_PERFMON too; run as root, or grant"),
            "{missing}"
        );
        let old = PrivilegeError::OldKernel(KernelVersion { major: 4, minor: 19 }).to_string();
        assert_eq!(old, "kernel 4.19 is too old; run 5.10 or later (6.6 or later is best)");
    }

    #[test]
    fn a_thread_without_capabilities_is_refused() {
        let result = std::thread::spawn(|| {
            caps::clear(None, CapSet::Effective).unwrap();
            check().map_err(|error| error.to_string())
        });
        let message = result.join().unwrap().unwrap_err();
        assert!(message.starts_with("capturing needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON too;"), "{message}");
    }
}
