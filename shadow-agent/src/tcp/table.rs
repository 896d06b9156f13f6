//! All flows of one shard: finding a segment's flow, admitting new ones, and letting go of old ones.
//!
//! What happens inside a flow is `flow`'s business.

use std::collections::HashMap;
use std::time::Duration;

use slab::Slab;

use super::flow::{Flow, Outcome, Phase, Scope, peers};
use super::key::FlowKey;
use super::lru::Lru;
use super::sample::Sample;
use super::{Ending, Event, Handler, Load, Settings, Stats};
use crate::capture::{Direction, Segment, TcpFlags};
use crate::config::Share;
use crate::exchange::Timestamp;

/// How often all flows are looked at for what has waited, or been idle, too long.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// The flows of one shard. `C` is what the [`Handler`] keeps for each.
///
/// Peers choose their ports, and whoever is mirrored may be attacked, so the table hashes with the standard library's
/// keyed hash; it is a small part of what a segment costs.
#[derive(Debug)]
pub struct FlowTable<C> {
    settings: Settings,
    index: HashMap<FlowKey, usize>,
    flows: Slab<Entry<C>>,
    order: Lru,
    stats: Stats,
    scanned: Timestamp,
    sample: Sample,
}

#[derive(Debug)]
struct Entry<C> {
    key: FlowKey,
    flow: Flow<C>,
}

impl<C> FlowTable<C> {
    /// An empty table, which takes every flow.
    #[must_use]
    pub fn new(settings: Settings) -> FlowTable<C> {
        FlowTable {
            sample: Sample::new(settings.seed, Share::ALL),
            settings,
            index: HashMap::new(),
            flows: Slab::new(),
            order: Lru::new(),
            stats: Stats::default(),
            scanned: Timestamp::default(),
        }
    }

    /// What was counted so far, and how much is held now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { flows: self.flows.len(), ..self.stats }
    }

    /// Takes one segment.
    pub fn segment<H: Handler<Connection = C>>(&mut self, segment: &Segment<'_>, handler: &mut H) {
        self.stats.segments += 1;
        self.stats.bytes += segment.payload.len() as u64;
        self.tick(segment.time, handler);
        let (key, from_low) = FlowKey::of(&segment.source, &segment.destination);
        if !self.sample.holds(&key) {
            // Copied before the kernel knew.
            return;
        }
        if segment.is_shed {
            if let Some(&slot) = self.index.get(&key) {
                self.remove(slot, Ending::Shed, handler);
            }
            return;
        }
        let slot = match self.index.get(&key) {
            Some(&slot) => slot,
            None => match self.admit(key, from_low, segment, handler) {
                Some(slot) => slot,
                None => return,
            },
        };
        match self.feed(slot, from_low, segment, handler) {
            Outcome::Same => {}
            Outcome::Closed => self.order.demote(slot),
            Outcome::Reused => {
                self.remove(slot, Ending::Closed, handler);
                if let Some(slot) = self.admit(key, from_low, segment, handler) {
                    self.feed(slot, from_low, segment, handler);
                }
            }
        }
        while self.stats.buffered > self.settings.total_buffer {
            if !self.evict_oldest(handler) {
                break;
            }
        }
    }

    /// Tells the time, so that waits end although no segment comes. Cheap to call often.
    pub fn tick<H: Handler<Connection = C>>(&mut self, now: Timestamp, handler: &mut H) {
        if now.since(self.scanned) < SCAN_INTERVAL && self.scanned <= now {
            return;
        }
        // A clock that was set back must not make everything look old, nor stop the scans.
        self.scanned = now;
        let settings = &self.settings;
        let stats = &mut self.stats;
        let mut gone = Vec::new();
        for (slot, Entry { flow, .. }) in &mut self.flows {
            let quiet = now.since(flow.last);
            if flow.phase == Phase::Closed {
                if quiet >= settings.linger {
                    gone.push(slot);
                }
                continue;
            }
            if quiet >= settings.idle {
                gone.push(slot);
                continue;
            }
            if flow.load.open > 0 {
                handler.handle(&mut flow.connection, Event::Tick(now));
            }
            let mut scope = Scope { handler, stats, flow_buffer: settings.flow_buffer };
            if flow.expire(now, settings.gap_wait, &mut scope) == Outcome::Closed {
                self.order.demote(slot);
            }
            account(stats, flow, handler);
        }
        for slot in gone {
            self.evict(slot, handler);
        }
    }

    /// Ends every flow, for that reason.
    pub fn finish<H: Handler<Connection = C>>(&mut self, ending: Ending, handler: &mut H) {
        while let Some(slot) = self.order.oldest() {
            self.remove(slot, ending, handler);
        }
    }

    /// From now on takes segments of flows in a sample of that share only. Flows that are not in it (any more) end.
    pub fn set_sample<H: Handler<Connection = C>>(&mut self, share: Share, handler: &mut H) {
        self.sample = Sample::new(self.settings.seed, share);
        let sample = self.sample;
        let left_out = self.flows.iter().filter(|(_, entry)| !sample.holds(&entry.key));
        let left_out: Vec<usize> = left_out.map(|(slot, _)| slot).collect();
        for slot in left_out {
            self.remove(slot, Ending::SampledOut, handler);
        }
    }

    fn feed<H: Handler<Connection = C>>(
        &mut self,
        slot: usize,
        from_low: bool,
        segment: &Segment<'_>,
        handler: &mut H,
    ) -> Outcome {
        let Some(Entry { flow, .. }) = self.flows.get_mut(slot) else { return Outcome::Same };
        if flow.phase != Phase::Closed {
            self.order.touch(slot);
        }
        let direction = flow.direction(from_low);
        let stats = &mut self.stats;
        let mut scope = Scope { handler, stats, flow_buffer: self.settings.flow_buffer };
        let outcome = flow.segment(direction, segment, &mut scope);
        account(&mut self.stats, flow, handler);
        outcome
    }

    /// Makes an entry for the flow of a first segment, unless there is nothing to be gained from it.
    fn admit<H: Handler<Connection = C>>(
        &mut self,
        key: FlowKey,
        from_low: bool,
        segment: &Segment<'_>,
        handler: &mut H,
    ) -> Option<usize> {
        let opening = segment.flags.has(TcpFlags::SYN) && !segment.flags.has(TcpFlags::RST);
        if !opening && segment.payload.is_empty() && segment.missing == 0 {
            return None;
        }
        let Some((direction, phase)) = self.orient(segment, handler) else {
            self.stats.strays += 1;
            return None;
        };
        while self.flows.len() >= self.settings.flows.max(1) {
            self.evict_oldest(handler);
        }
        let connection = handler.open(&peers(segment, direction));
        let client_low = from_low == (direction == Direction::ToServer);
        let flow = Flow::new(connection, client_low, phase, segment.time);
        let slot = self.flows.insert(Entry { key, flow });
        self.index.insert(key, slot);
        self.order.insert(slot);
        Some(slot)
    }

    /// Which way a first segment travels, and whether its flow is one that is meant.
    fn orient<H: Handler<Connection = C>>(
        &self,
        segment: &Segment<'_>,
        handler: &H,
    ) -> Option<(Direction, Phase)> {
        if let Some(direction) = segment.direction {
            return Some((direction, Phase::Followed));
        }
        let (source, destination) = (segment.source.port(), segment.destination.port());
        let by_syn = segment.flags.has(TcpFlags::SYN).then(|| {
            if segment.flags.has(TcpFlags::ACK) { Direction::ToClient } else { Direction::ToServer }
        });
        let by_port = || match (self.settings.serves(source), self.settings.serves(destination)) {
            (true, false) => Some(Direction::ToClient),
            (false, true) => Some(Direction::ToServer),
            _ => None,
        };
        // A port in the ephemeral range may be a client's: what the bytes say beats what the ports suggest.
        let direction = by_syn.or_else(|| handler.guess(segment.payload)).or_else(by_port)?;
        let server = if direction == Direction::ToServer { destination } else { source };
        Some((direction, if self.settings.serves(server) { Phase::Followed } else { Phase::Ignored }))
    }

    fn evict_oldest<H: Handler<Connection = C>>(&mut self, handler: &mut H) -> bool {
        let oldest = self.order.oldest();
        if let Some(slot) = oldest {
            self.evict(slot, handler);
        }
        oldest.is_some()
    }

    fn evict<H: Handler<Connection = C>>(&mut self, slot: usize, handler: &mut H) {
        if self.flows.get(slot).is_some_and(|entry| entry.flow.phase != Phase::Closed) {
            self.stats.evicted += 1;
        }
        self.remove(slot, Ending::Evicted, handler);
    }

    fn remove<H: Handler<Connection = C>>(&mut self, slot: usize, ending: Ending, handler: &mut H) {
        let Some(Entry { key, mut flow }) = self.flows.try_remove(slot) else { return };
        self.index.remove(&key);
        self.order.remove(slot);
        let stats = &mut self.stats;
        flow.close(ending, &mut Scope { handler, stats, flow_buffer: self.settings.flow_buffer });
        account(&mut self.stats, &mut flow, handler);
    }
}

/// Enters what a flow holds now in the totals, in place of what it held when last asked.
fn account<H: Handler>(stats: &mut Stats, flow: &mut Flow<H::Connection>, handler: &H) {
    let load = handler.load(&flow.connection);
    let load = Load { buffered: load.buffered + flow.held(), open: load.open };
    stats.buffered = stats.buffered + load.buffered - flow.load.buffered;
    stats.open = stats.open + load.open - flow.load.open;
    flow.load = load;
}
