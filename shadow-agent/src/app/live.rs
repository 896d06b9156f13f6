//! Live traffic: everything from the kernel to the backlog, and a run, which replays it.
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
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::build::{Ground, Origin, build_line};
use super::current::Current;
use super::follow::Following;
use super::guard::CpuGuard;
use super::guards::{Keeper, Wiring};
use super::heartbeat::{self, Pulse};
use super::line::Line;
use super::operate::Operator;
use super::publish::Place;
use super::signals::{self, Signals};
use super::wreck::{self, Witness};
use super::{
    Bounds, Ended, Loader, Observed, Options, bounds, conclude, disabled_by_operator, drain, figures, files,
    join, look_for_standstill, runtime, serve, start_audit, status, usr1,
};
use crate::admin::readiness::Latch;
use crate::admin::{self, Door, KillSwitch, Operate, Readiness, SwitchFile};
use crate::audit::{Action, Actor, Audit};
use crate::backlog::{self, MAX_QUEUED};
use crate::capture::kernel::{KernelCapture, RingSource};
use crate::capture::{Counters, interfaces};
use crate::cli::Exit;
use crate::config::{Config, Limits};
use crate::control::Control;
use crate::guard::Readings;
use crate::ledger::Ledger;
use crate::metrics::Sources;
use crate::privileges;
use crate::replay::Registrar;
use crate::shard::{self, Links, Pipeline, PipelineSettings};
use crate::terminal;

/// Mirrors live traffic until it is told to stop, and says how that ended.
pub(super) fn run(config: &Config, options: &Options, loader: Loader) -> anyhow::Result<Exit> {
    let report = options.report.as_deref().map(Place::secure).transpose()?;
    let live = Live::start(config, options)?;
    let origin = Origin {
        mark: config.capture.mark,
        own: own_sockets(&live.kernel),
        shards: live.shards(),
        recorded: false,
    };
    let ground = Ground::new(config, &live.runtime, &live.control, origin)?;
    let label = options.label.as_deref().unwrap_or_default();
    let current = Arc::new(Current::new(build_line(config, &ground, label, None)?));
    let (switch, audit, observed) = (Arc::clone(&live.switch), live.audit.clone(), live.observed());
    let counters = Arc::clone(&observed.counters);
    let figures = figures(config, &current, observed, audit.clone());
    let mut keeper = Keeper::new(config, wiring(&current.line(), &figures, Arc::clone(&switch)));
    let operator =
        Operator::new(ground, Arc::clone(&current), switch, audit, counters, loader, config.clone());
    let served = Served { figures, operate: Some(Arc::new(operator)) };
    let driving = |backlog, _| Arc::clone(&current).drive(backlog);
    let status = {
        let current = Arc::clone(&current);
        move || current.runs().current().status_line(current.snapshot())
    };
    let Captured { runtime, mut signals, driving, admin, counters, ended } =
        live.capture(config, options, served, driving, status, move || keeper.look())?;
    runtime.block_on(drain(&current, driving, &mut signals));
    conclude(Ended { runtime, signals, current: &current, admin, report, ended }, &counters, options)
}

/// What the guards of a run look at, and act on.
fn wiring(line: &Line, figures: &Sources, switch: Arc<KillSwitch>) -> Wiring {
    Wiring {
        control: line.control.clone(),
        vitals: Arc::clone(&line.vitals),
        board: Arc::clone(&figures.guards),
        targets: line.replayer.targets().to_vec(),
        counters: Arc::clone(&figures.kernel),
        audit: figures.audit.clone(),
        switch,
    }
}

/// What the admin API shows, and whom it asks for another configuration or run.
pub(super) struct Served {
    pub(super) figures: Sources,
    pub(super) operate: Option<Arc<dyn Operate>>,
}

/// Everything before the backlog, ready to capture.
pub(super) struct Live {
    kernel: Arc<KernelCapture>,
    sources: Vec<RingSource>,
    following: Following,
    failed: mpsc::Sender<anyhow::Error>,
    broken: mpsc::Receiver<anyhow::Error>,
    door: Option<Door>,
    readiness: Readiness,
    capturing: Latch,
    runtime: Runtime,
    signals: Signals,
    control: Control,
    switch: Arc<KillSwitch>,
    audit: Audit,
}

/// What is there when capturing has come to its end.
pub(super) struct Captured<T> {
    pub(super) runtime: Runtime,
    pub(super) signals: Signals,
    /// Whoever empties the backlog, and comes to an end by itself.
    pub(super) driving: tokio::task::JoinHandle<T>,
    pub(super) admin: Option<admin::Server>,
    pub(super) counters: Counters,
    /// Why it ended, if that is an error.
    pub(super) ended: anyhow::Result<()>,
}

impl Live {
    /// Does whatever needs privileges, and drops them.
    pub(super) fn start(config: &Config, options: &Options) -> anyhow::Result<Live> {
        files::raise_limit();
        interfaces::resolve(&config.capture)?;
        let door = Door::open(&config.admin)?;
        let held = disabled_by_operator(options)?;
        let control = Control::new(config.enabled && !held);
        control.configure_sample(config.capture.sample);
        signals::hold()?;
        let (kernel, sources) = KernelCapture::start(&config.capture, &[], control.enabled())?;
        let kernel = Arc::new(kernel);
        let readiness = Readiness::new();
        let capturing = readiness.latch("capture");
        let attached = readiness
            .condition(format!("an interface that matches {}", config.capture.interfaces.join(", ")));
        // The one thread that is there before privileges are dropped: it may have to enter a namespace, and drops its own.
        let (failed, broken) = mpsc::channel(1);
        let following =
            Following::start(Arc::clone(&kernel), config.capture.clone(), attached, Witness::new(&failed))?;
        // Those to come have no more privileges than this one has from here on.
        let reduction = privileges::drop_after_loading()?;
        tracing::debug!(%reduction, "the kernel programs are loaded");
        options.switch.as_ref().map_or(Ok(()), SwitchFile::check_writable)?;
        let audit = start_audit(config, options, control.enabled())?;
        let switch = KillSwitch::new(control.clone(), options.switch.clone(), audit.clone(), held);
        let switch = Arc::new(switch);
        let runtime = runtime()?;
        let signals = runtime.block_on(async { Signals::new() })?;
        let carried = Arc::clone(&kernel);
        control.carry(move |state| {
            carried.set_enabled(state.enabled);
            carried.set_sample(state.sample);
        });
        usr1::follow(Arc::clone(&switch))?;
        // Loading and attaching took a while.
        kernel.beat();
        Ok(Live {
            kernel,
            sources,
            following,
            failed,
            broken,
            door,
            readiness,
            capturing,
            runtime,
            signals,
            control,
            switch,
            audit,
        })
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    pub(super) fn shards(&self) -> usize {
        self.sources.len()
    }

    /// What the kernel shows of itself.
    pub(super) fn observed(&self) -> Observed {
        let (counting, attached) = (Arc::clone(&self.kernel), Arc::clone(&self.kernel));
        Observed {
            counters: Arc::new(move || counters(&counting)),
            interfaces: Arc::new(move || attached.attached()),
        }
    }

    /// Captures until it is told to stop, or until something breaks down. `drive` empties the backlog, and may say that it
    /// cannot go on; `status` is shown meanwhile, and `guard` called again and again.
    pub(super) fn capture<T: Send + 'static, D: Future<Output = T> + Send + 'static>(
        self,
        config: &Config,
        options: &Options,
        Served { figures, operate }: Served,
        drive: impl FnOnce(backlog::Receiver, mpsc::Sender<anyhow::Error>) -> D,
        status: impl Fn() -> String + Send + 'static,
        guard: impl FnMut() + Send + 'static,
    ) -> anyhow::Result<Captured<T>> {
        let Live {
            kernel,
            sources,
            following,
            failed,
            mut broken,
            runtime,
            mut signals,
            control,
            switch,
            ..
        } = self;
        let (ledger, cpu) = (Arc::clone(&figures.ledger), Arc::clone(&figures.cpu));
        let (readiness, audit) = (self.readiness, self.audit);
        let admin = self.door.map(|door| serve(door, switch, operate, figures, readiness)).transpose()?;
        let Bounds { rebuilt, backlog } = bounds(&config.limits);
        let (backlog, receiver) = backlog::backlog(MAX_QUEUED, backlog);
        let mut driving = runtime.spawn(drive(receiver, failed.clone()));
        let shards = Shards { config, limits: rebuilt, ledger, control: control.clone(), backlog, failed };
        let capturing = shards.start(&kernel, sources, cpu, guard)?;
        self.capturing.release();
        let devices: Vec<_> = kernel.attached().into_iter().map(|attached| attached.device).collect();
        let targets: Vec<_> = config.replay.targets.iter().chain(&config.replay.baseline).collect();
        let targets: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
        let address = admin.as_ref().map_or_else(|| "off".to_owned(), |admin| admin.local_addr().to_string());
        tracing::info!(
            interfaces = devices.join(","),
            targets = targets.join(","),
            admin = address,
            "capturing"
        );
        let ended = runtime.block_on(async {
            let live = tokio::spawn(status::show(status));
            let ended = tokio::select! {
                () = signals.stop() => Ok(()),
                () = after(options.duration) => Ok(()),
                Some(error) = broken.recv() => Err(error),
                // It ends only after the shards, unless it panics.
                _ = &mut driving => Err(wreck::panicked("the thread that decides about exchanges")),
            };
            live.abort();
            ended
        });
        audit.record(Actor::Agent, Action::Stopped);
        terminal::clear();
        following.finish();
        capturing.finish(&control);
        audit.flush();
        Ok(Captured { runtime, signals, driving, admin, counters: counters(&kernel), ended })
    }
}

/// Has the kernel programs leave alone what passes the replayer's sockets.
fn own_sockets(kernel: &KernelCapture) -> Registrar {
    let own = kernel.own_sockets();
    Registrar::new(move |local| own.register(local).map_err(io::Error::other))
}

/// What the threads between the rings and the backlog are started with.
struct Shards<'a> {
    config: &'a Config,
    limits: Limits,
    ledger: Arc<Ledger>,
    control: Control,
    backlog: backlog::Sender,
    failed: mpsc::Sender<anyhow::Error>,
}

/// Everything between the rings and the backlog.
struct Capturing {
    stop: Arc<AtomicBool>,
    shards: Vec<JoinHandle<()>>,
    heartbeat: JoinHandle<()>,
}

impl Shards<'_> {
    fn start(
        self,
        kernel: &Arc<KernelCapture>,
        sources: Vec<RingSource>,
        cpu: Arc<Readings>,
        mut also: impl FnMut() + Send + 'static,
    ) -> anyhow::Result<Capturing> {
        let Shards { config, limits, ledger, control, backlog, failed } = self;
        let stop = Arc::new(AtomicBool::new(false));
        let count = sources.len();
        let pulse = Pulse::new(count);
        let shards = sources.into_iter().enumerate().map(|(shard, source)| {
            let seed = fastrand::u64(..);
            let mut settings = PipelineSettings::new(&limits, &config.capture.ports, count, seed);
            settings.tcp.seed = config.capture.seed;
            let pipeline = Pipeline::new(&settings);
            let (stop, pulse, control) = (Arc::clone(&stop), pulse.clone(), control.clone());
            let (ledger, backlog, failed) = (Arc::clone(&ledger), backlog.clone(), failed.clone());
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
        let mut guard = CpuGuard::new(config, control.clone(), cpu);
        let guarding = move || {
            look_for_standstill(&control, "the kernel stops copying after 2 s of that, and ");
            guard.look();
            also();
        };
        let witness = Witness::new(&failed);
        let heartbeat = heartbeat::spawn(pulse, Arc::clone(&stop), witness, move || beating.beat(), guarding)
            .context("the heartbeat thread could not be started")?;
        Ok(Capturing { stop, shards, heartbeat })
    }
}

impl Capturing {
    /// Lets every shard empty its ring and close its books, and ends the threads.
    fn finish(self, control: &Control) {
        self.stop.store(true, Ordering::Release);
        join(self.heartbeat);
        // That thread took the turns; replays under way may yet take longer than a standstill.
        control.standstill().rest();
        self.shards.into_iter().for_each(join);
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
