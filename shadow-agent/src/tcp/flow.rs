//! One flow: both directions, the order between them, and when waiting ends.
//!
//! Knows neither the table that it stands in nor what its bytes mean.

use std::time::Duration;

use super::stream::{Fin, Held, Place, Reset, Stream, trim_front};
use super::{Chunk, Ending, Event, Handler, Interest, Load, Peers, Stats};
use crate::capture::{Direction, Segment, TcpFlags};
use crate::exchange::Timestamp;

/// What is done with a flow's segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// They are reassembled.
    Followed,
    /// They are dropped until the connection ends.
    Ignored,
    /// The connection ended; late segments are dropped.
    Closed,
}

/// What a segment did to the table's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The flow goes on.
    Same,
    /// The flow is closed now.
    Closed,
    /// The segment belongs to a new connection between the same endpoints.
    Reused,
}

/// One flow, with what the handler keeps for it.
#[derive(Debug)]
pub(super) struct Flow<C> {
    pub(super) connection: C,
    pub(super) phase: Phase,
    /// Whether the client is the lower endpoint of the key.
    pub(super) client_low: bool,
    /// When the last segment came.
    pub(super) last: Timestamp,
    /// What the table has entered for this flow.
    pub(super) load: Load,
    to_server: Stream,
    to_client: Stream,
    /// A SYN that would start a new connection, until the other side agrees to it.
    reopening: Option<(Direction, u32)>,
    /// Whether a segment toward the server was seen, and one toward the client.
    seen: [bool; 2],
    /// A reset that its receiver perhaps did not believe: if it did, its sender is silent from then on.
    doubted: Option<(Direction, Timestamp)>,
}

/// What a flow needs from around it to take a segment.
pub(super) struct Scope<'a, H> {
    pub(super) handler: &'a mut H,
    pub(super) stats: &'a mut Stats,
    pub(super) flow_buffer: usize,
}

impl<C> Flow<C> {
    pub(super) fn new(connection: C, client_low: bool, phase: Phase, now: Timestamp) -> Flow<C> {
        Flow {
            connection,
            phase,
            client_low,
            last: now,
            load: Load::default(),
            to_server: Stream::default(),
            to_client: Stream::default(),
            reopening: None,
            seen: [false; 2],
            doubted: None,
        }
    }

    /// Bytes held out of order.
    pub(super) fn held(&self) -> usize {
        self.to_server.held() + self.to_client.held()
    }

    /// Takes one segment of this flow.
    pub(super) fn segment<H: Handler<Connection = C>>(
        &mut self,
        direction: Direction,
        segment: &Segment<'_>,
        scope: &mut Scope<'_, H>,
    ) -> Outcome {
        if segment.flags.has(TcpFlags::SYN) {
            if self.is_reuse(direction, segment) {
                return Outcome::Reused;
            }
        } else if self.reopening == Some((direction, segment.seq.wrapping_sub(1)))
            && !segment.payload.is_empty()
        {
            return Outcome::Reused;
        }
        if self.phase == Phase::Closed {
            let length = segment.payload.len() as u64 + u64::from(segment.missing);
            let own = self.stream(direction);
            let place = own.place(segment.seq);
            if length > 0 && matches!(place, Place::Next { skip } if skip >= length) {
                scope.stats.duplicate_segments += 1;
            }
            return Outcome::Same;
        }
        self.last = segment.time;
        let [to_server, to_client] = &mut self.seen;
        *(if direction == Direction::ToServer { to_server } else { to_client }) = true;
        if segment.flags.has(TcpFlags::SYN) {
            self.synchronise(direction, segment);
        }
        if segment.flags.has(TcpFlags::RST) {
            return self.reset(direction, segment, scope);
        }
        if self.doubted.is_some_and(|(from, _)| from == direction) {
            self.doubted = None;
            scope.stats.strays += 1;
        }
        let ack = if segment.flags.has(TcpFlags::ACK) {
            let other = self.stream(direction.reversed());
            other.anchor(segment.ack);
            other.offset_of_ack(segment.ack)
        } else {
            None
        };
        if self.phase == Phase::Followed {
            self.data(direction, segment, ack, scope);
        }
        if segment.flags.has(TcpFlags::FIN) {
            self.fin(direction, segment, ack, scope);
        }
        let over = self.to_server.ended() && self.to_client.ended();
        if over && self.phase != Phase::Closed { self.close(Ending::Closed, scope) } else { Outcome::Same }
    }

    /// Whether a SYN starts a new connection between the same endpoints (RFC 9293, section 3.10.7.4; RFC 6191).
    fn is_reuse(&mut self, direction: Direction, segment: &Segment<'_>) -> bool {
        let first = segment.seq.wrapping_add(1);
        let known = self.stream(direction).first();
        let untouched = self.to_server.next() == 0 && self.to_client.next() == 0;
        if known == Some(first) {
            return false;
        }
        if self.phase == Phase::Closed {
            return true;
        }
        if segment.flags.has(TcpFlags::ACK) {
            let agreed = self.reopening == Some((direction.reversed(), segment.ack.wrapping_sub(1)));
            return agreed || (known.is_some() && !untouched);
        }
        if untouched {
            return direction == Direction::ToClient || known.is_some();
        }
        // A SYN inside a live connection may be forged: the server decides (RFC 5961, section 4).
        self.reopening = Some((direction, segment.seq));
        false
    }

    fn synchronise(&mut self, direction: Direction, segment: &Segment<'_>) {
        let first = segment.seq.wrapping_add(1);
        let own = self.stream(direction);
        if own.first() != Some(first) {
            own.lift_anchor();
            own.anchor(first);
        }
    }

    fn reset<H: Handler<Connection = C>>(
        &mut self,
        direction: Direction,
        segment: &Segment<'_>,
        scope: &mut Scope<'_, H>,
    ) -> Outcome {
        match self.stream(direction).reset_at(segment.seq) {
            _ if self.phase == Phase::Ignored => return self.close(Ending::Reset, scope),
            Reset::Certain => return self.close(Ending::Reset, scope),
            Reset::Doubtful => self.doubted = Some((direction, segment.time)),
            Reset::Stray => scope.stats.strays += 1,
        }
        Outcome::Same
    }

    /// Ends the flow: the handler is told, and what waits is dropped.
    pub(super) fn close<H: Handler<Connection = C>>(
        &mut self,
        ending: Ending,
        scope: &mut Scope<'_, H>,
    ) -> Outcome {
        if self.phase != Phase::Closed {
            let ending = match (ending, self.doubted) {
                (Ending::Closed, Some(_)) => Ending::Reset,
                (ending, _) => ending,
            };
            let spoke = self.to_server.next() > 0 || self.to_client.next() > 0;
            let one_sided = self.phase == Phase::Followed && self.seen != [true; 2] && spoke;
            scope.stats.one_sided_flows += u64::from(one_sided);
            scope.handler.handle(&mut self.connection, Event::Over(ending));
            self.to_server.clear();
            self.to_client.clear();
            self.phase = Phase::Closed;
        }
        Outcome::Closed
    }

    fn data<H: Handler<Connection = C>>(
        &mut self,
        direction: Direction,
        segment: &Segment<'_>,
        ack: Option<u64>,
        scope: &mut Scope<'_, H>,
    ) {
        let (mut bytes, mut missing) = (segment.payload, segment.missing);
        let length = bytes.len() as u64 + u64::from(missing);
        if length == 0 {
            return;
        }
        let seq = segment.seq.wrapping_add(u32::from(segment.flags.has(TcpFlags::SYN)));
        let other_reached = self.stream(direction.reversed()).reached();
        let own = self.stream(direction);
        own.anchor(seq);
        let offset = match own.place(seq) {
            Place::Next { skip } if skip >= length => {
                scope.stats.duplicate_bytes += bytes.len() as u64;
                scope.stats.duplicate_segments += 1;
                let conflicts =
                    own.next().checked_sub(skip).is_some_and(|offset| own.contradicts(offset, bytes));
                scope.stats.conflicting_segments += u64::from(conflicts);
                return;
            }
            Place::Next { skip } => {
                own.progress = segment.time;
                let conflicts = skip > 0
                    && own.next().checked_sub(skip).is_some_and(|offset| own.contradicts(offset, bytes));
                scope.stats.conflicting_segments += u64::from(conflicts);
                scope.stats.duplicate_bytes += trim_front(&mut bytes, &mut missing, skip);
                if own.is_clear() && ack.is_none_or(|ack| ack <= other_reached) {
                    self.deliver(direction, segment.time, ack, bytes, missing, scope);
                    if !self.stream(direction.reversed()).is_clear() {
                        self.drain(scope);
                    }
                    return;
                }
                own.next()
            }
            Place::Ahead { offset } => {
                scope.stats.reordered += 1;
                offset
            }
            Place::Stray => {
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                let Some(jump) = own.stray(seq, length) else {
                    scope.stats.strays += 1;
                    return;
                };
                own.clear();
                own.progress = segment.time;
                self.gap(direction, jump, segment.time, scope);
                self.stream(direction).next()
            }
        };
        self.hold(direction, offset, segment.time, ack, (bytes, missing), scope);
        self.drain(scope);
    }

    /// Keeps bytes until their turn; what the flow's buffer cannot take makes it give up waiting.
    fn hold<H: Handler<Connection = C>>(
        &mut self,
        direction: Direction,
        offset: u64,
        time: Timestamp,
        ack: Option<u64>,
        (bytes, missing): (&[u8], u32),
        scope: &mut Scope<'_, H>,
    ) {
        while offset > self.stream(direction).next()
            && self.held() + Stream::cost_of(bytes.len()) > scope.flow_buffer
            && self.phase == Phase::Followed
        {
            let own = self.stream(direction);
            let (next, alone) = (own.next(), own.held() == 0);
            if own.waiting().is_some_and(|(first, ..)| first < offset) {
                self.give_up(direction, scope);
            } else if alone && self.stream(direction.reversed()).held() > 0 {
                self.give_up(direction.reversed(), scope);
            } else {
                self.gap(direction, offset - next, time, scope);
            }
        }
        if self.phase == Phase::Followed {
            let Held { duplicate, conflict } = self.stream(direction).hold(offset, bytes, missing, time, ack);
            scope.stats.duplicate_bytes += duplicate;
            scope.stats.duplicate_segments += u64::from(missing == 0 && duplicate == bytes.len() as u64);
            scope.stats.conflicting_segments += u64::from(conflict);
        }
    }

    /// Gives up whatever the first waiting bytes of a direction wait for, and hands on what that frees. A gap has the
    /// time of the bytes behind it: with a later one, these would seem to have been captured as late.
    fn give_up<H: Handler<Connection = C>>(&mut self, direction: Direction, scope: &mut Scope<'_, H>) {
        let next = self.stream(direction).next();
        let Some((offset, time, ack)) = self.stream(direction).waiting() else { return };
        if offset > next {
            self.gap(direction, offset - next, time, scope);
        } else {
            let other = self.stream(direction.reversed());
            let until = other.waiting().map_or(u64::MAX, |(offset, ..)| offset).min(ack.unwrap_or(0));
            let length = until.saturating_sub(other.next());
            if length > 0 {
                self.gap(direction.reversed(), length, time, scope);
            } else {
                // Each direction waits for the other, which no real pair of hosts can bring about.
                self.take_piece(direction, scope);
            }
        }
        self.drain(scope);
    }

    /// Gives up everything that has waited long enough without progress.
    pub(super) fn expire<H: Handler<Connection = C>>(
        &mut self,
        now: Timestamp,
        wait: Duration,
        scope: &mut Scope<'_, H>,
    ) -> Outcome {
        if self.doubted.is_some_and(|(_, since)| now.since(since) >= wait) && self.phase != Phase::Closed {
            return self.close(Ending::Reset, scope);
        }
        for direction in [Direction::ToServer, Direction::ToClient] {
            while self.phase == Phase::Followed {
                let progress = self.to_server.progress.max(self.to_client.progress);
                let own = self.stream(direction);
                let Some((offset, since, _)) = own.waiting() else { break };
                let progress = if offset > own.next() { own.progress } else { progress };
                if now.since(since.max(progress)) < wait {
                    break;
                }
                self.give_up(direction, scope);
            }
        }
        let over = self.to_server.ended() && self.to_client.ended();
        if over && self.phase != Phase::Closed { self.close(Ending::Closed, scope) } else { Outcome::Same }
    }

    /// Hands on everything whose turn has come, in both directions.
    fn drain<H: Handler<Connection = C>>(&mut self, scope: &mut Scope<'_, H>) {
        let mut idle = 0;
        let mut direction = Direction::ToServer;
        while idle < 2 {
            idle = if self.is_due(direction) && self.take_piece(direction, scope) { 0 } else { idle + 1 };
            if idle > 0 {
                direction = direction.reversed();
            }
        }
    }

    /// Whether the first waiting bytes of a direction come next and are not ahead of what their sender had received.
    fn is_due(&mut self, direction: Direction) -> bool {
        let reached = self.stream(direction.reversed()).reached();
        let own = self.stream(direction);
        own.waiting()
            .is_some_and(|(offset, _, ack)| offset == own.next() && ack.is_none_or(|ack| ack <= reached))
    }

    /// Hands on the first waiting piece of a direction, or its end.
    fn take_piece<H: Handler<Connection = C>>(
        &mut self,
        direction: Direction,
        scope: &mut Scope<'_, H>,
    ) -> bool {
        let own = self.stream(direction);
        if let Some(piece) = own.take_next() {
            self.deliver(direction, piece.time, piece.ack, &piece.bytes, piece.missing, scope);
            return true;
        }
        let Some((offset, time, _)) = own.waiting() else { return false };
        if offset != own.next() {
            return false;
        }
        own.end();
        let time = own.clock(time);
        self.tell(Event::End { direction, time }, scope);
        true
    }

    fn fin<H: Handler<Connection = C>>(
        &mut self,
        direction: Direction,
        segment: &Segment<'_>,
        ack: Option<u64>,
        scope: &mut Scope<'_, H>,
    ) {
        let length = segment.payload.len() as u64 + u64::from(segment.missing);
        let seq = segment.seq.wrapping_add(u32::from(segment.flags.has(TcpFlags::SYN)));
        let followed = self.phase == Phase::Followed;
        let own = self.stream(direction);
        own.anchor(seq);
        if !followed {
            own.end();
            return;
        }
        let offset = match own.place(seq) {
            Place::Next { skip } => (own.next() + length).saturating_sub(skip),
            Place::Ahead { offset } => offset + length,
            Place::Stray => return,
        };
        // `next` already counts this segment's bytes when they were handed on.
        let time = segment.time;
        own.announce(Fin { offset, time, ack });
        self.drain(scope);
    }

    fn deliver<H: Handler<Connection = C>>(
        &mut self,
        direction: Direction,
        time: Timestamp,
        ack: Option<u64>,
        bytes: &[u8],
        missing: u32,
        scope: &mut Scope<'_, H>,
    ) {
        let own = self.stream(direction);
        let (offset, time) = (own.next(), own.clock(time));
        if !bytes.is_empty() {
            own.take(bytes);
            self.tell(Event::Data(Chunk { direction, time, offset, ack, bytes }), scope);
        }
        if missing > 0 {
            self.gap(direction, u64::from(missing), time, scope);
        }
    }

    fn gap<H: Handler<Connection = C>>(
        &mut self,
        direction: Direction,
        length: u64,
        now: Timestamp,
        scope: &mut Scope<'_, H>,
    ) {
        scope.stats.gaps += 1;
        scope.stats.gap_bytes += length;
        let own = self.stream(direction);
        own.advance(length);
        let time = own.clock(now);
        self.tell(Event::Gap { direction, length, time }, scope);
    }

    fn tell<H: Handler<Connection = C>>(&mut self, event: Event<'_>, scope: &mut Scope<'_, H>) {
        if self.phase == Phase::Followed
            && scope.handler.handle(&mut self.connection, event) == Interest::Ignore
        {
            self.phase = Phase::Ignored;
            self.to_server.clear();
            self.to_client.clear();
        }
    }

    /// Which way a segment of this flow travels.
    pub(super) fn direction(&self, from_low: bool) -> Direction {
        if from_low == self.client_low { Direction::ToServer } else { Direction::ToClient }
    }

    fn stream(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// Whom a first segment that travels in `direction` comes from and goes to.
pub(super) fn peers(segment: &Segment<'_>, direction: Direction) -> Peers {
    let (client, server) = match direction {
        Direction::ToServer => (segment.source, segment.destination),
        Direction::ToClient => (segment.destination, segment.source),
    };
    Peers { client, server, joined: !segment.flags.has(TcpFlags::SYN) }
}
