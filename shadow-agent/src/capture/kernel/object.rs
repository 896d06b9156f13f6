//! The embedded object: its constants, and what is in it.
//!
//! It attaches nothing. Whoever runs single programs has each loaded when it is needed; the agent loads all at its start,
//! because afterwards it may not.

use aya::maps::Map;
use aya::programs::{SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use shadow_ebpf::abi::{self, PROGRAMS, XDP_PROGRAMS};
use shadow_ebpf::{budget, filter};

use super::error::{self, KernelError};
use super::tables::{Network, Rings, lists};
use crate::config::{self, Mode, Side};
use crate::privileges::{KernelVersion, locked_memory};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/shadow-programs"));

/// Creates the maps, and fixes the constants of the programs.
pub(super) fn load(
    config: &config::Capture,
    networks: &[Network],
    rings: Rings,
) -> Result<Ebpf, KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::EmptyObject);
    }
    locked_memory::raise(u64::from(rings.size) * u64::from(rings.shards));
    let side = match config.side {
        Side::Server => filter::Side::Server,
        Side::Client => filter::Side::Client,
        Side::Both => filter::Side::Both,
    };
    let level: u8 = if config.kernel_log { u8::MAX } else { 0 };
    EbpfLoader::new()
        .override_global("SIDE", &side.code(), true)
        .override_global("MARK", &config.mark, true)
        .override_global("SEED", &config.seed, true)
        .override_global("LISTS", &lists(networks), true)
        .override_global("SHARDS", &u32::from(rings.shards), true)
        .override_global("BACKLOG", &(rings.size / 4), true)
        .override_global("AYA_LOG_LEVEL", &level, true)
        .override_global("PRICE", &config.budget.map_or(0, budget::price), true)
        // Its memory is allocated with it.
        .map_max_entries("BUDGETED", config.budget.map_or(1, |_| abi::MAX_BUDGETED))
        .load(OBJECT)
        .map_err(error::load)
}

/// Loads every program that `mode` may need, now or for a device that comes later, and says how many there are.
///
/// One after the other: they took 0.7 s here that way and 0.4 s on both CPUs, and those are production's.
pub(super) fn load_programs(ebpf: &mut Ebpf, mode: Mode) -> Result<usize, KernelError> {
    let xdp: &[&str] = match mode {
        Mode::Tc => &[],
        Mode::Xdp(_) => &XDP_PROGRAMS,
    };
    for name in xdp {
        xdp_program(ebpf, name)?;
    }
    // What goes out, what has no Ethernet header, and `lo` are copied at TC in either mode.
    for name in PROGRAMS {
        program(ebpf, name)?;
    }
    Ok(xdp.len() + PROGRAMS.len())
}

/// A map of the object.
pub(super) fn map<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Map, KernelError> {
    ebpf.map(name).ok_or(KernelError::Object { name })
}

/// A map of the object, to be changed.
pub(super) fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, KernelError> {
    ebpf.map_mut(name).ok_or(KernelError::Object { name })
}

/// A program of the object, loaded.
pub(super) fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Object { name })?;
    let program: &mut SchedClassifier = program.try_into().map_err(|_| KernelError::Object { name })?;
    if program.fd().is_err() {
        program.load().map_err(|source| error::program(name, source))?;
    }
    Ok(program)
}

/// An XDP program of the object, loaded. That some kernels cannot load them is no reason not to have the others.
pub(super) fn xdp_program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Object { name })?;
    let program: &mut Xdp = program.try_into().map_err(|_| KernelError::Object { name })?;
    if program.fd().is_err() {
        program.load().map_err(|source| error::xdp_program(name, source, KernelVersion::running()))?;
    }
    Ok(program)
}
