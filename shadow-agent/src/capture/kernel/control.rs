//! The memory that the agent shares with the running programs: switch, sample, heartbeat, ports, and who is asleep.
//!
//! A write is one store: no system call, no privilege, and no field ever overwrites another.
#![expect(unsafe_code, reason = "a map is mapped into memory, and its fields are shared with the kernel")]

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::{NonNull, addr_of_mut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use aya::maps::Map;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::time::{ClockId, clock_gettime};
use shadow_ebpf::abi;

use super::error::{self, KernelError};
use crate::config::Share;

/// The mapped control record.
pub(super) struct Control {
    record: NonNull<abi::Control>,
}

// SAFETY: the memory stays mapped as long as this exists, and every access is atomic.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

const LENGTH: NonZeroUsize = NonZeroUsize::new(size_of::<abi::Control>()).unwrap();

impl Control {
    /// Maps the map `CONTROL`.
    pub(super) fn map(map: &Map) -> Result<Control, KernelError> {
        let Map::Array(data) = map else { return Err(KernelError::Object { name: "CONTROL" }) };
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let memory = unsafe { mmap(None, LENGTH, access, MapFlags::MAP_SHARED, data.fd().as_fd(), 0) };
        let memory = memory
            .map_err(|number| error::classify("mapping the control record", std::io::Error::from(number)))?;
        Ok(Control { record: memory.cast() })
    }

    /// Says that the agent is well, now.
    pub(super) fn beat(&self) {
        // SAFETY: the field is within the mapping, aligned, and accessed atomically on this side.
        let heartbeat = unsafe { AtomicU64::from_ptr(addr_of_mut!((*self.record.as_ptr()).heartbeat)) };
        heartbeat.store(monotonic(), Ordering::Relaxed);
    }

    /// Throws the kill switch.
    pub(super) fn set_enabled(&self, enabled: bool) {
        // SAFETY: as in `beat`.
        let switch = unsafe { AtomicU32::from_ptr(addr_of_mut!((*self.record.as_ptr()).enabled)) };
        switch.store(if enabled { abi::ENABLED } else { 0 }, Ordering::Relaxed);
    }

    /// Sets the share of flows captured.
    pub(super) fn set_sample(&self, share: Share) {
        // SAFETY: as in `beat`.
        let sample = unsafe { AtomicU32::from_ptr(addr_of_mut!((*self.record.as_ptr()).sample)) };
        sample.store(share.threshold(), Ordering::Relaxed);
    }

    /// Captures the ports in these inclusive ranges.
    pub(super) fn set_ports(&self, ranges: &[(u16, u16)]) {
        for port in ranges.iter().flat_map(|&(first, last)| first..=last) {
            // SAFETY: as in `beat`.
            unsafe { set_port(addr_of_mut!((*self.record.as_ptr()).ports), port, true) };
        }
    }

    /// Puts a port into the set of our own sockets' ports, or takes it out.
    pub(super) fn set_own_port(&self, port: u16, own: bool) {
        // SAFETY: as in `beat`.
        unsafe { set_port(addr_of_mut!((*self.record.as_ptr()).own_ports), port, own) };
    }

    /// Says whether the consumer of a shard is about to block. After saying so it must look at its ring once more.
    pub(super) fn set_asleep(&self, shard: usize, asleep: bool) {
        debug_assert!(shard < abi::MAX_SHARDS);
        let shard = shard.min(abi::MAX_SHARDS - 1);
        // SAFETY: as in `beat`; the index is in bounds.
        let flag = unsafe {
            let sleepers = addr_of_mut!((*self.record.as_ptr()).sleepers).cast::<abi::Sleeper>();
            AtomicU32::from_ptr(addr_of_mut!((*sleepers.add(shard)).asleep))
        };
        flag.store(u32::from(asleep), Ordering::Relaxed);
        // The other half of this barrier is the kernel's, which submits a record before it reads the flag.
        fence(Ordering::SeqCst);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and nothing borrows from it.
        let _ = unsafe { munmap(self.record.cast(), LENGTH.get()) };
    }
}

/// Puts a port into a set that the programs read, or takes it out.
///
/// # Safety
/// The set must be within a mapping, and aligned.
unsafe fn set_port(ports: *mut abi::Ports, port: u16, within: bool) {
    let (word, bit) = abi::Ports::place(port);
    // SAFETY: by the contract of this function; a port has 16 bits, so the word is in bounds.
    let word = unsafe { AtomicU64::from_ptr(ports.cast::<u64>().add(word)) };
    if within {
        word.fetch_or(bit, Ordering::Relaxed)
    } else {
        word.fetch_and(!bit, Ordering::Relaxed)
    };
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of the kernel programs.
pub(super) fn monotonic() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds of a clock; 0 for one that does not exist.
pub(super) fn nanoseconds(clock: ClockId) -> u64 {
    let Ok(now) = clock_gettime(clock) else { return 0 };
    let (seconds, nanoseconds) = (now.tv_sec(), now.tv_nsec());
    u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanoseconds).unwrap_or(0)
}
