use std::fs;

use tempfile::TempDir;

use super::*;
use crate::backlog::backlog;
use crate::ledger::ShardBatch;
use crate::policy::fixture::exchange;
use crate::report::Report;

/// An exchange behind a backlog, as many bytes large.
fn admitted(request: &str) -> Admitted {
    let (sender, mut receiver) = backlog(1, 64 << 20);
    sender.reserve(exchange(request, "200")).unwrap_or_else(|_| panic!("no room")).send();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(receiver.next()).unwrap()
}

fn ledger(queued: u64) -> Arc<Ledger> {
    let ledger = Arc::new(Ledger::new(1, 1));
    ledger.shard(0, &ShardBatch { seen: queued, queued, ..ShardBatch::default() });
    ledger
}

fn skipped(ledger: &Ledger, reason: SkipReason) -> u64 {
    ledger.snapshot().skipped[reason as usize]
}

fn start(out: PathBuf, ledger: &Arc<Ledger>) -> anyhow::Result<Keeping> {
    let config = config::RecordOnly { out, rotate_size: 1 << 20, keep: 2 };
    let report =
        Report::new(&config::Verdict::default(), &config::Compare::default(), Vec::new(), String::new());
    Keeping::start(&config, Arc::default(), Arc::clone(ledger), move || report.now())
}

fn finish(keeping: &Keeping) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(keeping.finish());
}

#[test]
fn what_is_kept_is_masked_and_counted_when_it_is_in_a_file() {
    let place = TempDir::new().unwrap();
    let ledger = ledger(2);
    let keeping = start(place.path().join("kept.gor"), &ledger).unwrap();
    keeping.take(admitted("POST /a\ncookie: session=S3CRET\n\nbody"), &Arc::default()).unwrap();
    let unmaskable = "POST /b\ncontent-encoding: nonsense\ncontent-type: application/json\n\n{}";
    keeping.take(admitted(unmaskable), &Arc::default()).unwrap();
    finish(&keeping);
    assert_eq!(skipped(&ledger, SkipReason::Recorded), 1);
    assert_eq!(skipped(&ledger, SkipReason::Unmaskable), 1);
    assert_eq!((ledger.snapshot().in_flight, ledger.snapshot().imbalance()), (0, 0));
    let files: Vec<_> = fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let text = String::from_utf8(fs::read(file).unwrap()).unwrap();
    assert!(text.contains("POST /a") && text.contains("body") && !text.contains("S3CRET"), "{text}");
    assert_eq!(keeping.take(admitted("POST /c"), &Arc::default()), Err(SkipReason::Recorded), "it has ended");
}

#[test]
fn what_cannot_be_written_is_counted_and_no_place_is_an_error() {
    let place = TempDir::new().unwrap();
    let ledger = ledger(1);
    let nowhere = start(place.path().join("none/kept.gor"), &ledger).unwrap_err();
    assert!(format!("{nowhere:#}").contains("select.record: there is no place to write to"), "{nowhere:#}");
    let folder = place.path().join("gone");
    fs::create_dir(&folder).unwrap();
    let keeping = start(folder.join("kept.gor"), &ledger).unwrap();
    fs::remove_dir(&folder).unwrap();
    keeping.take(admitted("POST /a"), &Arc::default()).unwrap();
    finish(&keeping);
    assert_eq!(skipped(&ledger, SkipReason::NotRecorded), 1);
    assert_eq!(ledger.snapshot().imbalance(), 0);
}

#[test]
fn what_waits_is_bounded_in_number_and_in_bytes() {
    let keeping = |bytes: usize| {
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let keeping = Keeping { queue: Mutex::new(Some(queue)), ..Keeping::default() };
        keeping.bytes.store(bytes, Ordering::Relaxed);
        (keeping, waiting)
    };
    let (many, _waiting) = keeping(0);
    for _ in 0..MAX_WAITING {
        many.take(admitted("POST /a"), &Arc::default()).unwrap();
    }
    assert_eq!(many.take(admitted("POST /a"), &Arc::default()), Err(SkipReason::NotRecorded));
    for (waiting, fits) in [(0, true), (MAX_WAITING_BYTES - 4, true), (MAX_WAITING_BYTES - 3, false)] {
        let (large, _waiting) = keeping(waiting);
        assert_eq!(large.take(admitted("POST /a\n\nbody"), &Arc::default()).is_ok(), fits, "{waiting}");
        let expected = if fits { waiting + 4 } else { waiting };
        assert_eq!(large.bytes.load(Ordering::Relaxed), expected, "a refused one leaves no trace");
    }
}

#[test]
fn without_a_place_everything_counts_as_kept() {
    assert_eq!(Keeping::default().take(admitted("POST /a"), &Arc::default()), Err(SkipReason::Recorded));
}
