//! The embedded object: its constants, and what is in it.
//!
//! The programs are loaded one by one when something needs them, not here.

use aya::maps::Map;
use aya::programs::SchedClassifier;
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use shadow_ebpf::filter;

use super::error::{self, KernelError};
use super::tables::{Network, Rings, lists};
use crate::config::{self, Side};

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
    raise_locked_memory();
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
        .load(OBJECT)
        .map_err(error::load)
}

/// Before Linux 5.11 maps count as locked memory, whose limit is small by default.
fn raise_locked_memory() {
    if KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 11, 0)) {
        return;
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, rlim_t::MAX, rlim_t::MAX) {
        tracing::warn!(%error, "cannot raise the limit on locked memory; creating maps may fail");
    }
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
