//! Copies a wanted packet into its shard's ring: whole, in records of the size class that fits.
//!
//! Nobody is woken for a record. A consumer that went to sleep said so and is woken once; one that is awake looks by
//! itself, and is woken early only when its backlog crosses a threshold.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::helpers::generated::bpf_ringbuf_query;
use shadow_ebpf::abi::{
    Control, MAX_FULL_RECORDS, MAX_SHARDS, Outcome, RECORD_SIZES, RecordHeader, Sleeper, notice,
};
use shadow_ebpf::backlog::{self, LOOK_EVERY};
use shadow_ebpf::filter::Wanted;
use shadow_ebpf::packet::flags;

use super::access::opaque;
use super::clock::Clock;
use super::{BACKLOG, Frame, RINGS, SHARDS};

type Ring = RingBuf<u8, 65_536>;

pub(super) const SMALL: usize = RECORD_SIZES[0];
pub(super) const MTU: usize = RECORD_SIZES[1];
pub(super) const PAGE: usize = RECORD_SIZES[2];
pub(super) const QUARTER: usize = RECORD_SIZES[3];
pub(super) const HALF: usize = RECORD_SIZES[4];
pub(super) const FULL: usize = RECORD_SIZES[5];
/// The most payload of one packet that is copied.
const MOST: u32 = (MAX_FULL_RECORDS + 1) * FULL as u32;

/// A ring record with room for `N` bytes of payload.
#[repr(C)]
pub(super) struct Record<const N: usize> {
    header: RecordHeader,
    payload: [u8; N],
}

/// What is left of a packet, and where it goes.
struct Copy<'a, F> {
    packet: &'a F,
    wanted: &'a Wanted,
    ring: &'a Ring,
    clock: &'a Clock,
    /// When the packet passed, once that is known.
    time: Option<u64>,
    /// Payload bytes to copy.
    length: u32,
    /// Of these, bytes already in earlier records.
    done: u32,
    /// One of [`notice`].
    notice: u16,
}

/// The payload bytes of a packet that can be copied: it can be shorter than its IP header says.
#[inline(always)]
pub(super) fn length(packet: &impl Frame, wanted: &Wanted) -> u32 {
    wanted.tcp.length.min(packet.length().saturating_sub(wanted.tcp.payload)).min(MOST)
}

/// Copies the first `length` payload bytes of a packet; gives their number.
#[inline(always)]
pub(super) fn copy(
    packet: &impl Frame,
    wanted: &Wanted,
    length: u32,
    clock: &Clock,
    time: Option<u64>,
) -> Result<u64, Outcome> {
    let shard = wanted.hash.shard(SHARDS.load());
    let ring = RINGS.get(shard).ok_or(Outcome::RingFull)?;
    let mut copy = Copy { packet, wanted, ring, clock, time, length, done: 0, notice: notice::NONE };
    let result = copy.all();
    // Whatever was submitted is there to be read, even when the packet could not be copied to its end.
    wake(ring, shard, clock.control());
    result
}

/// Says that the flow of a packet is left out from here on, so that what is open of it can be given up at once.
#[inline(always)]
pub(super) fn leave_out(packet: &impl Frame, wanted: &Wanted, clock: &Clock, time: u64) {
    let shard = wanted.hash.shard(SHARDS.load());
    let Some(ring) = RINGS.get(shard) else { return };
    let (time, notice) = (Some(time), notice::SHED);
    let mut copy = Copy { packet, wanted, ring, clock, time, length: 0, done: 0, notice };
    // Without room for it, the flow shows a gap later.
    let _ = copy.record::<SMALL>(0);
    wake(ring, shard, clock.control());
}

impl<F: Frame> Copy<'_, F> {
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
        let time = match self.time.map_or_else(|| self.clock.read(), Ok) {
            Ok(time) => time,
            Err(outcome) => {
                entry.discard(u64::from(BPF_RB_NO_WAKEUP));
                return Err(outcome);
            }
        };
        self.time = Some(time);
        // SAFETY: `record` is the reserved memory, aligned to eight bytes by the ring.
        unsafe { (&raw mut (*record).header).write(self.header(time, length)) };
        if length != 0 {
            let offset = self.wanted.tcp.payload + self.done;
            // One is added behind the check, because old verifiers do not learn from `!= 0` that a number is at least 1.
            let last = opaque(u64::from(length - 1));
            // SAFETY: the length is within 1..=N, checked where the verifier sees it.
            let loaded = last < N as u64
                && unsafe {
                    self.packet.load(offset, (&raw mut (*record).payload).cast(), (last + 1) as u32)
                };
            if !loaded {
                entry.discard(u64::from(BPF_RB_NO_WAKEUP));
                return Err(Outcome::CopyError);
            }
        }
        // A small record is rarely the one that matters, so most are not asked about.
        let looks = N > MTU || backlog::looks(time);
        let flags = if looks && crossed(self.ring, size_of::<Record<N>>()) {
            BPF_RB_FORCE_WAKEUP
        } else {
            BPF_RB_NO_WAKEUP
        };
        entry.submit(u64::from(flags));
        self.done += length;
        Ok(())
    }

    #[inline(always)]
    fn header(&self, time: u64, length: u32) -> RecordHeader {
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
            time,
            source: source.0.octets(),
            destination: destination.0.octets(),
            flow: hash.flow(),
            ifindex: self.packet.ifindex(),
            seq,
            ack: tcp.ack,
            captured: length,
            wire: match self.notice {
                notice::NONE if last => tcp.length - self.done,
                _ => length,
            },
            source_port: source.1,
            destination_port: destination.1,
            flags: bits,
            direction: *direction,
            notice: self.notice,
        }
    }
}

fn pointer(ring: &Ring) -> *mut core::ffi::c_void {
    core::ptr::from_ref(ring).cast_mut().cast()
}

/// Whether a record of `size` bytes, just reserved, carried the backlog over the threshold, or one of the few before it.
#[inline(always)]
fn crossed(ring: &Ring, size: usize) -> bool {
    // SAFETY: `ring` is the inner map that the look-up returned.
    let unread = unsafe { bpf_ringbuf_query(pointer(ring), u64::from(BPF_RB_AVAIL_DATA)) };
    let backlog = u64::from(BACKLOG.load());
    unread >= backlog && unread - backlog < 2 * LOOK_EVERY * size as u64
}

/// Wakes the consumer of a shard if it asked to be.
///
/// Called after the last submit, whose exchange of the record's length is a full barrier: either this sees the flag, or
/// the consumer, which looks again after setting it, sees the record.
#[inline(always)]
fn wake(ring: &Ring, shard: u32, control: *mut Control) {
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
