//! Exchanges that are recorded only: a thread of its own masks and writes them, so that nothing else waits for a disk.
//!
//! Each is in flight until it is known what became of it: it is in a file, cannot be masked, or cannot be written.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;

use crate::backlog::Admitted;
use crate::config;
use crate::exchange::{Exchange, SkipReason, Timestamp};
use crate::ledger::Ledger;
use crate::policy::mask::Masker;
use crate::record::{LeftOut, Options, Recorder, Summary};

/// Exchanges that wait to be written at most.
const MAX_WAITING: usize = 256;

/// Bytes of bodies that wait to be written at most, so that a slow disk does not take the room of what is replayed. One
/// exchange may wait alone, however large.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// How often what was taken is written, if it waited long enough.
const TICK: Duration = Duration::from_millis(200);

/// The way to the files. Without a place for them nothing is written, and what was to be kept counts as kept: it comes
/// from a file.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    queue: Mutex<Option<SyncSender<Waiting>>>,
    bytes: Arc<AtomicUsize>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

#[derive(Debug)]
struct Waiting {
    admitted: Admitted,
    /// By the rules of when it was decided.
    masker: Arc<Masker>,
    _place: Place,
}

/// Bytes that wait, given back when dropped.
#[derive(Debug)]
struct Place {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Keeping {
    /// Makes sure that there is a place to write to, and starts the thread.
    pub(super) fn start(
        config: &config::RecordOnly,
        masker: Arc<Masker>,
        ledger: Arc<Ledger>,
        clock: impl Fn() -> Timestamp + Send + 'static,
    ) -> anyhow::Result<Keeping> {
        let options = Options {
            out: config.out.clone(),
            rotate_size: Some(config.rotate_size),
            keep: Some(config.keep),
            ..Options::default()
        };
        let recorder =
            Recorder::new(&options, masker).context("select.record: there is no place to write to")?;
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let (tell, ended) = oneshot::channel();
        let writer = Writer {
            settled: recorder.summary(),
            recorder,
            ledger,
            clock: Box::new(clock),
            out: config.out.clone(),
            failed: false,
            unmaskable: false,
        };
        let write = move || {
            writer.run(&waiting);
            // Nobody waits for it any more.
            let _ = tell.send(());
        };
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(write);
        thread.context("the thread that records could not be started")?;
        Ok(Keeping { queue: Mutex::new(Some(queue)), bytes: Arc::default(), ended: Mutex::new(Some(ended)) })
    }

    /// Takes an exchange, to be masked by these rules, which the ledger hears of when it is known what became of it.
    ///
    /// # Errors
    /// The reason why nothing becomes of it.
    pub(super) fn take(&self, admitted: Admitted, masker: &Arc<Masker>) -> Result<(), SkipReason> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return Err(SkipReason::Recorded) };
        let bytes = bodies(&admitted.exchange);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Place { waiting: Arc::clone(&self.bytes), bytes };
        if before > 0 && before.saturating_add(bytes) > MAX_WAITING_BYTES {
            return Err(SkipReason::NotRecorded);
        }
        queue
            .try_send(Waiting { admitted, masker: Arc::clone(masker), _place: place })
            .map_err(|_| SkipReason::NotRecorded)
    }

    /// Has everything written that waits, and waits for that.
    pub(super) async fn finish(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            // A panic ended it as well.
            let _ = ended.await;
        }
    }
}

fn bodies(exchange: &Exchange) -> usize {
    exchange.request.body.len() + exchange.response.body.len()
}

/// What the thread owns.
struct Writer {
    recorder: Recorder,
    ledger: Arc<Ledger>,
    /// The time on the clock of the exchanges.
    clock: Box<dyn Fn() -> Timestamp + Send>,
    out: PathBuf,
    /// What the ledger knows of.
    settled: Summary,
    /// What was said already.
    failed: bool,
    unmaskable: bool,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Waiting>) {
        loop {
            let done = match waiting.recv_timeout(TICK) {
                Ok(waiting) => {
                    self.recorder.mask_by(waiting.masker);
                    self.recorder.take(&waiting.admitted.exchange)
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let done = done.and_then(|()| self.recorder.tick((self.clock)()));
            self.settle(done);
        }
        let done = self.recorder.finish();
        self.settle(done);
    }

    /// Tells the ledger what became of exchanges since the last time, and people once what went wrong.
    fn settle(&mut self, done: Result<(), crate::record::RecordError>) {
        let now = self.recorder.summary();
        let left_out = |summary: &Summary, reason: LeftOut| {
            summary.left_out.get(reason as usize).copied().unwrap_or_default()
        };
        let since = |reason| left_out(&now, reason) - left_out(&self.settled, reason);
        let unmaskable = since(LeftOut::Unmaskable);
        let kinds = LeftOut::ALL.iter().map(|&kind| {
            let reason = match kind {
                LeftOut::Unmaskable => SkipReason::Unmaskable,
                LeftOut::Unwritten => SkipReason::NotRecorded,
                LeftOut::DropExchange => SkipReason::DropExchange,
                LeftOut::MaskFailed => SkipReason::MaskFailed,
            };
            (since(kind), reason)
        });
        for (count, reason) in kinds.chain([(now.written - self.settled.written, SkipReason::Recorded)]) {
            (0..count).for_each(|_| self.ledger.skipped(reason));
        }
        self.settled = now;
        if let Err(error) = done
            && !std::mem::replace(&mut self.failed, true)
        {
            let out = self.out.display();
            tracing::error!(
                "select.record ({out}): {error}; from now on nothing is recorded, until a restart"
            );
        }
        if unmaskable > 0 && !std::mem::replace(&mut self.unmaskable, true) {
            tracing::warn!(
                "an exchange that was to be recorded only cannot be masked, so it is not kept; more of them are counted as \
                 skipped{{unmaskable}}"
            );
        }
    }
}

#[cfg(test)]
mod tests;
