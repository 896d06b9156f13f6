//! Programs that the agent never loads: what the others are measured against.
//!
//! One does nothing, and one reads the clock. The last is the floor of copying: it reserves, copies and submits every packet, whole, in records of
//! the same sizes, and asks nothing.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use shadow_ebpf::packet::Reader as _;

use super::access::opaque;
use super::copy::{FULL, HALF, MTU, PAGE, QUARTER, Record, SMALL};
use super::skb::Packet;
use super::{Frame as _, NEXT, RINGS};

#[classifier]
fn shadow_empty(_: TcContext) -> i32 {
    NEXT
}

#[classifier]
fn shadow_clock(_: TcContext) -> i32 {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // Compared, or it would not be read.
    if now == 0 { 0 } else { NEXT }
}

#[classifier]
fn shadow_floor(context: TcContext) -> i32 {
    let packet = Packet::new(&context);
    match packet.length() as usize {
        length if length <= SMALL => put::<SMALL>(&packet),
        length if length <= MTU => put::<MTU>(&packet),
        length if length <= PAGE => put::<PAGE>(&packet),
        length if length <= QUARTER => put::<QUARTER>(&packet),
        length if length <= HALF => put::<HALF>(&packet),
        _ => put::<FULL>(&packet),
    };
    NEXT
}

#[inline(always)]
fn put<const N: usize>(packet: &Packet) -> Option<()> {
    let mut entry = RINGS.get(0)?.reserve_untyped::<Record<N>>(0)?;
    let length = packet.length();
    if length != 0 {
        // As in `copy`: the same instructions, for the same verifiers.
        let last = opaque(u64::from(length - 1));
        if last < N as u64 {
            // SAFETY: the length is within 1..=N, checked where the verifier sees it.
            unsafe { packet.load(0, entry.as_mut_ptr().cast(), (last + 1) as u32) };
        }
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    Some(())
}
