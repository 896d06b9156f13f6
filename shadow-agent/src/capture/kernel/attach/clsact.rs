//! Filters in `clsact`, where there is no TCX: several agents side by side, and what killed ones left behind.
//!
//! A filter outlives its process, so every agent has a slot on a device: a claim that dies with it, and handles that no
//! other agent uses. Filters with our programs' names in a slot that nobody claims are leftovers, and go; every other
//! filter stays. The handle also says whether `clsact` was added by an agent, so that the last one to go takes it along,
//! even if the one that added it was killed. Nothing here removes `clsact` while there is a filter in it.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use nix::errno::Errno;
use shadow_ebpf::abi::PROGRAMS;

use super::super::error::{self, Cause, KernelError, Occupant};
use super::super::object;
use super::super::qdisc::{CLSACT, Hook, Place, Tc};
use super::lock::{self, Claim, SLOTS};
use super::{Program, index};
use crate::capture::interfaces::Device;
use crate::capture::interfaces::netlink::Filter;

/// Where our filters stand among others on a device: early, and never where a CNI's first filter stands.
const PRIORITY: u16 = 90;
/// The upper half of our handles where `clsact` was there before any agent; the lower half is the slot, from 1.
const BESIDE_OTHERS: u32 = 0x5AD0;
/// The same where an agent added `clsact`.
const BY_AN_AGENT: u32 = 0x5AD1;

/// One of our filters, as its handle tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capture::kernel) struct Ours {
    /// The slot of the agent that attached it.
    pub(in crate::capture::kernel) slot: u16,
    /// Whether an agent added `clsact`.
    clsact_is_ours: bool,
}

impl Ours {
    /// Recognises one by the name of its program, its place and its handle.
    pub(in crate::capture::kernel) fn recognise(filter: &Filter) -> Option<Ours> {
        let program = filter.program.as_deref()?;
        if filter.priority != PRIORITY || !PROGRAMS.contains(&program) {
            return None;
        }
        let slot = ((filter.handle & 0xFFFF) as u16).checked_sub(1).filter(|slot| *slot < SLOTS)?;
        let clsact_is_ours = match filter.handle >> 16 {
            BESIDE_OTHERS => false,
            BY_AN_AGENT => true,
            _ => return None,
        };
        Some(Ours { slot, clsact_is_ours })
    }

    fn place(self, hook: Hook) -> Place {
        let major = if self.clsact_is_ours { BY_AN_AGENT } else { BESIDE_OTHERS };
        Place { hook, priority: PRIORITY, handle: major << 16 | u32::from(self.slot + 1) }
    }
}

/// The filters of this agent on one device.
pub(super) struct Filters {
    tc: Tc,
    ours: Ours,
    /// How many there are.
    count: usize,
    _slot: Claim,
}

/// Attaches in the first free slot. If it cannot, nothing of this attempt stays.
pub(super) fn attach(ebpf: &mut Ebpf, device: &Device, programs: &[Program]) -> Result<Filters, KernelError> {
    let failed = |source: Cause| error::device(&device.name, "attaching by clsact to", source);
    let occupied = |by| KernelError::Occupied { device: device.name.clone(), by };
    // Verified before anything is claimed, because that takes a while.
    for program in programs {
        object::program(ebpf, program.name)?;
    }
    let mut tc = open(&device.name)?;
    let Some(_turn) = lock::turn(tc.index()).map_err(|error| failed(error.into()))? else {
        return Err(occupied(Occupant::Turn));
    };
    let mut clsact_is_ours = sweep_unclaimed(&mut tc, &device.name)?;
    let mut free = None;
    for slot in 0..SLOTS {
        free = lock::slot(tc.index(), slot).map_err(|error| failed(error.into()))?.map(|claim| (slot, claim));
        if free.is_some() {
            break;
        }
    }
    let (slot, claim) = free.ok_or_else(|| occupied(Occupant::Agents(SLOTS)))?;
    match tc.discipline().map_err(|error| failed(error.into()))?.as_deref() {
        Some(CLSACT) => {
            let living = tc.filters(PRIORITY).map_err(|error| failed(error.into()))?;
            clsact_is_ours |= living.iter().filter_map(Ours::recognise).any(|other| other.clsact_is_ours);
        }
        Some(kind) => return Err(occupied(Occupant::Discipline(kind.into()))),
        None => {
            tc.add_clsact().map_err(|error| {
                match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                    Errno::ENOENT => KernelError::Unsupported {
                        what: "the clsact queueing discipline (CONFIG_NET_SCH_INGRESS)".into(),
                        source: error.into(),
                    },
                    _ => failed(error.into()),
                }
            })?;
            clsact_is_ours = true;
        }
    }
    let mut filters = Filters { tc, ours: Ours { slot, clsact_is_ours }, count: 0, _slot: claim };
    for program in programs {
        if let Err(error) = filters.add(ebpf, device, program) {
            // What is reported is why attaching failed.
            let _ = filters.remove(true);
            return Err(error);
        }
    }
    Ok(filters)
}

/// Removes the filters that agents left on a device when they were killed.
pub(in crate::capture::kernel) fn sweep(device: &str) -> Result<(), KernelError> {
    let failed = |source: Cause| error::device(device, "looking for filters on", source);
    let mut tc = open(device)?;
    let found = tc.filters(PRIORITY).map_err(|error| failed(error.into()))?;
    if !found.iter().any(|filter| Ours::recognise(filter).is_some()) {
        return Ok(());
    }
    let Some(_turn) = lock::turn(tc.index()).map_err(|error| failed(error.into()))? else {
        tracing::warn!(
            device,
            "another agent is changing this device; what killed agents left there stays, and does nothing"
        );
        return Ok(());
    };
    let clsact_is_ours = sweep_unclaimed(&mut tc, device)?;
    if clsact_is_ours && tc.is_empty().map_err(|error| failed(error.into()))? {
        tc.remove_clsact().map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Removes our filters in every slot that nobody claims; says whether one of them stood in a `clsact` of ours.
fn sweep_unclaimed(tc: &mut Tc, device: &str) -> Result<bool, KernelError> {
    let failed = |source: Cause| error::device(device, "sweeping filters from", source);
    let found = tc.filters(PRIORITY).map_err(|error| failed(error.into()))?;
    let mut clsact_is_ours = false;
    for slot in 0..SLOTS {
        if !found.iter().filter_map(Ours::recognise).any(|ours| ours.slot == slot) {
            continue;
        }
        let Some(_claim) = lock::slot(tc.index(), slot).map_err(|error| failed(error.into()))? else {
            continue;
        };
        for left in remove_slot(tc, slot).map_err(|error| failed(error.into()))? {
            clsact_is_ours |= left.clsact_is_ours;
            tracing::info!(device, slot, "removed a filter left by an agent that was killed");
        }
    }
    Ok(clsact_is_ours)
}

/// Removes our filters of one slot, and gives them.
fn remove_slot(tc: &mut Tc, slot: u16) -> std::io::Result<Vec<Ours>> {
    let mut removed = Vec::new();
    for filter in tc.filters(PRIORITY)? {
        let Some(ours) = Ours::recognise(&filter).filter(|ours| ours.slot == slot) else { continue };
        let Some(hook) = Hook::ALL.into_iter().find(|hook| hook.as_str() == filter.hook) else { continue };
        tc.remove_filter(ours.place(hook))?;
        removed.push(ours);
    }
    Ok(removed)
}

fn open(device: &str) -> Result<Tc, KernelError> {
    let failed = |source: Cause| error::device(device, "looking for filters on", source);
    Tc::open(index(device).map_err(failed)?).map_err(|error| failed(error.into()))
}

impl Filters {
    fn add(&mut self, ebpf: &mut Ebpf, device: &Device, program: &Program) -> Result<(), KernelError> {
        let &Program { hook, name } = program;
        let failed = |source: Cause| error::device(&device.name, "attaching by clsact to", source);
        let fd = object::program(ebpf, name)?.fd().map_err(|error| failed(error.into()))?;
        let Err(error) = self.tc.add_filter(self.ours.place(hook), fd.as_fd(), name) else {
            self.count += 1;
            return Ok(());
        };
        let by = match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
            Errno::EOPNOTSUPP => Occupant::SharedBlock,
            // Filters of one priority share their classifier and protocol.
            Errno::ENOSPC | Errno::EINVAL => {
                let others = self.tc.filters(PRIORITY).unwrap_or_default();
                match others.into_iter().find(|filter| filter.hook == hook.as_str()) {
                    Some(other) => Occupant::Filter { priority: PRIORITY, kind: other.kind },
                    None => return Err(failed(error.into())),
                }
            }
            Errno::ENOENT => {
                return Err(KernelError::Unsupported {
                    what: "filters of type bpf (CONFIG_NET_CLS_BPF)".into(),
                    source: error.into(),
                });
            }
            _ => return Err(failed(error.into())),
        };
        Err(KernelError::Occupied { device: device.name.clone(), by })
    }

    /// Whether every one is where it was put.
    pub(super) fn hold(&mut self) -> Result<bool, Cause> {
        let ours = self
            .tc
            .filters(PRIORITY)?
            .iter()
            .filter_map(Ours::recognise)
            .filter(|ours| *ours == self.ours)
            .count();
        Ok(ours == self.count)
    }

    /// Removes the filters, and `clsact` if an agent added it and nobody needs it any more.
    pub(super) fn detach(mut self) -> Result<(), Cause> {
        // Without its turn it leaves `clsact`, to which another agent may be adding a filter just now.
        let turn = lock::turn(self.tc.index())?;
        Ok(self.remove(turn.is_some())?)
    }

    fn remove(&mut self, with_clsact: bool) -> std::io::Result<()> {
        let removed = remove_slot(&mut self.tc, self.ours.slot)?.len();
        // If ours went with a `clsact` that somebody removed, the one that is there now is somebody else's.
        let same = removed > 0 || self.count == 0;
        if with_clsact && same && self.ours.clsact_is_ours && self.tc.is_empty()? {
            self.tc.remove_clsact()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_filters_of_ours_are_recognised_and_their_place_is_found_again() {
        let filter = |priority, handle, program: Option<&str>| Filter {
            hook: "ingress",
            priority,
            handle,
            kind: "bpf".into(),
            program: program.map(str::to_owned),
        };
        let check = |filter: Filter, expected: Option<(u16, bool)>| {
            let ours = Ours::recognise(&filter);
            assert_eq!(ours.map(|ours| (ours.slot, ours.clsact_is_ours)), expected, "{filter:?}");
            if let Some(ours) = ours {
                let place = ours.place(Hook::Ingress);
                assert_eq!((place.priority, place.handle), (filter.priority, filter.handle));
            }
        };
        let name = Some(PROGRAMS[0]);
        check(filter(90, 0x5AD0_0001, name), Some((0, false)));
        check(filter(90, 0x5AD1_0008, name), Some((7, true)));
        check(filter(90, 0x5AD1_0009, name), None);
        check(filter(90, 0x5AD0_0000, name), None);
        check(filter(90, 0x5AD2_0001, name), None);
        check(filter(90, 1, name), None);
        check(filter(1, 0x5AD0_0001, name), None);
        check(filter(90, 0x5AD0_0001, Some("other")), None);
        check(filter(90, 0x5AD0_0001, None), None);
    }
}
