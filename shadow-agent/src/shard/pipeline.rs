//! Reassembly and HTTP joined: segments in, one [`Event`] out for each exchange met. Pure.

use crate::capture::{Direction, Segment};
use crate::config::{Limits, Share};
use crate::exchange::Timestamp;
use crate::http::{self, Connection, Context, Event, Ids};
use crate::tcp::{self, Ending, FlowTable, Handler, Interest, Load, Peers};

/// What one [`Pipeline`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineSettings {
    /// The bounds of reassembly.
    pub tcp: tcp::Settings,
    /// The bounds of exchanges.
    pub http: http::Settings,
    /// Random, and different for every shard of every run: exchanges and connections are numbered from here.
    pub seed: u64,
}

impl PipelineSettings {
    /// The share of `limits` that one of so many shards gets; flows are sampled with the seed 0.
    #[must_use]
    pub fn new(limits: &Limits, ports: &[(u16, u16)], shards: usize, seed: u64) -> PipelineSettings {
        let shards = shards.max(1);
        let tcp = tcp::Settings {
            flows: (limits.flows / shards).max(1),
            flow_buffer: limits.flow_buffer,
            total_buffer: limits.total_buffer / shards,
            gap_wait: tcp::Settings::GAP_WAIT,
            idle: tcp::Settings::IDLE.max(limits.exchange_timeout),
            linger: tcp::Settings::LINGER,
            ports: ports.to_vec(),
            seed: 0,
        };
        let http = http::Settings { body: limits.body, exchange_timeout: limits.exchange_timeout };
        PipelineSettings { tcp, http, seed }
    }
}

/// What a [`Pipeline`] counted since it was made, and where it stands.
///
/// `seen = exchanges + skipped + lost + open` holds whenever it can be read; `open` is counted in the flows themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Exchanges whose first byte was met.
    pub seen: u64,
    /// Exchanges given whole.
    pub exchanges: u64,
    /// Exchanges skipped; a connection skipped as a whole is one, beside those open on it.
    pub skipped: u64,
    /// Exchanges lost.
    pub lost: u64,
    /// Segments, bytes, flows, and what is open and buffered now.
    pub tcp: tcp::Stats,
}

impl Stats {
    /// Exchanges open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.tcp.open as u64
    }

    /// By how many exchanges the books are off. Must be 0.
    #[must_use]
    pub fn imbalance(&self) -> u64 {
        self.seen.abs_diff(self.exchanges + self.skipped + self.lost + self.open())
    }
}

/// Reassembly and HTTP of one shard.
#[derive(Debug)]
pub struct Pipeline {
    flows: FlowTable<Connection>,
    settings: http::Settings,
    ids: Ids,
    stats: Stats,
}

impl Pipeline {
    /// A pipeline that has seen nothing yet.
    #[must_use]
    pub fn new(settings: &PipelineSettings) -> Pipeline {
        Pipeline {
            flows: FlowTable::new(settings.tcp.clone()),
            settings: settings.http.clone(),
            ids: Ids::new(settings.seed),
            stats: Stats::default(),
        }
    }

    /// Takes one segment, and gives what it completes.
    pub fn segment(&mut self, segment: &Segment<'_>, emit: &mut dyn FnMut(Event)) {
        self.with(emit, |flows, handler| flows.segment(segment, handler));
    }

    /// Tells the time, on the clock of the segments, so that waits end although no segment comes.
    pub fn tick(&mut self, now: Timestamp, emit: &mut dyn FnMut(Event)) {
        self.with(emit, |flows, handler| flows.tick(now, handler));
    }

    /// From now on follows flows in a sample of that share only; what is open in others is lost.
    pub fn set_sample(&mut self, share: Share, emit: &mut dyn FnMut(Event)) {
        self.with(emit, |flows, handler| flows.set_sample(share, handler));
    }

    /// Ends everything that is open, for that reason. Connections that go on are joined again like new ones.
    pub fn finish(&mut self, ending: Ending, emit: &mut dyn FnMut(Event)) {
        self.with(emit, |flows, handler| flows.finish(ending, handler));
    }

    /// What was counted so far, and where it stands.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { tcp: self.flows.stats(), ..self.stats }
    }

    fn with(
        &mut self,
        emit: &mut dyn FnMut(Event),
        act: impl FnOnce(&mut FlowTable<Connection>, &mut Http<'_>),
    ) {
        let Stats { seen, exchanges, skipped, lost, .. } = &mut self.stats;
        let mut count = |event: Event| {
            match event {
                Event::Exchange(_) => *exchanges += 1,
                Event::Skipped(_) => *skipped += 1,
                Event::Lost(_) => *lost += 1,
            }
            emit(event);
        };
        let context = Context { settings: &self.settings, ids: &mut self.ids, seen, emit: &mut count };
        act(&mut self.flows, &mut Http(context));
    }
}

/// HTTP as the handler of what `tcp` finds.
struct Http<'a>(Context<'a>);

impl Handler for Http<'_> {
    type Connection = Connection;

    fn open(&mut self, peers: &Peers) -> Connection {
        Connection::new(self.0.ids.connection(), peers)
    }

    fn handle(&mut self, connection: &mut Connection, event: tcp::Event<'_>) -> Interest {
        connection.handle(event, &mut self.0)
    }

    fn load(&self, connection: &Connection) -> Load {
        connection.load()
    }

    fn guess(&self, payload: &[u8]) -> Option<Direction> {
        http::direction(payload)
    }
}
