//! A packet at XDP: as the driver gives it (native), or taken out of a socket buffer (generic).

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use shadow_ebpf::packet::Reader;

use super::{Frame, access};

/// A packet that may lie in several fragments of memory. Only the first is read directly.
pub(super) struct Packet {
    xdp: *mut xdp_md,
    data: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub(super) fn new(context: &XdpContext) -> Packet {
        Packet { xdp: context.as_ptr().cast(), data: context.data(), end: context.data_end() }
    }
}

impl Frame for Packet {
    /// What comes in is not marked yet. Our own packets are known by their sockets' addresses and ports.
    #[inline(always)]
    fn mark(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*self.xdp).ingress_ifindex }
    }

    /// Fails beyond 64 KiB, which the kernel's helper does not reach (BIG TCP).
    #[inline(always)]
    unsafe fn load(&self, offset: u32, target: *mut u8, length: u32) -> bool {
        // SAFETY: by the contract of this function; the helper checks the range within the packet itself.
        unsafe { bpf_xdp_load_bytes(self.xdp, offset, target.cast(), length) == 0 }
    }
}

impl Reader for Packet {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { bpf_xdp_get_buff_len(self.xdp) as u32 }
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        access::read(self, self.data, self.end, offset)
    }
}
