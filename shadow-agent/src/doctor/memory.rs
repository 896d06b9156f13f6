//! Checks the limits on memory against what the configuration may use.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use super::Check;
use crate::cli::Exit;
use crate::config::Config;
use crate::config::units::write_size;
use crate::privileges::{KernelVersion, locked_memory};

/// What the agent needs beside rings and buffers: code, connections, reports.
const BASE: u64 = 32 << 20;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    if locked_memory::counts(KernelVersion::running()) {
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).ok().map(|(soft, _)| soft);
        checks.push(locked(limit, config.capture.ring_size));
    }
    checks.push(cgroup(cgroup_limit(), config));
    checks
}

/// Below 5.11 rings count against `RLIMIT_MEMLOCK`.
fn locked(limit: Option<u64>, rings: u64) -> Check {
    let name = "locked memory";
    match limit.map(|limit| locked_memory::shortage(limit, rings)) {
        Some(Some(shortage)) => Check::problem(name, Exit::Unsupported, shortage, locked_memory::REMEDY),
        Some(None) => Check::ok(name, "RLIMIT_MEMLOCK is enough"),
        None => Check::warning(name, "RLIMIT_MEMLOCK is not known", "set LimitMEMLOCK=infinity"),
    }
}

/// From 5.11 on rings count against the cgroup, as buffers always do.
fn cgroup(limit: Option<u64>, config: &Config) -> Check {
    let name = "memory limit";
    let Some(limit) = limit else {
        return Check::ok(name, "none set on this process's cgroup");
    };
    let rings = locked_memory::need(config.capture.ring_size) + BASE;
    let most = rings + config.limits.total_buffer as u64;
    let finding = format!("the cgroup allows {}", write_size(limit));
    if limit < rings {
        let remedy = format!("raise it to {} at least, or lower capture.rings.size", write_size(rings));
        Check::problem(name, Exit::Unsupported, format!("{finding}, less than the rings need"), remedy)
    } else if limit < most {
        let remedy = format!("raise it to {}, or lower limits.total_buffer", write_size(most));
        Check::warning(
            name,
            format!("{finding}, and under load up to {} may be used", write_size(most)),
            remedy,
        )
    } else {
        Check::ok(name, finding)
    }
}

/// The lowest memory limit on the way from this process's cgroup up to the root.
fn cgroup_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    // Where the cgroup namespace hides the path, the root is the process's own group.
    let limits = Path::new(group).ancestors().map(|group| root.join(group).join("memory.max"));
    limits.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn limits_are_judged_against_what_may_be_used() {
        let problem = Level::Problem(Exit::Unsupported);
        let config = Config::default();
        let rings = locked_memory::need(config.capture.ring_size) + BASE;
        let most = rings + config.limits.total_buffer as u64;
        for (limit, level) in [
            (None, Level::Ok),
            (Some(most), Level::Ok),
            (Some(most - 1), Level::Warning),
            (Some(rings), Level::Warning),
            (Some(rings - 1), problem),
        ] {
            assert_eq!(cgroup(limit, &config).level, level, "{limit:?}");
        }
        let need = locked_memory::need(8 << 20);
        for (limit, level) in [
            (Some(need), Level::Ok),
            (Some(u64::MAX), Level::Ok),
            (Some(need - 1), problem),
            (None, Level::Warning),
        ] {
            assert_eq!(locked(limit, 8 << 20).level, level, "{limit:?}");
        }
    }
}
