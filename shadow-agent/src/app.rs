//! The only place that wires stages together: starts them in order, waits for the end, and stops them in order.
//!
//! Holds no logic of a stage. `live` takes traffic from the kernel, `offline` from a file. What replays behind the backlog is
//! the same for both, and here; `recording` has files there instead.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Runtime;

use crate::admin::{self, AdminState, Door, KillSwitch, Operate, Readiness, SwitchFile};
use crate::audit::{self, Action, Actor, Audit};
use crate::capture::Counters;
use crate::capture::file::FileSource;
use crate::capture::kernel::Attached;
use crate::cli::Exit;
use crate::config::{Config, Limits, Stateful, writes};
use crate::control::Control;
use crate::guard::Readings;
use crate::metrics::{Metrics, ReplayState, Sources};
use crate::record::{self, Recorder};
use crate::report::Outcome;
use crate::shard::PipelineSettings;

mod build;
mod current;
mod files;
mod follow;
mod guard;
mod guards;
mod heartbeat;
mod keeping;
mod line;
mod live;
mod masking;
mod offline;
mod operate;
mod paced;
mod publish;
mod recording;
mod rerecording;
mod signals;
mod status;
mod usr1;
mod wreck;

use current::Current;
pub use paced::Pacing;
use publish::Place;
use signals::Signals;

/// How long the backlog and the replays under way may take after the agent was asked to stop. A service manager must
/// wait longer than this before it kills.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Threads of the runtime: a quarter of the CPUs, and no more than this. One carries what one CPU can replay and compare;
/// a second one was measured to make each replay cost about half as much again (0.30 to 0.44 s for 10,000).
const MAX_WORKERS: usize = 4;

/// Threads that compare large bodies and resolve names; the rest waits, within the bounds of memory.
const BLOCKING: usize = 4;

/// What `run` was asked for beyond the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stops by itself after this time.
    pub duration: Option<Duration>,
    /// Where the summary is written as JSON.
    pub report: Option<PathBuf>,
    /// Whether the exit code is the verdict's.
    pub gate: bool,
    /// The label of the run.
    pub label: Option<String>,
    /// Where an operator's `disable` outlives the agent.
    pub switch: Option<SwitchFile>,
    /// Where the audit log is, if there is one.
    pub audit: Option<audit::Settings>,
}

/// Reads the configuration anew, from where it came from at the start, and checks it likewise.
pub type Loader = Box<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// Mirrors live traffic until it is told to stop, and says how that ended.
///
/// # Errors
/// When a stage cannot start, or capture breaks down; the message is one sentence with the remedy.
pub fn run(config: &Config, options: &Options, loader: Loader) -> anyhow::Result<Exit> {
    live::run(config, options, loader)
}

/// Replays what a file holds, to its end or until it is told to stop, and says how that ended.
///
/// # Errors
/// When a stage cannot start, or the file cannot be read to its end; the message is one sentence with the remedy.
pub fn replay(
    config: &Config,
    options: &Options,
    source: FileSource,
    pacing: Pacing,
) -> anyhow::Result<Exit> {
    offline::replay(config, options, source, pacing)
}

/// Writes what passes to files until it is told to stop, and says how that ended.
///
/// # Errors
/// When a stage cannot start, capture breaks down, or a file cannot be written; the message is one sentence with the
/// remedy.
pub fn record(config: &Config, options: &Options, files: &record::Options) -> anyhow::Result<Exit> {
    recording::record(config, options, files)
}

/// Writes what a file holds to files, to its end or until it is told to stop, and says how that ended.
///
/// # Errors
/// When the file cannot be read to its end, or files cannot be written; the message is one sentence with the remedy.
pub fn record_file(
    source: FileSource,
    settings: PipelineSettings,
    recorder: Recorder,
) -> anyhow::Result<Exit> {
    rerecording::record(source, settings, recorder)
}

/// How one bound for all bytes held is shared.
struct Bounds {
    /// For what is being rebuilt: half of it.
    rebuilt: Limits,
    /// For what is being replayed: a quarter. The last one is for the answers to that.
    backlog: usize,
}

fn bounds(limits: &Limits) -> Bounds {
    let half = limits.total_buffer / 2;
    Bounds { rebuilt: Limits { total_buffer: half, ..limits.clone() }, backlog: half / 2 }
}

fn runtime() -> anyhow::Result<Runtime> {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cpus / 4).clamp(1, MAX_WORKERS))
        .max_blocking_threads(BLOCKING)
        .thread_name("runtime")
        .enable_all()
        .build()
        .context("the asynchronous runtime could not be started")
}

/// Opens the audit log, and says who the first entries are about. With the rights that are left for the whole run, so that
/// later files can be made.
fn start_audit(config: &Config, options: &Options, enabled: bool) -> anyhow::Result<Audit> {
    let audit = match &options.audit {
        Some(settings) => Audit::start(settings)?,
        // Where nobody can change anything, nothing is missing.
        None if config.admin.listen.is_none() => Audit::off(),
        None => {
            tracing::info!(
                "there is no audit log: nobody writes down who changes what this agent does (set audit.path or --state)"
            );
            Audit::off()
        }
    };
    audit.record(Actor::Agent, Action::Started { run: options.label.clone().unwrap_or_default(), enabled });
    if let Some(allowed) = unsafe_methods(config) {
        audit.record(Actor::Config, allowed);
    }
    Ok(audit)
}

/// The unsafe methods that are replayed (RFC 9110, section 9.2.1), and to whom.
fn unsafe_methods(config: &Config) -> Option<Action> {
    let writes = writes::writes(config);
    let sent = || writes.iter().filter(|write| write.mode == Stateful::Send);
    let methods: BTreeSet<_> = sent().flat_map(|write| write.methods.iter().flatten()).cloned().collect();
    let targets: BTreeSet<_> = sent().flat_map(|write| &write.to).map(|target| target.name.clone()).collect();
    let (methods, targets) = (methods.into_iter().collect(), targets.into_iter().collect());
    sent().next().map(|_| Action::UnsafeMethods { methods, targets })
}

/// Whether someone disabled capture, and nobody enabled it since.
fn disabled_by_operator(options: &Options) -> anyhow::Result<bool> {
    let disabled = options.switch.as_ref().map(SwitchFile::disabled).transpose()?.unwrap_or(false);
    if disabled {
        tracing::warn!(
            "an operator or a guard disabled capture, and it stays disabled until `shadow-agent ctl enable`"
        );
    }
    Ok(disabled)
}

/// What the source of segments shows of itself.
struct Observed {
    counters: Arc<dyn Fn() -> Counters + Send + Sync>,
    interfaces: Arc<dyn Fn() -> Vec<Attached> + Send + Sync>,
}

/// Where the admin API finds the figures of the line in force.
fn figures(config: &Config, current: &Arc<Current>, observed: Observed, audit: Audit) -> Sources {
    let replaying = Arc::clone(current);
    let line = current.line();
    Sources {
        ledger: Arc::clone(&line.ledger),
        runs: Arc::clone(current.runs()),
        control: line.control.clone(),
        kernel: observed.counters,
        replay: Arc::new(move || {
            let line = replaying.line();
            let lengths = line.replayer.queue_lengths().into_iter();
            let states = lengths.zip(line.replayer.breakers_open());
            states.map(|(queue, breaker_open)| ReplayState { queue: queue as u64, breaker_open }).collect()
        }),
        interfaces: observed.interfaces,
        spans: {
            let spans = line.spans.clone();
            Arc::new(move || spans.as_ref().map(|spans| spans.figures()))
        },
        cpu: Arc::new(Readings::default()),
        cpu_limit: config.limits.cpu,
        audit,
        guards: Arc::default(),
        masks: {
            let current = Arc::clone(current);
            Arc::new(move || current.line().masker.tallies())
        },
    }
}

fn serve(
    door: Door,
    switch: Arc<KillSwitch>,
    operate: Option<Arc<dyn Operate>>,
    sources: Sources,
    readiness: Readiness,
) -> anyhow::Result<admin::Server> {
    let metrics = Arc::new(Metrics::new(sources.clone())?);
    Ok(admin::Server::start(door, AdminState { sources, metrics, readiness, switch, operate })?)
}

/// Takes a turn by which a standstill is noticed, and says so if there was one.
fn look_for_standstill(control: &Control, also: &str) {
    if let Some(stood) = control.standstill().turn(Instant::now()) {
        tracing::warn!(
            "the agent stood still for {:.1} s (stopped, frozen or starved of CPU time): {also}replays under way are \
             not held against their targets",
            stood.as_secs_f64()
        );
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a capture thread panicked; what it held is missing from the ledger");
    }
}

/// Waits until the backlog is empty and every exchange is judged; gives up at [`DRAIN`] or at a second signal.
async fn drain<T>(current: &Current, driving: tokio::task::JoinHandle<T>, signals: &mut Signals) {
    let line = current.line();
    let judged = async {
        if !driving.is_finished() {
            let _ = driving.await;
        }
        line.tasks.close();
        line.tasks.wait().await;
        line.keeping.finish().await;
    };
    let in_time = tokio::select! {
        () = judged => true,
        () = tokio::time::sleep(DRAIN) => false,
        () = signals.stop() => false,
    };
    current.shutdown().await;
    if !in_time {
        tracing::warn!("replays that were still under way were given up; they are counted as `shutdown`");
        line.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), line.tasks.wait()).await;
    }
    if let Some(spans) = &line.spans {
        spans.finish().await;
    }
}

/// What is there when everything has come to its end.
struct Ended<'a> {
    runtime: Runtime,
    signals: Signals,
    current: &'a Current,
    admin: Option<admin::Server>,
    report: Option<Place>,
    /// Why it ended, if that is an error.
    ended: anyhow::Result<()>,
}

/// Publishes the summary, and gives the exit code.
fn conclude(end: Ended<'_>, counters: &Counters, options: &Options) -> anyhow::Result<Exit> {
    let Ended { runtime, mut signals, current, admin, report, ended } = end;
    let mut summary = current.runs().current().summary(current.snapshot(), counters.clone());
    summary.count_masked(&current.line().masker.tallies());
    let outcome = summary.verdict.outcome;
    let published = runtime.block_on(publish::unless_given_up(summary, report, signals.stop()));
    if let Some(admin) = admin {
        admin.shutdown();
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    // Why the run broke down matters more than where its summary could not be written.
    ended.and(published)?;
    Ok(match outcome {
        Outcome::Fail if options.gate => Exit::Fail,
        Outcome::Insufficient if options.gate => Exit::Insufficient,
        _ => Exit::Success,
    })
}
