//! The only place that wires stages together: starts them in order, waits for the end, and stops them in order.
//!
//! Holds no logic of a stage. Starting: whatever needs privileges, kernel, devices; without those privileges runtime,
//! stages behind the backlog, admin, shards, heartbeat. Ending: the kernel stops copying, the shards drain their rings and
//! finish, the backlog empties, and replays under way get a deadline.

use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState, Door, Readiness, SwitchFile};
use crate::backlog::{self, MAX_QUEUED};
use crate::capture::kernel::{KernelCapture, RingSource};
use crate::capture::{Counters, interfaces};
use crate::cli::Exit;
use crate::compare::Comparer;
use crate::compare::endpoint::Endpoints;
use crate::config::{Config, Limits};
use crate::control::Control;
use crate::guard::Readings;
use crate::ledger::Ledger;
use crate::metrics::{Metrics, ReplayState, Sources};
use crate::policy::mask::Masker;
use crate::policy::select::Selector;
use crate::privileges;
use crate::replay::{self, Registrar, Replayer};
use crate::report::{Outcome, Report};
use crate::shard::{self, Links, Pipeline, PipelineSettings};
use crate::terminal;

mod files;
mod follow;
mod guard;
mod heartbeat;
mod line;
mod publish;
mod signals;
mod status;
mod wreck;

use follow::Following;
use guard::CpuGuard;
use heartbeat::Pulse;
use line::Line;
use publish::Place;
use signals::Signals;
use wreck::Witness;

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
}

/// Runs the agent until it is told to stop, and says how it ended.
///
/// # Errors
/// When a stage cannot start, or capture breaks down; the message is one sentence with the remedy.
pub fn run(config: &Config, options: &Options) -> anyhow::Result<Exit> {
    files::raise_limit();
    interfaces::resolve(&config.capture)?;
    let report = options.report.as_deref().map(Place::secure).transpose()?;
    let door = Door::open(&config.admin)?;
    let control = Control::new(config.enabled && !disabled_by_operator(options)?);
    control.set_sample(config.capture.sample);
    signals::hold()?;
    let (kernel, sources) = KernelCapture::start(&config.capture, &[], control.enabled())?;
    let kernel = Arc::new(kernel);
    let readiness = Readiness::new();
    let capturing = readiness.latch("capture");
    let attached =
        readiness.condition(format!("an interface that matches {}", config.capture.interfaces.join(", ")));
    // The one thread that is there before privileges are dropped: it may have to enter a namespace, and drops its own.
    let (failed, mut broken) = mpsc::channel(1);
    let following =
        Following::start(Arc::clone(&kernel), config.capture.clone(), attached, Witness::new(&failed))?;
    // Those to come have no more privileges than this one has from here on.
    let reduction = privileges::drop_after_loading()?;
    tracing::debug!(%reduction, "the kernel programs are loaded");
    options.switch.as_ref().map_or(Ok(()), SwitchFile::check_writable)?;
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cpus / 4).clamp(1, MAX_WORKERS))
        .max_blocking_threads(BLOCKING)
        .thread_name("runtime")
        .enable_all()
        .build()
        .context("the asynchronous runtime could not be started")?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let carried = Arc::clone(&kernel);
    control.carry(move |state| {
        carried.set_enabled(state.enabled);
        carried.set_sample(state.sample);
    });
    // Loading and attaching took a while.
    kernel.beat();
    let line = build_line(config, options, &runtime, &control, own_sockets(&kernel), sources.len())?;
    let cpu = Arc::new(Readings::default());
    let admin = serve(config, options, door, &line, &kernel, &cpu, readiness)?;
    let mut capture = Capturing::start(config, &line, &kernel, sources, &runtime, cpu, &failed)?;
    capturing.release();
    announce(&kernel, &line, admin.as_ref());

    let ended = runtime.block_on(async {
        let live = tokio::spawn(status::show(Arc::clone(&line.report), Arc::clone(&line.ledger)));
        let ended = tokio::select! {
            () = signals.stop() => Ok(()),
            () = after(options.duration) => Ok(()),
            Some(error) = broken.recv() => Err(error),
            // It ends only after the shards, unless it panics.
            _ = &mut capture.driving => Err(wreck::panicked("the thread that decides about exchanges")),
        };
        live.abort();
        ended
    });
    terminal::clear();
    following.finish();
    capture.finish(&control);
    runtime.block_on(drain(&line, capture.driving, &mut signals));

    let summary = line.report.summary(&line.ledger.snapshot(), &counters(&kernel));
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

/// Has the kernel programs leave alone what passes the replayer's sockets.
fn own_sockets(kernel: &KernelCapture) -> Registrar {
    let own = kernel.own_sockets();
    Registrar::new(move |local| own.register(local).map_err(io::Error::other))
}

/// The stages behind the backlog, ready to take exchanges.
fn build_line(
    config: &Config,
    options: &Options,
    runtime: &Runtime,
    control: &Control,
    own: Registrar,
    shards: usize,
) -> anyhow::Result<Arc<Line>> {
    let masker = Arc::new(Masker::new(&config.mask, config.replay.credentials)?);
    let settings = replay::Settings {
        mark: config.capture.mark,
        body_limit: config.limits.body,
        held_limit: config.limits.total_buffer / 4,
        own,
    };
    let replayer = {
        let _inside = runtime.enter();
        Replayer::start(&config.replay, &settings, control.clone())?
    };
    let targets = replayer.targets().to_vec();
    let label = options.label.clone().unwrap_or_default();
    Ok(Arc::new(Line {
        selector: Selector::new(&config.select, config.replay.credentials)?,
        comparer: Comparer::new(&config.compare, Arc::clone(&masker), config.limits.body)?,
        endpoints: Endpoints::new(&config.compare)?,
        ledger: Arc::new(Ledger::new(shards, targets.len())),
        report: Arc::new(Report::new(&config.verdict, &config.compare, targets, label)),
        timeouts: config.replay.targets.iter().chain(&config.replay.baseline).map(|t| t.timeout).collect(),
        control: control.clone(),
        tasks: TaskTracker::new(),
        masker,
        replayer,
    }))
}

/// Whether someone disabled capture, and nobody enabled it since.
fn disabled_by_operator(options: &Options) -> anyhow::Result<bool> {
    let disabled = options.switch.as_ref().map(SwitchFile::disabled).transpose()?.unwrap_or(false);
    if disabled {
        tracing::warn!("an operator disabled capture, and it stays disabled until `shadow-agent ctl enable`");
    }
    Ok(disabled)
}

fn serve(
    config: &Config,
    options: &Options,
    door: Option<Door>,
    line: &Arc<Line>,
    kernel: &Arc<KernelCapture>,
    cpu: &Arc<Readings>,
    readiness: Readiness,
) -> anyhow::Result<Option<admin::Server>> {
    let Some(door) = door else { return Ok(None) };
    let (kernel, attached) = (Arc::clone(kernel), Arc::clone(kernel));
    let replaying = Arc::clone(line);
    let sources = Sources {
        ledger: Arc::clone(&line.ledger),
        report: Arc::clone(&line.report),
        control: line.control.clone(),
        kernel: Arc::new(move || counters(&kernel)),
        replay: Arc::new(move || {
            let lengths = replaying.replayer.queue_lengths().into_iter();
            let states = lengths.zip(replaying.replayer.breakers_open());
            states.map(|(queue, breaker_open)| ReplayState { queue: queue as u64, breaker_open }).collect()
        }),
        sample: config.capture.sample,
        interfaces: Arc::new(move || attached.attached()),
        cpu: Arc::clone(cpu),
        cpu_limit: config.limits.cpu,
    };
    let metrics = Arc::new(Metrics::new(sources.clone())?);
    let switch = options.switch.clone();
    Ok(Some(admin::Server::start(door, AdminState { sources, metrics, readiness, switch })?))
}

/// Everything between the rings and the backlog.
struct Capturing {
    stop: Arc<AtomicBool>,
    shards: Vec<JoinHandle<()>>,
    heartbeat: Option<JoinHandle<()>>,
    driving: tokio::task::JoinHandle<()>,
}

impl Capturing {
    fn start(
        config: &Config,
        line: &Arc<Line>,
        kernel: &Arc<KernelCapture>,
        sources: Vec<RingSource>,
        runtime: &Runtime,
        cpu: Arc<Readings>,
        failed: &mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Capturing> {
        let stop = Arc::new(AtomicBool::new(false));
        let count = sources.len();
        let pulse = Pulse::new(count);
        // One bound for all bytes held: half of it for what is being rebuilt, a quarter for what is being replayed, and
        // a quarter for the answers to that.
        let half = config.limits.total_buffer / 2;
        let limits = Limits { total_buffer: half, ..config.limits.clone() };
        let (backlog, receiver) = backlog::backlog(MAX_QUEUED, half / 2);
        let driving = runtime.spawn(Arc::clone(line).drive(receiver));
        let shards = sources.into_iter().enumerate().map(|(shard, source)| {
            let seed = fastrand::u64(..);
            let mut settings = PipelineSettings::new(&limits, &config.capture.ports, count, seed);
            settings.tcp.seed = config.capture.seed;
            let pipeline = Pipeline::new(&settings);
            let (stop, pulse, control) = (Arc::clone(&stop), pulse.clone(), line.control.clone());
            let (ledger, backlog, failed) = (Arc::clone(&line.ledger), backlog.clone(), failed.clone());
            thread::Builder::new()
                .name(format!("shard-{shard}"))
                .spawn(move || {
                    let _witness = Witness::new(&failed);
                    let beat = || pulse.tick(shard);
                    let (ledger, backlog, control, stop) = (&*ledger, &backlog, &control, &*stop);
                    let links = Links { shard, ledger, backlog, control, stop };
                    if let Err(error) = shard::run(source, pipeline, &links, beat) {
                        // One report is enough to end the run.
                        let _ = failed.try_send(anyhow!(error).context("capture broke down"));
                    }
                })
                .context("a shard thread could not be started")
        });
        let shards = shards.collect::<anyhow::Result<Vec<_>>>()?;
        let beating = Arc::clone(kernel);
        let mut guard = CpuGuard::new(config, line.control.clone(), cpu);
        let moving = line.control.clone();
        let guarding = move || {
            if let Some(stood) = moving.standstill().turn(Instant::now()) {
                tracing::warn!(
                    "the agent stood still for {:.1} s (stopped, frozen or starved of CPU time): the kernel stops copying \
                     after 2 s of that, and replays under way are not held against their targets",
                    stood.as_secs_f64()
                );
            }
            guard.look();
        };
        let witness = Witness::new(failed);
        let heartbeat = heartbeat::spawn(pulse, Arc::clone(&stop), witness, move || beating.beat(), guarding)
            .context("the heartbeat thread could not be started")?;
        Ok(Capturing { stop, shards, heartbeat: Some(heartbeat), driving })
    }

    /// Lets every shard empty its ring and close its books, and ends the threads.
    fn finish(&mut self, control: &Control) {
        self.stop.store(true, Ordering::Release);
        if let Some(heartbeat) = self.heartbeat.take() {
            join(heartbeat);
        }
        // That thread took the turns; replays under way may yet take longer than a standstill.
        control.standstill().rest();
        self.shards.drain(..).for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a capture thread panicked; what it held is missing from the ledger");
    }
}

/// Waits until the backlog is empty and every exchange is judged; gives up at [`DRAIN`] or at a second signal.
async fn drain(line: &Line, driving: tokio::task::JoinHandle<()>, signals: &mut Signals) {
    let judged = async {
        if !driving.is_finished() {
            let _ = driving.await;
        }
        line.tasks.close();
        line.tasks.wait().await;
    };
    let in_time = tokio::select! {
        () = judged => true,
        () = tokio::time::sleep(DRAIN) => false,
        () = signals.stop() => false,
    };
    line.replayer.shutdown(Duration::ZERO).await;
    if !in_time {
        tracing::warn!("replays that were still under way were given up; they are counted as `shutdown`");
        line.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), line.tasks.wait()).await;
    }
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn counters(kernel: &KernelCapture) -> Counters {
    kernel.counters().unwrap_or_else(|error| {
        tracing::error!(%error, "the kernel's counters could not be read");
        Counters::default()
    })
}

fn announce(kernel: &KernelCapture, line: &Line, admin: Option<&admin::Server>) {
    let devices: Vec<_> = kernel.attached().into_iter().map(|attached| attached.device).collect();
    let targets: Vec<_> = line.replayer.targets().iter().map(|target| target.name.as_str()).collect();
    let admin = admin.map(|admin| admin.local_addr().to_string()).unwrap_or_else(|| "off".to_owned());
    tracing::info!(interfaces = devices.join(","), targets = targets.join(","), admin, "capturing");
}
