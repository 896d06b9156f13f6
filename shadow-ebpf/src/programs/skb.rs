//! Reads a packet: directly where its headers are linear, through a helper where they are not.

use core::arch::asm;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use shadow_ebpf::packet::{MAX_HEADER, Reader};

/// Hides a value from the optimiser, so that a check made on the result stays where the verifier needs it.
#[inline(always)]
pub(super) fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: it changes nothing. It is an instruction all the same: the kernel refuses line information of two
    // statements for one instruction, which an empty one would have.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// A packet in the kernel.
pub(super) struct Packet {
    skb: *mut __sk_buff,
    data: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub(super) fn new(context: &TcContext) -> Packet {
        Packet { skb: context.as_ptr().cast(), data: context.data(), end: context.data_end() }
    }

    /// `SO_MARK` of the socket that sent it, or what a firewall made of it.
    #[inline(always)]
    pub(super) fn mark(&self) -> u32 {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*self.skb).mark }
    }

    /// Its length in bytes, all fragments of memory together.
    #[inline(always)]
    pub(super) fn length(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    pub(super) fn ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }

    /// Copies `length` bytes at `offset` to `target`.
    ///
    /// # Safety
    /// `target` must have room for `length` bytes, in a way that the verifier can see, and `length` must not be 0.
    #[inline(always)]
    pub(super) unsafe fn load(&self, offset: u32, target: *mut u8, length: u32) -> bool {
        // SAFETY: by the contract of this function; the helper checks the range within the packet itself.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, target.cast(), length) == 0 }
    }
}

impl Reader for Packet {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = opaque(u64::from(offset));
        if offset > u64::from(MAX_HEADER) {
            return None;
        }
        let start = self.data + offset as usize;
        let mut word = 0_u64;
        if start + N <= self.end {
            // SAFETY: the range was just checked against the end of the linear part.
            word = unsafe { direct::<N>(start) };
        } else {
            // SAFETY: a word has room for N bytes, and nobody reads none.
            unsafe { self.load(offset as u32, (&raw mut word).cast(), N as u32) }.then_some(())?;
        }
        word.to_ne_bytes().first_chunk().copied()
    }
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
