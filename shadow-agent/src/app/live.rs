//! A run on live traffic.
//!
//! Starting: whatever needs privileges, kernel, devices; without those privileges runtime, stages behind the backlog,
//! admin, shards, heartbeat. Ending: the kernel stops copying, the shards drain their rings and finish, the backlog
//! empties, and replays under way get a deadline.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;

use super::follow::Following;
use super::guard::CpuGuard;
use super::heartbeat::{self, Pulse};
use super::line::Line;
use super::publish::Place;
use super::signals::{self, Signals};
use super::wreck::{self, Witness};
use super::{
    Bounds, Ended, Observed, Options, Sockets, bounds, build_line, conclude, disabled_by_operator, drain,
    files, join, look_for_standstill, runtime, serve, status,
};
use crate::admin::{self, Door, Readiness, SwitchFile};
use crate::backlog::{self, MAX_QUEUED};
use crate::capture::kernel::{KernelCapture, RingSource};
use crate::capture::{Counters, interfaces};
use crate::cli::Exit;
use crate::config::Config;
use crate::control::Control;
use crate::guard::Readings;
use crate::privileges;
use crate::replay::Registrar;
use crate::shard::{self, Links, Pipeline, PipelineSettings};
use crate::terminal;

/// Runs the agent until it is told to stop, and says how it ended.
///
/// # Errors
/// When a stage cannot start, or capture breaks down; the message is one sentence with the remedy.
pub(super) fn run(config: &Config, options: &Options) -> anyhow::Result<Exit> {
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
    let runtime = runtime()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let carried = Arc::clone(&kernel);
    control.carry(move |state| {
        carried.set_enabled(state.enabled);
        carried.set_sample(state.sample);
    });
    // Loading and attaching took a while.
    kernel.beat();
    let sockets = Sockets { mark: config.capture.mark, own: own_sockets(&kernel) };
    let line = build_line(config, options, &runtime, &control, sockets, sources.len())?;
    let cpu = Arc::new(Readings::default());
    let admin = door.map(|door| serve(door, config, options, &line, observed(&kernel), &cpu, readiness));
    let admin = admin.transpose()?;
    let driving = |backlog| runtime.spawn(Arc::clone(&line).drive(backlog));
    let mut capture = Capturing::start(config, &line, &kernel, sources, driving, cpu, &failed)?;
    capturing.release();
    announce(&kernel, &line, admin.as_ref());

    let ended = runtime.block_on(async {
        let live = tokio::spawn(status::show(Arc::clone(&line.report), Arc::clone(&line.ledger), None));
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

    let counters = counters(&kernel);
    conclude(Ended { runtime, signals, line: &line, admin, report, ended }, &counters, options)
}

/// Has the kernel programs leave alone what passes the replayer's sockets.
fn own_sockets(kernel: &KernelCapture) -> Registrar {
    let own = kernel.own_sockets();
    Registrar::new(move |local| own.register(local).map_err(io::Error::other))
}

/// What the kernel shows of itself.
fn observed(kernel: &Arc<KernelCapture>) -> Observed {
    let (counting, attached) = (Arc::clone(kernel), Arc::clone(kernel));
    Observed {
        counters: Arc::new(move || counters(&counting)),
        interfaces: Arc::new(move || attached.attached()),
    }
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
        drive: impl FnOnce(backlog::Receiver) -> tokio::task::JoinHandle<()>,
        cpu: Arc<Readings>,
        failed: &mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Capturing> {
        let stop = Arc::new(AtomicBool::new(false));
        let count = sources.len();
        let pulse = Pulse::new(count);
        let Bounds { rebuilt, backlog } = bounds(&config.limits);
        let (backlog, receiver) = backlog::backlog(MAX_QUEUED, backlog);
        let driving = drive(receiver);
        let shards = sources.into_iter().enumerate().map(|(shard, source)| {
            let seed = fastrand::u64(..);
            let mut settings = PipelineSettings::new(&rebuilt, &config.capture.ports, count, seed);
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
            look_for_standstill(&moving, "the kernel stops copying after 2 s of that, and ");
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
