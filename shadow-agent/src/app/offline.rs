//! A replay of a file: its segments take the way of live ones, at a pace.
//!
//! Nothing is captured, so nothing needs a privilege. The file waits for the targets; what comes to its end is the file, and
//! then the replays under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use caps::Capability;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::build::{Ground, Origin, build_line};
use super::current::Current;
use super::guard::CpuGuard;
use super::heartbeat::{self, Pulse};
use super::line::Line;
use super::paced::Pacing;
use super::publish::Place;
use super::signals::{self, Signals};
use super::wreck::{self, Witness};
use super::{
    Bounds, Ended, Observed, Options, bounds, conclude, disabled_by_operator, drain, figures, files, join,
    look_for_standstill, runtime, serve, start_audit, status, usr1,
};
use crate::admin::{Door, KillSwitch, Readiness, SwitchFile};
use crate::audit::{Action, Actor};
use crate::backlog::{self, MAX_QUEUED};
use crate::capture::Counters;
use crate::capture::file::{FileError, FileRecord, FileSource, Tally};
use crate::cli::Exit;
use crate::config::{Config, Limits, Portion};
use crate::control::Control;
use crate::pace::Pace;
use crate::privileges;
use crate::replay::Registrar;
use crate::shard::{self, Links, Pipeline, PipelineSettings};
use crate::terminal;

/// Requests that were late by less are on time.
const ON_TIME: Duration = Duration::from_secs(1);

/// How long reading may go on after the wish to stop. A pipe that gives nothing would hold it up for ever.
pub(super) const LETTING_GO: Duration = Duration::from_secs(2);

/// Replays a file, and says how that ended.
pub(super) fn replay(
    config: &Config,
    options: &Options,
    source: FileSource,
    pacing: Pacing,
) -> anyhow::Result<Exit> {
    files::raise_limit();
    let report = options.report.as_deref().map(Place::secure).transpose()?;
    let door = Door::open(&config.admin)?;
    let held = disabled_by_operator(options)?;
    let control = Control::new(config.enabled && !held);
    if config.portion != Portion::default() {
        tracing::warn!(
            "replay.ramp, replay.budget and guards are for live traffic, and left out here; --speed says how fast requests are sent"
        );
    }
    signals::hold()?;
    options.switch.as_ref().map_or(Ok(()), SwitchFile::check_writable)?;
    let runtime = runtime()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let audit = start_audit(config, options, control.enabled())?;
    let switch = Arc::new(KillSwitch::new(control.clone(), options.switch.clone(), audit.clone(), held));
    usr1::follow(Arc::clone(&switch))?;
    let ground = Ground::new(config, &runtime, &control, origin(config)?)?;
    let label = options.label.as_deref().unwrap_or_default();
    let current = Arc::new(Current::new(build_line(config, &ground, label, None)?));
    let line = current.line();
    let figures = figures(config, &current, nothing(), audit.clone());
    let cpu = Arc::clone(&figures.cpu);
    let admin = door.map(|door| serve(door, switch, None, figures, Readiness::new())).transpose()?;

    let (failed, mut broken) = mpsc::channel(1);
    let stop = Arc::new(AtomicBool::new(false));
    let enough = CancellationToken::new();
    let Bounds { rebuilt, backlog } = bounds(&config.limits);
    let settings = PipelineSettings::new(&rebuilt, &config.capture.ports, 1, fastrand::u64(..));
    let (sender, receiver) = backlog::backlog(MAX_QUEUED, backlog);
    let targets = || config.replay.targets.iter().chain(&config.replay.baseline);
    // What the least of the targets takes, all of them are given: each request goes to all at the same time.
    let most = targets().filter_map(|target| target.rate).min_by(f64::total_cmp);
    let under_way = targets().map(|target| target.concurrency).min().unwrap_or(1);
    let mut driving =
        runtime.spawn(Arc::clone(&line).drive_paced(receiver, pacing, (most, under_way), enough.clone()));
    let progress = source.progress();
    let reader = Reader::start(source, Pipeline::new(&settings), &line, sender, Arc::clone(&stop), &failed)?;
    let heartbeat = {
        let limits = Limits { cpu: None, ..config.limits.clone() };
        let mut readings = CpuGuard::new(&Config { limits, ..config.clone() }, control.clone(), cpu);
        let moving = control.clone();
        let looking = move || {
            look_for_standstill(&moving, "");
            readings.look();
        };
        heartbeat::spawn(Pulse::new(1), Arc::clone(&stop), Witness::new(&failed), || (), looking)
    };
    let heartbeat = heartbeat.context("the heartbeat thread could not be started")?;

    let mut late = None;
    let ended = runtime.block_on(async {
        let (run, ledger) = (Arc::clone(&line.run), Arc::clone(&line.ledger));
        let live = tokio::spawn(status::show(move || {
            let line = run.status_line(ledger.snapshot());
            let read = progress.share().map(|share| format!("{:.0} % read · ", share * 100.0));
            read.unwrap_or_default() + &line
        }));
        let ended = tokio::select! {
            () = signals.stop() => Ok(()),
            Some(error) = broken.recv() => Err(error),
            driven = &mut driving => match driven {
                Ok(most) => {
                    late = Some(most);
                    line.tasks.close();
                    // The last answers; a signal does not wait for them longer than a drain does.
                    tokio::select! {
                        () = line.tasks.wait() => {}
                        () = signals.stop() => {}
                    }
                    Ok(())
                }
                Err(_) => Err(wreck::panicked("the thread that decides about exchanges")),
            },
        };
        live.abort();
        ended
    });
    terminal::clear();
    stop.store(true, Ordering::Release);
    enough.cancel();
    join(heartbeat);
    control.standstill().rest();
    let read = runtime.block_on(reader.finish(signals.stop()));
    audit.record(Actor::Agent, Action::Stopped);
    audit.flush();
    runtime.block_on(drain(&current, driving, &mut signals));
    if let Some(late) = late.filter(|late| *late > ON_TIME && pacing.pace != Pace::Max) {
        tracing::warn!(
            "the targets did not keep up: requests were sent up to {:.1} s late, and none was left out for that; raise \
             replay.concurrency or lower --speed",
            late.as_secs_f64()
        );
    }
    let ended = ended.and(read);
    conclude(
        Ended { runtime, signals, current: &current, admin, report, ended },
        &Counters::default(),
        options,
    )
}

/// The thread that reads the file.
struct Reader {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<(Result<(), FileError>, Tally)>,
}

impl Reader {
    fn start(
        mut source: FileSource,
        pipeline: Pipeline,
        line: &Arc<Line>,
        backlog: backlog::Sender,
        stop: Arc<AtomicBool>,
        failed: &mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Reader> {
        let (tell, ended) = oneshot::channel();
        let (ledger, control, witness) =
            (Arc::clone(&line.ledger), line.control.clone(), Witness::new(failed));
        let read = move || {
            let _witness = witness;
            let links =
                Links { shard: 0, ledger: &ledger, backlog: &backlog, control: &control, stop: &stop };
            let ended = shard::run(&mut source, pipeline, &links, || ());
            // The other end waits for this thread.
            let _ = tell.send((ended, source.tally()));
        };
        let thread = thread::Builder::new().name("shard-0".to_owned()).spawn(read);
        Ok(Reader { thread: thread.context("the thread that reads the file could not be started")?, ended })
    }

    /// Waits for its end, and says what could not be read. When `again` somebody asks, or after [`LETTING_GO`], it is left
    /// to itself.
    async fn finish(self, again: impl Future<Output = ()>) -> anyhow::Result<()> {
        let ended = tokio::select! {
            ended = self.ended => Some(ended),
            () = sleep(LETTING_GO) => None,
            () = again => None,
        };
        let Some(ended) = ended else {
            tracing::warn!("what is read gives nothing more, and no end; it was given up");
            return Ok(());
        };
        join(self.thread);
        // Without a word it ended by a panic, and that is told already.
        let Ok((ended, tally)) = ended else { return Ok(()) };
        tell(&tally);
        Ok(ended?)
    }
}

/// Says what of the file was of no use.
fn tell(tally: &Tally) {
    let unusable = [FileRecord::Fragment, FileRecord::Malformed, FileRecord::Link, FileRecord::Unasked];
    let counts =
        unusable.iter().map(|&record| (record, tally.records.get(record as usize).copied().unwrap_or(0)));
    let named: Vec<_> =
        counts.filter(|&(_, count)| count > 0).map(|(record, count)| format!("{count} {record}")).collect();
    if !named.is_empty() {
        tracing::warn!("records of the file that cannot be used: {}", named.join(", "));
    }
    if tally.snapped > 0 {
        tracing::warn!(
            "{} segments were captured in part only, and their exchanges are lost; capture with a larger snapshot length \
             (tcpdump -s 0)",
            tally.snapped
        );
    }
    if let Some(offset) = tally.cut {
        tracing::warn!(
            "the file ends within a record, behind byte {offset}, as if its writer had been killed"
        );
    }
}

/// Nothing is captured here; an agent beside this one knows the marked sockets, if they can be marked.
fn origin(config: &Config) -> anyhow::Result<Origin> {
    let marks = !privileges::missing(None)?.contains(&Capability::CAP_NET_ADMIN);
    let mark = if marks { config.capture.mark } else { 0 };
    Ok(Origin { mark, own: Registrar::none(), shards: 1, recorded: true })
}

/// What a file shows of a kernel.
fn nothing() -> Observed {
    Observed { counters: Arc::new(Counters::default), interfaces: Arc::new(Vec::new) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_gives_nothing_more_holds_nobody_up() {
        let silent = || {
            let (tell, ended) = oneshot::channel();
            // It ends with the test, which a thread that is waited for would not.
            let (hold, held) = std::sync::mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                let _ = held.recv();
                drop(tell);
            });
            (Reader { thread, ended }, hold)
        };
        let (reader, _hold) = silent();
        assert!(reader.finish(std::future::pending()).await.is_ok());
        let (reader, _hold) = silent();
        assert!(reader.finish(async {}).await.is_ok());
    }
}
