//! The limit on locked memory, which maps and programs count against below Linux 5.11. Above, nothing is touched.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use super::KernelVersion;
use crate::config::units::write_size;

/// What maps and programs need beside the rings, those of a byte budget included.
const MAPS: u64 = 12 << 20;

/// What an operator can do about a limit that is too low.
pub(crate) const REMEDY: &str = "raise it (LimitMEMLOCK=infinity in systemd, `ulimit -l unlimited`, the runtime's own limit for \
     containers), grant CAP_SYS_RESOURCE, or lower capture.rings.size";

/// Bytes that maps need when the rings have `rings` bytes together.
#[must_use]
pub const fn need(rings: u64) -> u64 {
    rings.saturating_add(MAPS)
}

/// Whether a kernel counts maps against `RLIMIT_MEMLOCK`; one whose version is not known may.
#[must_use]
pub fn counts(version: Option<KernelVersion>) -> bool {
    version.is_none_or(|version| version < KernelVersion::CGROUP_MEMORY)
}

/// Why a limit of `limit` bytes does not do; `None` when it does.
#[must_use]
pub fn shortage(limit: u64, rings: u64) -> Option<String> {
    let need = need(rings);
    (limit < need).then(|| {
        format!("RLIMIT_MEMLOCK is {}, and rings and maps need {}", write_size(limit), write_size(need))
    })
}

/// Raises the limit as far as this process may, where it counts; warns when that is not enough for the rings.
pub(crate) fn raise(rings: u64) {
    if !counts(KernelVersion::running()) {
        return;
    }
    // Beyond the hard limit needs CAP_SYS_RESOURCE.
    if setrlimit(Resource::RLIMIT_MEMLOCK, rlim_t::MAX, rlim_t::MAX).is_ok() {
        return;
    }
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else { return };
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    if let Some(shortage) = shortage(hard, rings) {
        tracing::warn!("{shortage}; creating maps may fail: {REMEDY}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_below_5_11_only() {
        let version = |major, minor| Some(KernelVersion { major, minor });
        for (version, expected) in
            [(version(5, 10), true), (version(5, 11), false), (version(6, 1), false), (None, true)]
        {
            assert_eq!(counts(version), expected, "{version:?}");
        }
    }

    #[test]
    fn a_limit_is_short_below_what_rings_and_maps_need() {
        let rings = 8 << 20;
        assert_eq!(shortage(need(rings), rings), None);
        assert_eq!(shortage(u64::MAX, u64::MAX), None);
        let said = shortage(64 << 10, rings).unwrap();
        assert_eq!(said, "RLIMIT_MEMLOCK is 64KiB, and rings and maps need 20MiB");
        assert!(shortage(need(rings) - 1, rings).is_some());
    }
}
