//! Checks the kernel.

use std::fs;

use super::Check;
use crate::capture::kernel::probe::{Features, Support};
use crate::cli::Exit;
use crate::config::{Mode, XdpMode};
use crate::privileges::KernelVersion;

const NEWER: &str =
    "run kernel 5.10 or later with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS";

/// What `cargo xtask bench xdp` measured; the README has the table.
const XDP_GENERIC_COST: &str = "generic XDP copies nearly every packet, drops those that it finds no memory for, and left 82 % \
     of production's throughput over veth (tc: 97 %)";
const XDP_NATIVE_COST: &str = "native XDP takes packets as they are on the wire, not merged into larger ones, and left 18 % of \
     production's throughput over veth (tc: 97 %)";

pub(super) fn checks(features: &Features, mode: Mode) -> Vec<Check> {
    let version = KernelVersion::running();
    vec![
        kernel(version),
        needed("BPF programs", &features.classifier, version),
        needed("ring buffer", &features.ring_buffer, version),
        tcx(&features.tcx, version),
        clsact(&features.clsact, &features.tcx),
        xdp(&features.xdp, mode),
        btf(fs::metadata("/sys/kernel/btf/vmlinux").is_ok()),
        jit(fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().as_deref()),
    ]
}

fn kernel(version: Option<KernelVersion>) -> Check {
    let (floor, best) = (KernelVersion::FLOOR, KernelVersion::TCX);
    match version {
        Some(version) if version >= best => {
            Check::ok("kernel", format!("{version} ({floor} needed, {best} best)"))
        }
        Some(version) if version >= floor => Check::warning(
            "kernel",
            format!("{version} attaches through clsact, which leaves an inert filter behind after kill -9"),
            format!("run {best} or later for TCX; the next start sweeps leftovers"),
        ),
        Some(version) => {
            let remedy = format!("run {floor} or later");
            Check::problem("kernel", Exit::Unsupported, format!("{version} is older than {floor}"), remedy)
        }
        None => Check::warning("kernel", "version not known", "see whether the checks below pass"),
    }
}

fn needed(name: &str, support: &Support, version: Option<KernelVersion>) -> Check {
    match support {
        Support::Yes => Check::ok(name, "tried, works"),
        Support::No => Check::problem(name, Exit::Unsupported, "the kernel has none", NEWER),
        Support::Unknown(why) => not_tried(name, why, version, KernelVersion::FLOOR),
    }
}

/// The judgement by version, where nothing could be tried.
fn not_tried(name: &str, why: &str, version: Option<KernelVersion>, since: KernelVersion) -> Check {
    let expected = match version {
        Some(version) if version >= since => "expected by the kernel's version",
        _ => "not expected by the kernel's version",
    };
    Check::warning(name, format!("not tried ({why}); {expected}"), "run doctor as root to try it")
}

fn tcx(support: &Support, version: Option<KernelVersion>) -> Check {
    match support {
        Support::Yes => Check::ok("TCX", "tried, works; programs go with the process"),
        Support::No => {
            Check::warning("TCX", "the kernel has none; clsact is used", "run kernel 6.6 or later")
        }
        Support::Unknown(why) => not_tried("TCX", why, version, KernelVersion::TCX),
    }
}

fn clsact(support: &Support, tcx: &Support) -> Check {
    match (support, tcx) {
        (Support::Yes, _) => Check::ok("clsact", "tried, works"),
        (_, Support::Yes) => Check::ok("clsact", "not needed with TCX"),
        (Support::No, Support::No) => {
            Check::problem("clsact", Exit::Unsupported, "the kernel has neither TCX nor clsact", NEWER)
        }
        (Support::No, _) => Check::warning("clsact", "the kernel has none", NEWER),
        (Support::Unknown(why), _) => {
            not_tried("clsact", why, KernelVersion::running(), KernelVersion::FLOOR)
        }
    }
}

/// Whether the kernel has it, and what it costs. Whether it has all that our programs need is found by loading them.
fn xdp(support: &Support, mode: Mode) -> Check {
    let Mode::Xdp(mode) = mode else {
        return Check::ok("XDP", "not used: capture.mode is tc, which costs production less");
    };
    let cost = match mode {
        XdpMode::Generic => XDP_GENERIC_COST,
        XdpMode::Native => XDP_NATIVE_COST,
    };
    let remedy = "set capture.mode to tc, which captures the same";
    match support {
        Support::No => Check::problem("XDP", Exit::Unsupported, "the kernel has none", remedy),
        Support::Yes => Check::warning("XDP", format!("there; {cost}"), remedy),
        Support::Unknown(why) => Check::warning("XDP", format!("not tried ({why}); {cost}"), remedy),
    }
}

fn btf(is_there: bool) -> Check {
    match is_there {
        true => Check::ok("BTF", "/sys/kernel/btf/vmlinux"),
        false => Check::warning(
            "BTF",
            "no /sys/kernel/btf/vmlinux; capturing does not need it, other tools that look at the programs do",
            "mount /sys, or run a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
    }
}

fn jit(setting: Option<&str>) -> Check {
    match setting.map(str::trim) {
        Some("0") => Check::warning(
            "JIT",
            "off: programs are interpreted, at several times the cost per packet",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Check::ok("JIT", "on"),
        None => Check::warning("JIT", "not known", "run doctor as root in the host's network namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn version(major: u32, minor: u32) -> Option<KernelVersion> {
        Some(KernelVersion { major, minor })
    }

    #[test]
    fn kernels_are_judged_by_their_floors() {
        let problem = Level::Problem(Exit::Unsupported);
        for (found, level) in [
            (version(6, 6), Level::Ok),
            (version(6, 5), Level::Warning),
            (version(5, 10), Level::Warning),
            (version(5, 9), problem),
            (None, Level::Warning),
        ] {
            assert_eq!(kernel(found).level, level, "{found:?}");
        }
    }

    #[test]
    fn features_are_judged_by_whether_capturing_needs_them() {
        let problem = Level::Problem(Exit::Unsupported);
        let unknown = || Support::Unknown("EPERM".to_owned());
        assert_eq!(needed("a", &Support::Yes, None).level, Level::Ok);
        assert_eq!(needed("a", &Support::No, None).level, problem);
        let check = needed("a", &unknown(), version(6, 1));
        assert_eq!(
            (check.level, &*check.finding),
            (Level::Warning, "not tried (EPERM); expected by the kernel's version")
        );
        assert_eq!(tcx(&Support::No, None).level, Level::Warning);
        let check = tcx(&unknown(), version(6, 5));
        assert_eq!(check.finding, "not tried (EPERM); not expected by the kernel's version");
        for (support, tcx, level) in [
            (Support::Yes, Support::No, Level::Ok),
            (Support::No, Support::Yes, Level::Ok),
            (Support::No, Support::No, problem),
            (Support::No, unknown(), Level::Warning),
            (unknown(), Support::No, Level::Warning),
        ] {
            assert_eq!(clsact(&support, &tcx).level, level, "{support:?} {tcx:?}");
        }
        for mode in [XdpMode::Generic, XdpMode::Native].map(Mode::Xdp) {
            assert_eq!(xdp(&Support::Yes, mode).level, Level::Warning, "it says what it costs");
            assert_eq!(xdp(&Support::No, mode).level, problem);
            assert_eq!(xdp(&unknown(), mode).level, Level::Warning);
        }
        assert_eq!(xdp(&Support::No, Mode::Tc).level, Level::Ok);
        assert_eq!(jit(Some("0\n")).level, Level::Warning);
        assert_eq!(jit(Some("1\n")).level, Level::Ok);
        assert_eq!(jit(None).level, Level::Warning);
        assert_eq!(btf(false).level, Level::Warning);
    }
}
