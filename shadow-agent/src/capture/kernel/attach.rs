//! Puts programs on devices and takes them off: what is attached where, and by which means.
//!
//! Other programs on a device are never touched; all of ours let the next one decide. `attach::tcx` comes first, and
//! `attach::clsact` where there is no TCX; `attach::lock` keeps agents on one device apart. In mode xdp, `attach::xdp` takes
//! the place of ingress.

use aya::Ebpf;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::error::{self, Cause, KernelError};
use super::qdisc::Hook;
use super::run::{Entry, Leads};
use crate::capture::interfaces::{Device, Layer, Toward};
use crate::config::{Mode, XdpMode};

pub(super) mod clsact;
mod link;
pub(super) mod lock;
mod tcx;
pub(super) mod xdp;

use link::Link;

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// TCX links (Linux 6.6).
    Tcx,
    /// Filters of the `clsact` queueing discipline.
    Clsact,
}

impl Attachment {
    /// Its name in messages and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Attachment::Tcx => "tcx",
            Attachment::Clsact => "clsact",
        }
    }
}

/// A device with programs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The device's name.
    pub device: String,
    /// How those at TC are attached.
    pub attachment: Attachment,
    /// Where the one for incoming packets runs instead, if it is at XDP.
    pub xdp: Option<XdpMode>,
}

/// A program, and the hook that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Program {
    hook: Hook,
    name: &'static str,
}

/// What holds programs on a device.
enum Held {
    Tcx(Vec<Link>),
    Clsact(clsact::Filters),
}

impl Held {
    const fn attachment(&self) -> Attachment {
        match self {
            Held::Tcx(_) => Attachment::Tcx,
            Held::Clsact(_) => Attachment::Clsact,
        }
    }

    fn detach(self) -> Result<(), Cause> {
        match self {
            Held::Tcx(links) => drop(links),
            Held::Clsact(filters) => filters.detach()?,
        }
        Ok(())
    }

    /// Whether all of it is still there: others can remove it.
    fn holds(&mut self) -> Result<bool, Cause> {
        match self {
            Held::Tcx(links) => Ok(hold(links.iter())?),
            Held::Clsact(filters) => filters.hold(),
        }
    }
}

struct Holding {
    device: Device,
    held: Held,
    xdp: Option<(XdpMode, Link)>,
}

/// Everything that is attached.
pub(super) struct Attachments {
    mode: Mode,
    preferred: Attachment,
    devices: Vec<Holding>,
}

impl Attachments {
    pub(super) fn new(mode: Mode, preferred: Attachment) -> Attachments {
        Attachments { mode, preferred, devices: Vec::new() }
    }

    /// Attaches to a device; when it cannot, nothing of the attempt stays.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, device: &Device) -> Result<(), KernelError> {
        clsact::sweep(&device.name)?;
        let mut programs = programs(device);
        let xdp = self.hold_xdp(ebpf, device)?;
        if xdp.is_some() {
            programs.retain(|program| program.hook == Hook::Egress);
        }
        let held = self.hold(ebpf, device, &programs)?;
        self.devices.push(Holding { device: device.clone(), held, xdp });
        Ok(())
    }

    fn hold_xdp(&self, ebpf: &mut Ebpf, device: &Device) -> Result<Option<(XdpMode, Link)>, KernelError> {
        let Mode::Xdp(mode) = self.mode else { return Ok(None) };
        let Some(entry) = xdp::entry(device) else {
            let why = match device.layer {
                Layer::Ip => "what XDP shows of packets without an Ethernet header is up to the driver",
                Layer::Ethernet => "everything on it is copied as it goes out",
            };
            tracing::info!(interface = device.name, "captured at TC in both directions: {why}");
            return Ok(None);
        };
        Ok(Some((mode, xdp::attach(ebpf, device, entry, mode)?)))
    }

    fn hold(&self, ebpf: &mut Ebpf, device: &Device, programs: &[Program]) -> Result<Held, KernelError> {
        if self.preferred == Attachment::Tcx
            && let Some(links) = tcx::attach(ebpf, device, programs)?
        {
            return Ok(Held::Tcx(links));
        }
        clsact::attach(ebpf, device, programs).map(Held::Clsact)
    }

    /// Takes everything off, and gives the first error.
    pub(super) fn detach(&mut self) -> Result<(), KernelError> {
        let mut result = Ok(());
        for Holding { device, held, xdp } in self.devices.drain(..) {
            drop(xdp);
            let Err(source) = held.detach() else { continue };
            if !is_gone(&source) && result.is_ok() {
                result = Err(error::device(&device.name, "detaching from", source));
            }
        }
        result
    }

    /// Takes everything off the devices that are not among `devices`, and gives the first error.
    pub(super) fn retain(&mut self, devices: &[Device]) -> Result<(), KernelError> {
        let (kept, gone) = self.devices.drain(..).partition(|holding| devices.contains(&holding.device));
        self.devices = gone;
        let result = self.detach();
        self.devices = kept;
        result
    }

    /// The devices from which somebody else removed something of ours.
    pub(super) fn stripped(&mut self) -> Result<Vec<Device>, KernelError> {
        let mut stripped = Vec::new();
        for Holding { device, held, xdp } in &mut self.devices {
            let holds = held.holds().and_then(|holds| Ok(holds && hold(xdp.iter().map(|(_, link)| link))?));
            match holds {
                Ok(true) => {}
                Ok(false) => stripped.push(device.clone()),
                Err(source) if is_gone(&source) => {}
                Err(source) => return Err(error::device(&device.name, "looking for programs on", source)),
            }
        }
        Ok(stripped)
    }

    pub(super) fn list(&self) -> Vec<Attached> {
        let attached = |holding: &Holding| Attached {
            device: holding.device.name.clone(),
            attachment: holding.held.attachment(),
            xdp: holding.xdp.as_ref().map(|(mode, _)| *mode),
        };
        self.devices.iter().map(attached).collect()
    }
}

impl Drop for Attachments {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::warn!(%error, "programs may stay attached");
        }
    }
}

/// Whether the device, and everything on it, has gone before us.
fn is_gone(source: &Cause) -> bool {
    matches!(error::number(source.as_ref()), Some(Errno::ENODEV | Errno::ENOENT))
}

fn hold<'a>(mut links: impl Iterator<Item = &'a Link>) -> Result<bool, Errno> {
    links.try_fold(true, |all, link| Ok(all && link.holds()?))
}

/// The index of a device of this thread's network namespace, by its name.
fn index(device: &str) -> Result<u32, Cause> {
    Ok(if_nametoindex(device)?)
}

/// The programs of a device: one for either hook, or for egress only where both directions pass it.
fn programs(device: &Device) -> Vec<Program> {
    let hooks: &[(Hook, Leads)] = match device.toward_server {
        Toward::Ingress => &[(Hook::Ingress, Leads::ToServer), (Hook::Egress, Leads::ToClient)],
        Toward::Egress => &[(Hook::Egress, Leads::ToServer), (Hook::Ingress, Leads::ToClient)],
        Toward::Both => &[(Hook::Egress, Leads::Either)],
    };
    let program = |&(hook, leads): &(Hook, Leads)| Program {
        hook,
        name: Entry::Tc { layer: device.layer, leads }.name(),
    };
    hooks.iter().map(program).collect()
}
