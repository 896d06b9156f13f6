//! Builds the stages behind the backlog from a configuration, anew or from parts of a line in force.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, Runtime};
use tokio_util::task::TaskTracker;

use super::keeping::Keeping;
use super::line::Line;
use crate::compare::Comparer;
use crate::compare::endpoint::Endpoints;
use crate::config::{Config, Stateful, writes};
use crate::control::Control;
use crate::exchange::TargetInfo;
use crate::guard::Vitals;
use crate::ledger::Ledger;
use crate::policy::adaptive::Adaptive;
use crate::policy::mask::Masker;
use crate::policy::select::Selector;
use crate::policy::session::Sessions;
use crate::policy::tokens::Tokens;
use crate::replay::{self, Courier, Registrar, Replayer};
use crate::report::{self, Report};
use crate::runs::{Mark, Run};
use crate::traces::{Contexts, Exporter, TracesError};

/// How long a request of a session waits for others of it that began earlier: they may come from another shard, which was
/// not woken yet.
const SETTLE: Duration = Duration::from_millis(50);

/// What is different for those who replay, by where exchanges come from.
pub(super) struct Origin {
    /// How the replayer's sockets are told from others.
    pub(super) mark: u32,
    pub(super) own: Registrar,
    /// How many threads rebuild exchanges.
    pub(super) shards: usize,
    /// Whether they come from a file, in which they may stand masked.
    pub(super) recorded: bool,
}

/// What every line of an agent stands on, whatever its configuration.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) runtime: Handle,
    pub(super) control: Control,
    pub(super) ledger: Arc<Ledger>,
    pub(super) tasks: TaskTracker,
    pub(super) mark: u32,
    pub(super) own: Registrar,
    pub(super) recorded: bool,
    /// The same for every line, so that a request and its span agree whichever line sent it.
    pub(super) traces: Contexts,
    pub(super) spans: Option<Arc<Exporter>>,
    /// What guards look at.
    pub(super) vitals: Arc<Vitals>,
    /// How the replays of a second are spread over the endpoints, and the moment from which they count.
    pub(super) budget: Option<Arc<Mutex<Adaptive>>>,
    pub(super) begun: Instant,
}

impl Ground {
    pub(super) fn new(
        config: &Config,
        runtime: &Runtime,
        control: &Control,
        origin: Origin,
    ) -> anyhow::Result<Ground> {
        let targets = config.replay.targets.iter().chain(&config.replay.baseline).count();
        Ok(Ground {
            runtime: runtime.handle().clone(),
            traces: Contexts::new(config.traces.context, fastrand::u64(..)),
            spans: spans(config, &origin, runtime)?,
            vitals: Arc::new(Vitals::new(&config.guards, targets)),
            budget: adaptive(config).filter(|_| !origin.recorded).map(|budget| Arc::new(Mutex::new(budget))),
            begun: Instant::now(),
            control: control.clone(),
            ledger: Arc::new(Ledger::new(origin.shards, targets)),
            tasks: TaskTracker::new(),
            mark: origin.mark,
            own: origin.own,
            recorded: origin.recorded,
        })
    }
}

/// What sends requests, and what must agree with it about sessions and tokens.
#[derive(Clone)]
pub(super) struct Sending {
    pub(super) replayer: Arc<Replayer>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) tokens: Option<Arc<Tokens>>,
}

impl Sending {
    fn start(config: &Config, ground: &Ground) -> anyhow::Result<Sending> {
        let replay = &config.replay;
        let tokens =
            if replay.tokens.is_empty() { None } else { Some(Arc::new(Tokens::new(&replay.tokens)?)) };
        let settings = replay::Settings {
            mark: ground.mark,
            body_limit: config.limits.body,
            held_limit: config.limits.total_buffer / 4,
            own: ground.own.clone(),
            lookup: replay::Lookup::system(),
            traces: ground.traces,
            settle: if ground.recorded { Duration::ZERO } else { SETTLE },
            tokens: tokens.clone(),
        };
        let _inside = ground.runtime.enter();
        let replayer = Arc::new(Replayer::start(replay, &settings, ground.control.clone())?);
        Ok(Sending { replayer, sessions: Arc::new(Sessions::new(&replay.order)?), tokens })
    }
}

/// The stages behind the backlog, ready to take exchanges. Those of a line in force are kept where `keep` has them, and so
/// are its run and the files it writes.
pub(super) fn build_line(
    config: &Config,
    ground: &Ground,
    label: &str,
    keep: Option<&Keep>,
) -> anyhow::Result<Line> {
    warn_of_writes(config);
    let masker = match keep.and_then(|keep| keep.masker.clone()) {
        Some(masker) => masker,
        None => {
            let targets = config.replay.targets.iter().chain(&config.replay.baseline);
            let masker = Masker::new(&config.mask, config.replay.credentials)?;
            Arc::new(masker.replacing(targets.map(|target| &target.credentials)))
        }
    };
    let sending = match keep.and_then(|keep| keep.sending.clone()) {
        Some(sending) => sending,
        None => Sending::start(config, ground)?,
    };
    let run = match keep {
        Some(keep) => Arc::clone(&keep.run),
        None => Arc::new(Run::new(new_report(config, sending.replayer.targets(), label), Mark::default())),
    };
    let keeping = match keep {
        Some(keep) => Arc::clone(&keep.keeping),
        None => Arc::new(start_keeping(config, ground, &masker, &run)?),
    };
    let Sending { replayer, sessions, tokens } = sending;
    Ok(Line {
        selector: Arc::new(Selector::new(&config.select, config.replay.credentials)?),
        comparer: Arc::new(Comparer::new(&config.compare, Arc::clone(&masker), config.limits.body)?),
        endpoints: Arc::new(Endpoints::new(&config.compare)?),
        ledger: Arc::clone(&ground.ledger),
        keeping,
        sessions,
        tokens,
        timeouts: config.replay.targets.iter().chain(&config.replay.baseline).map(|t| t.timeout).collect(),
        control: ground.control.clone(),
        tasks: ground.tasks.clone(),
        recorded: ground.recorded,
        vitals: Arc::clone(&ground.vitals),
        budget: ground.budget.clone(),
        begun: ground.begun,
        run,
        masker,
        replayer,
        traces: ground.traces,
        spans: ground.spans.clone(),
    })
}

/// What a new line takes over from the one in force.
pub(super) struct Keep {
    pub(super) run: Arc<Run>,
    pub(super) keeping: Arc<Keeping>,
    /// None where what is masked changed, or targets did. With its counts, and the key of its hashes.
    pub(super) masker: Option<Arc<Masker>>,
    /// None where targets changed.
    pub(super) sending: Option<Sending>,
}

/// Starts to write what is recorded only, where there is a place for it. What comes from a file is in one already.
fn start_keeping(
    config: &Config,
    ground: &Ground,
    masker: &Arc<Masker>,
    run: &Arc<Run>,
) -> anyhow::Result<Keeping> {
    let Some(record) = config.select.record.as_ref().filter(|_| !ground.recorded) else {
        return Ok(Keeping::default());
    };
    let clock = Arc::clone(run);
    Keeping::start(record, Arc::clone(masker), Arc::clone(&ground.ledger), move || clock.report().now())
}

pub(super) fn new_report(config: &Config, targets: &[TargetInfo], label: &str) -> Report {
    Report::new(&config.verdict, &config.compare, targets.to_vec(), label)
}

/// Whoever is told the spans, if anyone is.
fn spans(config: &Config, origin: &Origin, runtime: &Runtime) -> anyhow::Result<Option<Arc<Exporter>>> {
    let Some(url) = &config.traces.otlp else { return Ok(None) };
    let courier = Courier::new(url, origin.mark, origin.own.clone());
    let courier = courier.map_err(|error| TracesError::Url { url: url.to_string(), error })?;
    Ok(Some(Arc::new(Exporter::start(url, courier, runtime.handle())?)))
}

/// What spreads the budget of replays over the endpoints, if there is one.
fn adaptive(config: &Config) -> Option<Adaptive> {
    let most = config.compare.max_endpoints.saturating_add(report::OTHERS);
    config.portion.budget.map(|budget| Adaptive::new(budget, most))
}

/// Says once what is written where, if anything is.
fn warn_of_writes(config: &Config) {
    for write in writes::writes(config).iter().filter(|write| write.mode == Stateful::Send) {
        tracing::warn!("unsafe requests will be replayed: {write}");
    }
}
