//! The only place that wires stages together: starts them in order, waits for the end, and stops them in order.
//!
//! Holds no logic of a stage. Starting: runtime, kernel, stages behind the backlog, admin, shards, heartbeat. Ending:
//! the kernel stops copying, the shards drain their rings and finish, the backlog empties, and replays under way get
//! a deadline.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState, Readiness, SwitchFile};
use crate::backlog::{self, MAX_QUEUED};
use crate::capture::interfaces::Device;
use crate::capture::kernel::{KernelCapture, RingSource};
use crate::capture::{Counters, interfaces};
use crate::cli::Exit;
use crate::compare::Comparer;
use crate::compare::endpoint::Endpoints;
use crate::config::{Config, Limits};
use crate::control::Control;
use crate::ledger::Ledger;
use crate::metrics::{Metrics, ReplayState, Sources};
use crate::policy::mask::Masker;
use crate::policy::select::Selector;
use crate::replay::{self, Replayer};
use crate::report::{Outcome, Report};
use crate::shard::{self, Links, Pipeline, PipelineSettings};

mod follow;
mod heartbeat;
mod line;
mod publish;
mod signals;
pub mod status;
mod wreck;

use follow::Following;
use heartbeat::Pulse;
use line::Line;
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
    let devices = interfaces::resolve(&config.capture)?;
    options.report.as_deref().map_or(Ok(()), publish::check_writable)?;
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cpus / 4).clamp(1, MAX_WORKERS))
        .max_blocking_threads(BLOCKING)
        .thread_name("runtime")
        .enable_all()
        .build()
        .context("the asynchronous runtime could not be started")?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let control = Control::new(config.enabled && !disabled_by_operator(options)?);
    let (kernel, sources) = KernelCapture::start(&config.capture, &devices, control.enabled())?;
    let kernel = Arc::new(kernel);
    let carried = Arc::clone(&kernel);
    control.carry(move |enabled| carried.set_enabled(enabled));
    let line = build_line(config, options, &runtime, &control, sources.len())?;
    let readiness = Readiness::new();
    let capturing = readiness.latch("capture");
    let admin = serve(config, options, &line, &kernel, readiness)?;
    let mut capture = Capturing::start(config, &line, &kernel, sources, &runtime)?;
    let following = Following::start(Arc::clone(&kernel), config.capture.clone(), devices.clone())
        .context("the thread that follows interfaces could not be started")?;
    capturing.release();
    announce(&devices, &line, admin.as_ref());

    let ended = runtime.block_on(async {
        let live = tokio::spawn(status::show(Arc::clone(&line.report), Arc::clone(&line.ledger)));
        let ended = tokio::select! {
            () = signals.stop() => Ok(()),
            () = after(options.duration) => Ok(()),
            Some(error) = capture.broken.recv() => Err(error),
            // It ends only after the shards, unless it panics.
            _ = &mut capture.driving => Err(wreck::panicked("the thread that decides about exchanges")),
        };
        live.abort();
        ended
    });
    status::clear();
    following.finish();
    if let Err(error) = kernel.detach() {
        tracing::error!(%error, "the kernel programs could not be detached; they end with this process");
    }
    capture.finish();
    runtime.block_on(drain(&line, capture.driving, &mut signals));

    let summary = line.report.summary(&line.ledger.snapshot(), &counters(&kernel));
    let published = publish::publish(&summary, options.report.as_deref());
    if let Some(admin) = admin {
        admin.shutdown();
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    // Why the run broke down matters more than where its summary could not be written.
    ended.and(published)?;
    Ok(match summary.verdict.outcome {
        Outcome::Fail if options.gate => Exit::Fail,
        Outcome::Insufficient if options.gate => Exit::Insufficient,
        _ => Exit::Success,
    })
}

/// The stages behind the backlog, ready to take exchanges.
fn build_line(
    config: &Config,
    options: &Options,
    runtime: &Runtime,
    control: &Control,
    shards: usize,
) -> anyhow::Result<Arc<Line>> {
    let masker = Arc::new(Masker::new(&config.mask, config.replay.credentials)?);
    let settings = replay::Settings {
        mark: config.capture.mark,
        body_limit: config.limits.body,
        held_limit: config.limits.total_buffer / 4,
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
    line: &Arc<Line>,
    kernel: &Arc<KernelCapture>,
    readiness: Readiness,
) -> anyhow::Result<Option<admin::Server>> {
    let kernel = Arc::clone(kernel);
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
    };
    let metrics = Arc::new(Metrics::new(sources.clone())?);
    let switch = options.switch.clone();
    Ok(admin::Server::start(&config.admin, AdminState { sources, metrics, readiness, switch })?)
}

/// Everything between the rings and the backlog.
struct Capturing {
    stop: Arc<AtomicBool>,
    shards: Vec<JoinHandle<()>>,
    heartbeat: Option<JoinHandle<()>>,
    /// Where a shard says that its source broke down.
    broken: mpsc::Receiver<anyhow::Error>,
    driving: tokio::task::JoinHandle<()>,
}

impl Capturing {
    fn start(
        config: &Config,
        line: &Arc<Line>,
        kernel: &Arc<KernelCapture>,
        sources: Vec<RingSource>,
        runtime: &Runtime,
    ) -> anyhow::Result<Capturing> {
        let stop = Arc::new(AtomicBool::new(false));
        let count = sources.len();
        let pulse = Pulse::new(count);
        // One bound for all bytes held: half of it for what is being rebuilt, a quarter for what is being replayed, and
        // a quarter for the answers to that.
        let half = config.limits.total_buffer / 2;
        let limits = Limits { total_buffer: half, ..config.limits.clone() };
        let (backlog, receiver) = backlog::backlog(MAX_QUEUED, half / 2);
        let (failed, broken) = mpsc::channel(count.max(1));
        let driving = runtime.spawn(Arc::clone(line).drive(receiver));
        let shards = sources.into_iter().enumerate().map(|(shard, source)| {
            let seed = fastrand::u64(..);
            let settings = PipelineSettings::new(&limits, &config.capture.ports, count, seed);
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
        let heartbeat = heartbeat::spawn(pulse, Arc::clone(&stop), move || beating.beat())
            .context("the heartbeat thread could not be started")?;
        Ok(Capturing { stop, shards, heartbeat: Some(heartbeat), broken, driving })
    }

    /// Lets every shard empty its ring and close its books, and ends the threads.
    fn finish(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.shards.drain(..).chain(self.heartbeat.take()) {
            if thread.join().is_err() {
                tracing::error!("a capture thread panicked; what it held is missing from the ledger");
            }
        }
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

fn announce(devices: &[Device], line: &Line, admin: Option<&admin::Server>) {
    let devices: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    let targets: Vec<_> = line.replayer.targets().iter().map(|target| target.name.as_str()).collect();
    let admin = admin.map(|admin| admin.local_addr().to_string()).unwrap_or_else(|| "off".to_owned());
    tracing::info!(interfaces = devices.join(","), targets = targets.join(","), admin, "capturing");
}
