//! A packet at TC.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use shadow_ebpf::packet::Reader;

use super::{Frame, access};

/// A packet that the kernel holds in a socket buffer.
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
}

impl Frame for Packet {
    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: the context is valid for the whole run of the program. Volatile, or it would be read for every packet.
        unsafe { (&raw const (*self.skb).mark).read_volatile() }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, target: *mut u8, length: u32) -> bool {
        // SAFETY: by the contract of this function; the helper checks the range within the packet itself.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, target.cast(), length) == 0 }
    }
}

impl Reader for Packet {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        access::read(self, self.data, self.end, offset)
    }
}
