//! Puts programs on devices and takes them off: TCX links, or `clsact` filters where there is no TCX.
//!
//! Other programs on a device are never touched; all of ours let the next one decide. A TCX link dies with the process.
//! A filter does not, so those of an agent that was killed are found by the names of its programs and removed before new
//! ones are attached. Two agents can therefore share a device through TCX, and not through `clsact`.

use std::io;

use aya::Ebpf;
use aya::programs::tc::{
    self, NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcError, TcHandle,
};
use aya::programs::{Link as _, LinkOrder, ProgramError};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use shadow_ebpf::abi::PROGRAMS;

use super::error::{self, Cause, KernelError};
use super::run::{Entry, Leads};
use super::{object, qdisc};
use crate::capture::interfaces::{Device, Toward};

/// Where our filters stand among others on a device: early, and never where a CNI's first filter stands.
const PRIORITY: u16 = 90;
/// Names our filter at that priority.
const HANDLE: TcHandle = TcHandle::new(0x5AD0, 1);

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
    /// How they are attached.
    pub attachment: Attachment,
}

struct Links {
    device: Device,
    attached: Attached,
    links: Vec<SchedClassifierLink>,
    /// The device's index, when we added `clsact` to it.
    clsact: Option<u32>,
}

/// Everything that is attached.
pub(super) struct Attachments {
    preferred: Attachment,
    devices: Vec<Links>,
}

impl Attachments {
    pub(super) fn new(preferred: Attachment) -> Attachments {
        Attachments { preferred, devices: Vec::new() }
    }

    /// Attaches to a device: both hooks, or only egress where both directions pass it.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, device: &Device) -> Result<(), KernelError> {
        sweep(device)?;
        let hooks: &[(TcAttachType, Leads)] = match device.toward_server {
            Toward::Ingress => {
                &[(TcAttachType::Ingress, Leads::ToServer), (TcAttachType::Egress, Leads::ToClient)]
            }
            Toward::Egress => {
                &[(TcAttachType::Egress, Leads::ToServer), (TcAttachType::Ingress, Leads::ToClient)]
            }
            Toward::Both => &[(TcAttachType::Egress, Leads::Either)],
        };
        if self.preferred == Attachment::Tcx {
            match links(ebpf, device, hooks, Attachment::Tcx) {
                Ok(links) => {
                    self.add(device, Attachment::Tcx, links, None);
                    return Ok(());
                }
                Err(error @ (KernelError::Device { .. } | KernelError::Verifier { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(device = device.name, %error, "no TCX; attaching clsact filters")
                }
            }
        }
        let added = add_clsact(&device.name)?;
        let links = links(ebpf, device, hooks, Attachment::Clsact).inspect_err(|_| {
            if let Some(ifindex) = added {
                // What is reported is why attaching failed.
                let _ = qdisc::remove_if_empty(ifindex);
            }
        })?;
        self.add(device, Attachment::Clsact, links, added);
        Ok(())
    }

    fn add(
        &mut self,
        device: &Device,
        attachment: Attachment,
        links: Vec<SchedClassifierLink>,
        clsact: Option<u32>,
    ) {
        let attached = Attached { device: device.name.clone(), attachment };
        self.devices.push(Links { device: device.clone(), attached, links, clsact });
    }

    /// Takes everything off, and gives the first error.
    pub(super) fn detach(&mut self) -> Result<(), KernelError> {
        let mut result = Ok(());
        let mut note = |device: &str, source: Cause| {
            // The device, and everything on it, may have gone before us.
            let gone = matches!(error::number(source.as_ref()), Some(Errno::ENODEV | Errno::ENOENT));
            if !gone && result.is_ok() {
                result = Err(error::device(device, "detaching from", source));
            }
        };
        for Links { attached, links, clsact, .. } in self.devices.drain(..) {
            for link in links {
                link.detach().unwrap_or_else(|error| note(&attached.device, error.into()));
            }
            if let Some(ifindex) = clsact
                && let Err(error) = qdisc::remove_if_empty(ifindex)
            {
                note(&attached.device, error.into());
            }
        }
        result
    }

    /// Takes everything off the devices that are not among `devices`, and gives the first error.
    pub(super) fn retain(&mut self, devices: &[Device]) -> Result<(), KernelError> {
        let (kept, gone) = self.devices.drain(..).partition(|links| devices.contains(&links.device));
        self.devices = gone;
        let result = self.detach();
        self.devices = kept;
        result
    }

    pub(super) fn list(&self) -> Vec<Attached> {
        self.devices.iter().map(|device| device.attached.clone()).collect()
    }
}

impl Drop for Attachments {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::warn!(%error, "programs may stay attached");
        }
    }
}

fn links(
    ebpf: &mut Ebpf,
    device: &Device,
    hooks: &[(TcAttachType, Leads)],
    attachment: Attachment,
) -> Result<Vec<SchedClassifierLink>, KernelError> {
    let failed = |source: ProgramError| {
        error::device(&device.name, &format!("attaching by {} to", attachment.as_str()), source)
    };
    let mut links = Vec::with_capacity(hooks.len());
    for &(hook, leads) in hooks {
        let program = object::program(ebpf, Entry { layer: device.layer, leads }.name())?;
        let options = match attachment {
            // First, because a program before ours could keep packets from it; ours keeps none from those behind.
            Attachment::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Attachment::Clsact => TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                ..NlOptions::default()
            }),
        };
        let id = program.attach_with_options(&device.name, hook, options).map_err(failed)?;
        links.push(program.take_link(id).map_err(failed)?);
    }
    Ok(links)
}

/// Makes sure that a device has `clsact`; gives the device's index when it had none before.
fn add_clsact(device: &str) -> Result<Option<u32>, KernelError> {
    match tc::qdisc_add_clsact(device) {
        Ok(()) => if_nametoindex(device)
            .map(Some)
            .map_err(|number| error::device(device, "adding clsact to", io::Error::from(number))),
        Err(error) if error::number(&error) == Some(Errno::EEXIST) => Ok(None),
        Err(error) => Err(error::device(device, "adding clsact to", error)),
    }
}

/// Removes the filters that an agent left when it was killed.
fn sweep(device: &Device) -> Result<(), KernelError> {
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        for name in PROGRAMS {
            match tc::qdisc_detach_program(&device.name, hook, name) {
                Ok(()) => tracing::info!(
                    device = device.name,
                    name,
                    "removed a filter left by an agent that was killed"
                ),
                Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
                // No clsact, no filters.
                Err(error) if matches!(error::number(&error), Some(Errno::EINVAL | Errno::ENOENT)) => {}
                Err(error) => return Err(error::device(&device.name, "looking for filters on", error)),
            }
        }
    }
    Ok(())
}
