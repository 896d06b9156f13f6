//! Reads one ring, and turns its records into segments.
//!
//! It interprets no payload. When it sleeps and who wakes it is the other half of what the kernel programs do after a
//! copy: nobody is woken for a record, and a consumer that blocks says so first.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{ArrayOfMaps, Map, MapData, RingBuf};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::ClockId;
use shadow_ebpf::abi::{RecordHeader, direction, notice};

use super::control::{self, Control};
use super::error::{self, KernelError};
use super::object;
use super::tables::Rings;
use crate::capture::{Direction, Segment, SegmentSource, TcpFlags};
use crate::exchange::Timestamp;

/// How long an awake consumer waits before it looks again: the most that a segment waits while traffic flows. A ring in
/// which nothing came meanwhile is quiet, and its consumer goes to sleep.
const TICK: Duration = Duration::from_millis(2);
/// The same under load, where fewer turns are worth more than a little time.
const LOAD_TICK: Duration = Duration::from_millis(4);
/// So many records in one tick are load.
const LOAD: usize = 64;
/// The most records handed over at once, so that a shard under load gets to its other duties.
const BATCH: usize = 1024;
/// `BPF_MAP_TYPE_RINGBUF`.
const RINGBUF: u32 = 27;

/// One ring, as a source of segments.
pub struct RingSource {
    ring: RingBuf<MapData>,
    shard: usize,
    control: Arc<Control>,
    /// Nanoseconds from the kernel's clock to Unix time when capture began. It stays as it was, so that a wall clock
    /// that is set stretches no exchange under way.
    epoch: u64,
    /// Records since the last wait.
    fresh: usize,
}

/// Creates the rings and gives them to the programs.
pub(super) fn create(
    ebpf: &mut Ebpf,
    plan: Rings,
    control: &Arc<Control>,
) -> Result<Vec<RingSource>, KernelError> {
    let failed = |source| error::map("RINGS", source);
    let mut rings: ArrayOfMaps<&mut MapData, RingBuf<MapData>> =
        object::map_mut(ebpf, "RINGS")?.try_into().map_err(failed)?;
    let epoch = epoch(control::nanoseconds(ClockId::CLOCK_REALTIME), control::monotonic());
    let mut sources = Vec::with_capacity(plan.shards.into());
    for shard in 0..plan.shards {
        let definition = aya_obj::Map::new_from_params(RINGBUF, 0, 0, plan.size, 0);
        let ring = MapData::create(definition, "shadow_ring", None).map_err(failed)?;
        let ring = RingBuf::try_from(Map::RingBuf(ring)).map_err(failed)?;
        rings.set(shard.into(), &ring, 0).map_err(failed)?;
        let (shard, control) = (shard.into(), Arc::clone(control));
        sources.push(RingSource { ring, shard, control, epoch, fresh: 0 });
    }
    Ok(sources)
}

impl RingSource {
    /// The position of this ring among all.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Shows every record that is in the ring, whatever it is, and throws it away: for measurements.
    pub fn discard(&mut self, look: &mut dyn FnMut(&[u8])) {
        while let Some(record) = self.ring.next() {
            look(&record);
        }
    }

    fn drain(&mut self, handle: &mut dyn FnMut(&Segment<'_>)) -> usize {
        let mut count = 0;
        while count < BATCH {
            let Some(record) = self.ring.next() else { break };
            if let Some(segment) = segment(&record, self.epoch) {
                handle(&segment);
                count += 1;
            }
        }
        self.fresh += count;
        count
    }

    /// Waits until the kernel says that there is something, at most `timeout`.
    fn wait(&self, timeout: Duration) -> Result<(), KernelError> {
        // Rounded up, so that less than a millisecond does not become a busy loop.
        let milliseconds = u32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(number) => Err(KernelError::Wait { shard: self.shard, source: io::Error::from(number) }),
        }
    }
}

impl SegmentSource for RingSource {
    type Error = KernelError;

    fn poll(
        &mut self,
        timeout: Duration,
        handle: &mut dyn FnMut(&Segment<'_>),
    ) -> Result<Option<usize>, KernelError> {
        let start = Instant::now();
        loop {
            let count = self.drain(handle);
            let left = timeout.saturating_sub(start.elapsed());
            if count > 0 || left.is_zero() {
                return Ok(Some(count));
            }
            let fresh = std::mem::take(&mut self.fresh);
            if fresh > 0 {
                let tick = if fresh < LOAD { TICK } else { LOAD_TICK };
                self.wait(tick.min(left))?;
                continue;
            }
            self.control.set_asleep(self.shard, true);
            let count = self.drain(handle);
            let waited = if count == 0 { self.wait(left) } else { Ok(()) };
            self.control.set_asleep(self.shard, false);
            waited?;
            if count > 0 {
                return Ok(Some(count));
            }
        }
    }
}

/// Nanoseconds from `CLOCK_MONOTONIC` to Unix time, given both; 0 where the wall clock was never set.
fn epoch(realtime: u64, monotonic: u64) -> u64 {
    realtime.saturating_sub(monotonic)
}

/// A record as a segment; `None` for one that contradicts itself, which the programs do not write.
fn segment(record: &[u8], epoch: u64) -> Option<Segment<'_>> {
    let header = RecordHeader::from_bytes(record)?;
    let payload = record.get(size_of::<RecordHeader>()..)?.get(..header.captured as usize)?;
    Some(Segment {
        time: Timestamp(header.time.saturating_add(epoch)),
        source: address(header.source, header.source_port),
        destination: address(header.destination, header.destination_port),
        seq: header.seq,
        ack: header.ack,
        flags: TcpFlags(header.flags),
        direction: match header.direction {
            direction::TO_SERVER => Some(Direction::ToServer),
            direction::TO_CLIENT => Some(Direction::ToClient),
            _ => None,
        },
        payload,
        missing: header.wire.saturating_sub(header.captured),
        is_shed: header.notice == notice::SHED,
    })
}

fn address(octets: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_unix_times_as_far_apart_as_on_the_kernel_s_clock() {
        const NOW: u64 = 1_700_000_000_000_000_000;
        for (realtime, monotonic) in [(NOW, 5_000), (0, 5_000), (5_000, 5_000), (NOW, 0)] {
            let epoch = epoch(realtime, monotonic);
            let at = |time: u64| {
                let mut record = [0; size_of::<RecordHeader>()];
                record[..8].copy_from_slice(&time.to_ne_bytes());
                segment(&record, epoch).unwrap().time
            };
            assert_eq!(at(monotonic), Timestamp(realtime.max(monotonic)), "{realtime} {monotonic}");
            assert_eq!(at(monotonic + 7).since(at(monotonic)), Duration::from_nanos(7));
            assert_eq!(at(monotonic).since(at(monotonic + 7)), Duration::ZERO);
            assert_eq!(at(u64::MAX), Timestamp(u64::MAX), "at the end of time");
        }
    }
}
