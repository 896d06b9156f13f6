//! Keeps the byte budget: one bucket for all CPUs, and what is known of each flow. What follows from it is decided in
//! `shadow_ebpf::budget`.
//!
//! Without a budget all of this is removed by the verifier. No instruction here is newer than Linux 5.10: the bucket is
//! charged by an atomic addition that returns nothing.

use core::arch::asm;

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::{Array, LruHashMap};
use aya_ebpf::macros::btf_map;
use shadow_ebpf::abi::{Bucket, MAX_BUDGETED, Outcome, direction};
use shadow_ebpf::budget::{self, ADMITTED, DEPTH, Decision, PENANCE};
use shadow_ebpf::filter::Wanted;
use shadow_ebpf::packet::flags;

use super::clock::Clock;

/// What a byte costs, set by the agent before loading; 0 is no budget.
#[unsafe(no_mangle)]
static PRICE: Global<u64> = Global::new(0);

#[btf_map]
static BUDGET: Array<Bucket, 1> = Array::new();
/// By the hash of a flow: [`ADMITTED`], or until when it is left out.
#[btf_map]
static BUDGETED: LruHashMap<u64, u64, { MAX_BUDGETED as usize }> = LruHashMap::new();

/// How a packet was paid for, with the time where that took reading the clock.
pub(super) enum Payment {
    /// There is no budget.
    Free,
    /// It may be copied.
    Paid(u64),
    /// It may not, nor may what follows of its flow for a while.
    FlowShed(u64),
}

/// Pays for `length` bytes of a packet that are to be copied.
#[inline(always)]
pub(super) fn spend(wanted: &Wanted, length: u32, clock: &Clock) -> Result<Payment, Outcome> {
    let price = PRICE.load();
    if price == 0 {
        return Ok(Payment::Free);
    }
    let now = clock.read()?;
    let bucket = BUDGET.get_ptr_mut(0).ok_or(Outcome::Shed)?;
    // SAFETY: the value lives as long as the program. Other CPUs add to it concurrently, so it is read once.
    let (paid, mut until) = unsafe { (&raw mut (*bucket).paid, (&raw const (*bucket).paid).read_volatile()) };
    if budget::level(until, now) == DEPTH {
        // Full: what is not used is not saved up. Another CPU's charge may be lost here, which then was less than what
        // just went to waste.
        until = now - DEPTH;
        // SAFETY: as above.
        unsafe { paid.write_volatile(until) };
    }
    let flow = wanted.hash.whole();
    let opens = wanted.direction != direction::TO_CLIENT;
    let starts = opens && wanted.tcp.flags & flags::SYN != 0;
    // SAFETY: a value of eight bytes is read at once.
    let state = BUDGETED.get_ptr(flow).map(|state| unsafe { state.read_volatile() });
    match budget::decide(state, budget::level(until, now), now, opens, starts) {
        Decision::Copy => {}
        // Without room for it, the flow is unknown again at its next packet.
        Decision::Admit => drop(BUDGETED.insert(flow, ADMITTED, BPF_ANY.into())),
        Decision::Shed => return Err(Outcome::Shed),
        Decision::ShedFlow => {
            let _ = BUDGETED.insert(flow, now + PENANCE, BPF_ANY.into());
            return Ok(Payment::FlowShed(now));
        }
    }
    let cost = budget::cost(price, length);
    // SAFETY: `paid` is an aligned word of a map's value.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) paid, in(reg) cost, options(nostack)) };
    Ok(Payment::Paid(now))
}
