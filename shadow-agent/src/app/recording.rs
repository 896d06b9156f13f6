//! Live traffic into files: behind the backlog is a recorder instead of a replayer.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::live::{Captured, Live, Served};
use super::{DRAIN, Options, masking};
use crate::backlog::Receiver;
use crate::capture::{Counters, PacketResult};
use crate::cli::Exit;
use crate::config::Config;
use crate::control::Control;
use crate::exchange::{LostReason, SkipReason};
use crate::guard::Readings;
use crate::ledger::{Ledger, Snapshot};
use crate::metrics::Sources;
use crate::offline::named;
use crate::policy::mask::Masker;
use crate::privileges::with_kept_rights;
use crate::record::{self, Recorder, Summary};
use crate::report::Report;
use crate::report::words::thousands;
use crate::runs::{Mark, Run, Runs};

/// How often what was taken is written, if it waited long enough.
const TICK: Duration = Duration::from_millis(200);

/// Captures, writes files, and says how that ended.
pub(super) fn record(config: &Config, options: &Options, files: &record::Options) -> anyhow::Result<Exit> {
    let masker = Arc::new(Masker::new(&config.mask, config.replay.credentials)?);
    // Later files are made with the rights that are left then.
    let recorder = with_kept_rights(|| Recorder::new(files, Arc::clone(&masker)))??;
    let live = Live::start(config, options)?;
    let (ledger, observed) = (Arc::new(Ledger::new(live.shards(), 0)), live.observed());
    let label = options.label.clone().unwrap_or_default();
    let run =
        Arc::new(Run::new(Report::new(&config.verdict, &config.compare, Vec::new(), label), Mark::default()));
    let figures = Sources {
        ledger: Arc::clone(&ledger),
        runs: Arc::new(Runs::new(run)),
        control: live.control().clone(),
        kernel: observed.counters,
        replay: Arc::new(Vec::new),
        interfaces: observed.interfaces,
        spans: Arc::new(|| None),
        cpu: Arc::new(Readings::default()),
        cpu_limit: config.limits.cpu,
        audit: live.audit().clone(),
        guards: Arc::default(),
        masks: Arc::new(move || masker.tallies()),
    };
    let recording = Recording {
        shown: Arc::new(Mutex::new(recorder.summary())),
        recorder,
        ledger: Arc::clone(&ledger),
        control: live.control().clone(),
        clock: figures.runs.current(),
    };
    let status = {
        let (shown, ledger) = (Arc::clone(&recording.shown), Arc::clone(&ledger));
        move || status_line(*shown.lock().unwrap_or_else(PoisonError::into_inner), &ledger.snapshot())
    };
    let drive = |backlog, failed| recording.drive(backlog, failed);
    let Captured { runtime, mut signals, driving, admin, counters, ended } =
        live.capture(config, options, Served { figures, operate: None }, drive, status, || ())?;
    let finished = runtime.block_on(async {
        tokio::select! {
            driven = driving => driven.context("the task that writes the files panicked"),
            () = tokio::time::sleep(DRAIN) => Err(anyhow!("the files could not be written in time; is the disk slow?")),
            () = signals.stop() => Err(anyhow!("the files were given up at the second signal")),
        }
    });
    if let Some(admin) = admin {
        admin.shutdown();
    }
    // A disk that hangs would hold it up for ever.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let (summary, closed) = finished?;
    let books = books(&ledger.snapshot(), &counters, &summary);
    // Whoever reads may be gone; that is no reason to fail.
    let _ = writeln!(io::stdout().lock(), "{}", json!({ "summary": books }));
    ended.and(closed)?;
    Ok(Exit::Success)
}

struct Recording {
    recorder: Recorder,
    /// What the status shows.
    shown: Arc<Mutex<Summary>>,
    ledger: Arc<Ledger>,
    control: Control,
    /// It knows the time on the clock of the exchanges.
    clock: Arc<Run>,
}

impl Recording {
    /// Writes exchanges until the backlog ends, and says how that went. What cannot be written any more ends the run.
    async fn drive(
        mut self,
        mut backlog: Receiver,
        failed: mpsc::Sender<anyhow::Error>,
    ) -> (Summary, anyhow::Result<()>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                admitted = backlog.next() => match admitted {
                    None => break,
                    Some(_) if !self.control.enabled() => {
                        self.ledger.skipped(SkipReason::Disabled);
                        Ok(())
                    }
                    Some(admitted) => {
                        self.ledger.selected();
                        block_in_place(|| self.recorder.take(&admitted.exchange))
                    }
                },
                _ = ticks.tick() => {
                    let done = block_in_place(|| self.recorder.tick(self.clock.report().now()));
                    masking::tell_failures(self.recorder.masker());
                    *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = self.recorder.summary();
                    done
                }
            };
            if let Err(error) = done {
                // One report is enough to end the run.
                let _ = failed.try_send(error.into());
            }
        }
        let closed = block_in_place(|| self.recorder.finish());
        (self.recorder.summary(), closed.map_err(Into::into))
    }
}

fn status_line(summary: Summary, ledger: &Snapshot) -> String {
    let left_out: u64 = summary.left_out.iter().sum();
    format!(
        "{} exchanges recorded in {:.1} MiB, {} left out, {} lost",
        thousands(summary.written),
        summary.bytes as f64 / (1024.0 * 1024.0),
        thousands(left_out),
        thousands(ledger.lost_total())
    )
}

/// What became of everything, in the words of `inspect` and of `record --from`.
fn books(ledger: &Snapshot, kernel: &Counters, summary: &Summary) -> Value {
    json!({
        "exchanges": ledger.seen,
        "complete": ledger.selected,
        "lost": named(LostReason::ALL.iter().map(|reason| reason.as_str()), &ledger.lost),
        "skipped": named(SkipReason::ALL.iter().map(|reason| reason.as_str()), &ledger.skipped),
        "imbalance": ledger.imbalance(),
        "packets": named(PacketResult::ALL.iter().map(|result| result.as_str()), &kernel.packets),
        "record": summary.json(),
    })
}
