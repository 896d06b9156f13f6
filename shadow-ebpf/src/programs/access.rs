//! Reads headers in a way that the verifier follows: directly where they are linear, through a helper where they are not.

use core::arch::asm;

use shadow_ebpf::packet::MAX_HEADER;

use super::Frame;

/// Hides a value from the optimiser, so that a check made on the result stays where the verifier needs it.
#[inline(always)]
pub(super) fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: it changes nothing. It is an instruction all the same: the kernel refuses line information of two
    // statements for one instruction, which an empty one would have.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// The `N` bytes of a packet at `offset`; the linear part is from `data` to `end`.
#[inline(always)]
pub(super) fn read<const N: usize>(
    packet: &impl Frame,
    data: usize,
    end: usize,
    offset: u32,
) -> Option<[u8; N]> {
    // A constant needs no check of its own.
    let known = core::intrinsics::is_val_statically_known(offset);
    let offset = if known { u64::from(offset) } else { opaque(u64::from(offset)) };
    if offset > u64::from(MAX_HEADER) {
        return None;
    }
    let start = data + offset as usize;
    let mut word = 0_u64;
    if start + N <= end {
        // SAFETY: the range was just checked against the end of the linear part.
        word = unsafe { direct::<N>(start) };
    } else {
        // SAFETY: a word has room for N bytes, and nobody reads none.
        unsafe { packet.load(offset as u32, (&raw mut word).cast(), N as u32) }.then_some(())?;
    }
    word.to_ne_bytes().first_chunk().copied()
}

/// Loads `N` bytes in one instruction: packets are not aligned, and the compiler would load them one by one.
///
/// # Safety
/// The bytes must be within the linear part, checked where the verifier sees it.
#[inline(always)]
unsafe fn direct<const N: usize>(start: usize) -> u64 {
    let word: u64;
    // SAFETY: by the contract of this function.
    unsafe {
        match N {
            2 => {
                asm!("{0} = *(u16 *)({1} + 0)", out(reg) word, in(reg) start, options(pure, readonly, nostack))
            }
            4 => {
                asm!("{0} = *(u32 *)({1} + 0)", out(reg) word, in(reg) start, options(pure, readonly, nostack))
            }
            8 => {
                asm!("{0} = *(u64 *)({1} + 0)", out(reg) word, in(reg) start, options(pure, readonly, nostack))
            }
            _ => return 0,
        }
    }
    word
}
