//! TCX links (Linux 6.6): they stand beside those of others.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use nix::errno::Errno;

use super::super::error::{self, Cause, KernelError};
use super::super::object;
use super::super::qdisc::Hook;
use super::link::{Kind, Link};
use super::{Program, index};
use crate::capture::interfaces::Device;

/// `BPF_F_BEFORE`, with nothing named before which: before all others.
const FIRST: u32 = 1 << 3;

/// Attaches before all others; `None` where the kernel has no TCX. What was attached is let go if one of `programs`
/// cannot be.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    device: &Device,
    programs: &[Program],
) -> Result<Option<Vec<Link>>, KernelError> {
    let failed = |source: Cause| error::device(&device.name, "attaching by tcx to", source);
    let mut links = Vec::with_capacity(programs.len());
    for &Program { hook, name } in programs {
        let kind = match hook {
            Hook::Ingress => Kind::TcxIngress,
            Hook::Egress => Kind::TcxEgress,
        };
        let program = object::program(ebpf, name)?.fd().map_err(|error| failed(error.into()))?;
        // First, because a program before ours could keep packets from it; ours keeps none from those behind.
        match Link::create(program.as_fd(), index(&device.name).map_err(failed)?, kind, FIRST) {
            Ok(link) => links.push(link),
            // What the kernel says of a kind that it does not know, or was built without.
            Err(Errno::EINVAL) if links.is_empty() => return Ok(None),
            Err(number) => return Err(failed(number.into())),
        }
    }
    Ok(Some(links))
}
