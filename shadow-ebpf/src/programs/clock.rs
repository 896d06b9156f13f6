//! The time of a packet, and whether the agent is alive at that time.
//!
//! Reading the clock costs more than all questions about a packet together. So it is read once, as late as possible, and
//! a heartbeat that was found stale is remembered: while the agent is gone, it is not read at all.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use shadow_ebpf::abi::{Control, Outcome};
use shadow_ebpf::heartbeat;

/// The clock of one packet, not read yet.
pub(super) struct Clock {
    control: *mut Control,
    heartbeat: u64,
}

impl Clock {
    /// # Errors
    /// When the agent is known to be gone.
    ///
    /// # Safety
    /// `control` must point into its map.
    #[inline(always)]
    pub(super) unsafe fn new(control: *mut Control) -> Result<Clock, Outcome> {
        // SAFETY: the map lives as long as the program; others write it concurrently, so fields are read volatile.
        let (heartbeat, stale) = unsafe {
            ((&raw const (*control).heartbeat).read_volatile(), (&raw const (*control).stale).read_volatile())
        };
        if heartbeat == stale { Err(Outcome::Killed) } else { Ok(Clock { control, heartbeat }) }
    }

    /// The control page.
    #[inline(always)]
    pub(super) fn control(&self) -> *mut Control {
        self.control
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// When the agent is gone, or hangs.
    #[inline(always)]
    pub(super) fn read(&self) -> Result<u64, Outcome> {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        if heartbeat::is_fresh(self.heartbeat, now) {
            return Ok(now);
        }
        // SAFETY: as in `new`. Whoever else writes it writes the same, or a later heartbeat, which is as stale.
        unsafe { (&raw mut (*self.control).stale).write_volatile(self.heartbeat) };
        Err(Outcome::Killed)
    }
}
