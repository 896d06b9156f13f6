//! Copies a wanted packet into its shard's ring: whole, in records of the size class that fits.
//!
//! Nobody is woken for a record. A consumer that went to sleep said so and is woken once; one that is awake looks by
//! itself, and is woken early only when its backlog crosses a threshold.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::helpers::generated::bpf_ringbuf_query;
use shadow_ebpf::abi::{MAX_FULL_RECORDS, MAX_SHARDS, Outcome, RECORD_SIZES, RecordHeader, Sleeper};
use shadow_ebpf::filter::Wanted;
use shadow_ebpf::packet::flags;

use super::skb::{Packet, opaque};
use super::{BACKLOG, CONTROL, RINGS, SHARDS};

type Ring = RingBuf<u8, 65_536>;

const SMALL: usize = RECORD_SIZES[0];
const MTU: usize = RECORD_SIZES[1];
const PAGE: usize = RECORD_SIZES[2];
const QUARTER: usize = RECORD_SIZES[3];
const HALF: usize = RECORD_SIZES[4];
const FULL: usize = RECORD_SIZES[5];
/// The most payload of one packet that is copied.
const MOST: u32 = (MAX_FULL_RECORDS + 1) * FULL as u32;

/// A ring record with room for `N` bytes of payload.
#[repr(C)]
struct Record<const N: usize> {
    header: RecordHeader,
    payload: [u8; N],
}

/// What is left of a packet, and where it goes.
struct Copy<'a> {
    packet: &'a Packet,
    wanted: &'a Wanted,
    ring: &'a Ring,
    time: u64,
    /// Payload bytes to copy.
    length: u32,
    /// Of these, bytes already in earlier records.
    done: u32,
}

/// Copies a packet; gives the number of payload bytes.
#[inline(always)]
pub(super) fn copy(packet: &Packet, wanted: &Wanted, time: u64) -> Result<u64, Outcome> {
    let shard = wanted.hash.shard(SHARDS.load());
    let ring = RINGS.get(shard).ok_or(Outcome::RingFull)?;
    // A packet can be shorter than its IP header says.
    let length = wanted.tcp.length.min(packet.length().saturating_sub(wanted.tcp.payload)).min(MOST);
    let mut copy = Copy { packet, wanted, ring, time, length, done: 0 };
    let result = copy.all();
    // Whatever was submitted is there to be read, even when the packet could not be copied to its end.
    wake(ring, shard);
    result
}

impl Copy<'_> {
    #[inline(always)]
    fn all(&mut self) -> Result<u64, Outcome> {
        for _ in 0..MAX_FULL_RECORDS {
            if self.length - self.done <= FULL as u32 {
                break;
            }
            self.record::<FULL>(FULL as u32)?;
        }
        let rest = self.length - self.done;
        match rest as usize {
            rest if rest <= SMALL => self.record::<SMALL>(rest as u32),
            rest if rest <= MTU => self.record::<MTU>(rest as u32),
            rest if rest <= PAGE => self.record::<PAGE>(rest as u32),
            rest if rest <= QUARTER => self.record::<QUARTER>(rest as u32),
            rest if rest <= HALF => self.record::<HALF>(rest as u32),
            rest => self.record::<FULL>(rest as u32),
        }?;
        Ok(u64::from(self.length))
    }

    /// Puts the next `length` payload bytes, `N` at most, into a record.
    #[inline(always)]
    fn record<const N: usize>(&mut self, length: u32) -> Result<(), Outcome> {
        let mut entry = self.ring.reserve_untyped::<Record<N>>(0).ok_or(Outcome::RingFull)?;
        let record: *mut Record<N> = MaybeUninit::as_mut_ptr(&mut entry);
        // SAFETY: `record` is the reserved memory, aligned to eight bytes by the ring.
        unsafe { (&raw mut (*record).header).write(self.header(length)) };
        let bounded = opaque(u64::from(length));
        if bounded != 0 {
            let offset = self.wanted.tcp.payload + self.done;
            // SAFETY: the length is within 1..=N, checked where the verifier sees it.
            let loaded = bounded <= N as u64
                && unsafe { self.packet.load(offset, (&raw mut (*record).payload).cast(), bounded as u32) };
            if !loaded {
                entry.discard(u64::from(BPF_RB_NO_WAKEUP));
                return Err(Outcome::CopyError);
            }
        }
        let flags =
            if crossed(self.ring, size_of::<Record<N>>()) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
        entry.submit(u64::from(flags));
        self.done += length;
        Ok(())
    }

    #[inline(always)]
    fn header(&self, length: u32) -> RecordHeader {
        let Wanted { source, destination, hash, direction, tcp } = self.wanted;
        let first = self.done == 0;
        let last = self.done + length == self.length;
        let mut bits = tcp.flags;
        let mut seq = tcp.seq.wrapping_add(self.done);
        if !first && bits & flags::SYN != 0 {
            // A SYN takes one sequence number, before the data.
            bits &= !flags::SYN;
            seq = seq.wrapping_add(1);
        }
        if !last {
            bits &= !(flags::FIN | flags::RST);
        }
        RecordHeader {
            time: self.time,
            source: source.0.octets(),
            destination: destination.0.octets(),
            flow: hash.flow(),
            ifindex: self.packet.ifindex(),
            seq,
            ack: tcp.ack,
            captured: length,
            wire: if last { tcp.length - self.done } else { length },
            source_port: source.1,
            destination_port: destination.1,
            flags: bits,
            direction: *direction,
            reserved: 0,
        }
    }
}

fn pointer(ring: &Ring) -> *mut core::ffi::c_void {
    core::ptr::from_ref(ring).cast_mut().cast()
}

/// Whether a record of `size` bytes, just reserved, carried the backlog over the threshold.
#[inline(always)]
fn crossed(ring: &Ring, size: usize) -> bool {
    // SAFETY: `ring` is the inner map that the look-up returned.
    let unread = unsafe { bpf_ringbuf_query(pointer(ring), u64::from(BPF_RB_AVAIL_DATA)) };
    let backlog = u64::from(BACKLOG.load());
    unread >= backlog && unread - (size as u64) < backlog
}

/// Wakes the consumer of a shard if it asked to be.
///
/// Called after the last submit, whose exchange of the record's length is a full barrier: either this sees the flag, or
/// the consumer, which looks again after setting it, sees the record.
#[inline(always)]
fn wake(ring: &Ring, shard: u32) {
    let Some(control) = CONTROL.get_ptr_mut(0) else { return };
    let shard = opaque(u64::from(shard)) as usize;
    if shard >= MAX_SHARDS {
        return;
    }
    // SAFETY: the index is in bounds; the agent writes the flag concurrently, so it is read and written volatile.
    unsafe {
        let sleepers = (&raw mut (*control).sleepers).cast::<Sleeper>();
        let asleep = &raw mut (*sleepers.add(shard)).asleep;
        if asleep.read_volatile() == 0 {
            return;
        }
        asleep.write_volatile(0);
    }
    // A ring too full for an empty record has a consumer that is awake.
    if let Some(entry) = ring.reserve_untyped::<u64>(0) {
        entry.discard(u64::from(BPF_RB_FORCE_WAKEUP));
    }
}
