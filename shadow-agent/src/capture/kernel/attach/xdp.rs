//! XDP links (Linux 5.9): one program a device, for what comes in. Where there is a program, the kernel refuses ours.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use nix::errno::Errno;

use super::super::error::{self, Cause, KernelError, XdpObstacle, XdpProgram};
use super::super::run::Entry;
use super::super::{object, probe};
use super::index;
use super::link::{Kind, Link};
use crate::capture::Direction;
use crate::capture::interfaces::{Device, Layer, Toward, netlink};
use crate::config::XdpMode;

/// `XDP_FLAGS_SKB_MODE`.
const GENERIC: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
const NATIVE: u32 = 1 << 2;

/// The program for what comes in on a device; `None` where it is copied at TC in this mode too.
pub(in crate::capture::kernel) fn entry(device: &Device) -> Option<Entry> {
    match (device.layer, device.toward_server) {
        (Layer::Ethernet, Toward::Ingress) => Some(Entry::Xdp(Direction::ToServer)),
        (Layer::Ethernet, Toward::Egress) => Some(Entry::Xdp(Direction::ToClient)),
        // Where packets of layer 3 begin at XDP is up to the driver; on `lo` everything is copied as it goes out.
        (Layer::Ip, _) | (_, Toward::Both) => None,
    }
}

/// Attaches to a device that has no XDP program.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    device: &Device,
    entry: Entry,
    mode: XdpMode,
) -> Result<Link, KernelError> {
    let failed = |source: Cause| error::device(&device.name, "attaching by XDP to", source);
    let program = object::xdp_program(ebpf, entry.name())?;
    let program = program.fd().map_err(|error| failed(error.into()))?;
    let index = index(&device.name).map_err(failed)?;
    let flags = match mode {
        XdpMode::Generic => GENERIC,
        XdpMode::Native => NATIVE,
    };
    Link::create(program.as_fd(), index, Kind::Xdp, flags).map_err(|number| {
        match obstacle(number, index, mode) {
            Some(obstacle) => {
                KernelError::Xdp { device: device.name.clone(), obstacle, source: number.into() }
            }
            None => failed(number.into()),
        }
    })
}

/// What the kernel means by an error number; `None` when it is not about XDP.
fn obstacle(number: Errno, index: u32, mode: XdpMode) -> Option<XdpObstacle> {
    match (number, mode) {
        (Errno::EBUSY | Errno::EEXIST, _) => {
            Some(attached(index).map_or(XdpObstacle::Upper, XdpObstacle::Program))
        }
        (Errno::EOPNOTSUPP, XdpMode::Native) => Some(XdpObstacle::NotNative),
        (Errno::EPERM | Errno::ENODEV | Errno::ENXIO | Errno::ENOMEM, _) | (_, XdpMode::Generic) => None,
        (number, XdpMode::Native) => Some(XdpObstacle::Driver(number)),
    }
}

/// The XDP program of a device of this thread's network namespace.
fn attached(index: u32) -> Option<XdpProgram> {
    netlink::links().ok()?.into_iter().find(|link| link.index == index)?.xdp.map(probe::xdp_program)
}
