//! One file after the other, and files that are there already or cannot be made.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn names(place: &Place) -> Vec<String> {
    place.files().into_keys().collect()
}

/// The size of a file with so many simple exchanges.
fn size(name: &str, count: u64) -> u64 {
    let exchanges: Vec<Exchange> = (0..count).map(simple).collect();
    recorded(name, &exchanges).len() as u64
}

#[test]
fn a_file_is_as_large_as_the_limit_and_no_larger() {
    for name in ["a.gor", "a.har", "a.pcapng"] {
        let limit = size(name, 3);
        for (limit, expected) in [(limit, vec![3, 3, 1]), (limit - 1, vec![2, 2, 2, 1])] {
            let place = Place::new();
            let options = Options { rotate_size: Some(limit), ..place.options(name) };
            let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
            assert_eq!(names(&place), Vec::<String>::new());
            for at in 0..7 {
                recorder.take(&simple(at)).unwrap();
            }
            recorder.finish().unwrap();
            let files = place.files();
            let found: Vec<usize> = files.values().map(|bytes| read(bytes).len()).collect();
            assert_eq!(found, expected, "{name} {limit}");
            assert!(files.values().all(|bytes| bytes.len() as u64 <= limit), "{name} {limit}");
            let summary = recorder.summary();
            assert_eq!((summary.files, summary.written), (files.len() as u64, 7));
            assert_eq!(summary.bytes, files.values().map(|bytes| bytes.len() as u64).sum::<u64>());
        }
    }
}

#[test]
fn an_exchange_that_alone_is_too_large_has_a_file_of_its_own() {
    for name in ["a.gor", "a.gor.gz", "a.har", "a.pcapng"] {
        let place = Place::new();
        let options = Options { rotate_size: Some(3000), ..place.options(name) };
        let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
        let large = exchange(1, [1; 4], "x", &"y".repeat(5000));
        for exchange in [simple(0), large, simple(2)] {
            recorder.take(&exchange).unwrap();
        }
        recorder.finish().unwrap();
        let found: Vec<Vec<usize>> = place
            .files()
            .values()
            .map(|bytes| read(bytes).iter().map(|e| e.response.body.len()).collect())
            .collect();
        assert_eq!(found, [[6], [5000], [6]], "{name}");
    }
}

#[test]
fn a_file_is_written_to_for_so_long() {
    let place = Place::new();
    let options = Options { rotate_every: Some(Duration::from_secs(10)), ..place.options("a.gor.gz") };
    let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
    for at in [0, 9_999, 10_000, 19_999] {
        recorder.take(&simple(at)).unwrap();
    }
    recorder.tick(Timestamp(DAY + 19_999 * MILLI)).unwrap();
    assert_eq!((recorder.summary().written, recorder.summary().files), (3, 2));
    recorder.tick(Timestamp(DAY + 20_000 * MILLI)).unwrap();
    assert_eq!((recorder.summary().written, recorder.summary().files), (4, 2));
    // Without exchanges there is no file.
    recorder.tick(Timestamp(DAY + 100_000 * MILLI)).unwrap();
    recorder.take(&simple(101_000)).unwrap();
    recorder.finish().unwrap();
    let expected = [
        "a-20231114T221320Z-0001.gor.gz",
        "a-20231114T221330Z-0002.gor.gz",
        "a-20231114T221501Z-0003.gor.gz",
    ];
    assert_eq!(names(&place), expected);
    let found: Vec<usize> = place.files().values().map(|bytes| read(bytes).len()).collect();
    assert_eq!(found, [2, 2, 1]);
}

#[test]
fn so_many_files_are_kept_and_those_of_others_stay() {
    for (keep, left) in [(2, 2), (3, 3), (5, 4)] {
        let place = Place::new();
        fs::write(place.0.path().join("a-20200101T000000Z-0001.gor"), "of another run").unwrap();
        let options = Options { rotate_size: Some(1), keep: Some(keep), ..place.options("a.gor") };
        let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
        for at in 0..4 {
            recorder.take(&simple(at)).unwrap();
            assert!(place.files().len() <= keep + 1);
        }
        recorder.finish().unwrap();
        let names = names(&place);
        assert_eq!(names.len(), left + 1, "{names:?}");
        assert!(names[left].ends_with("-0004.gor"), "{names:?}");
        assert_eq!(recorder.summary().removed, 4 - left as u64);
    }
}

#[test]
fn a_file_that_is_there_stays_unless_it_shall_be_replaced() {
    let place = Place::new();
    let path = place.0.path().join("a.gor");
    fs::write(&path, "precious").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Recorder::new(&place.options("a.gor"), Arc::default()).unwrap_err();
    assert!(matches!(error, RecordError::Exists { .. }));
    assert!(
        error.to_string().contains("a.gor exists already") && error.to_string().contains("--force"),
        "{error}"
    );
    assert_eq!(place.files()["a.gor"], b"precious");
    let options = Options { force: true, ..place.options("a.gor") };
    let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
    recorder.take(&simple(0)).unwrap();
    recorder.finish().unwrap();
    assert_eq!(read(&place.files()["a.gor"]).len(), 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_link_is_not_followed_and_a_folder_not_replaced() {
    let place = Place::new();
    let victim = place.0.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, place.0.path().join("a.gor")).unwrap();
    fs::create_dir(place.0.path().join("b.gor")).unwrap();
    let open = |name, force| Recorder::new(&Options { force, ..place.options(name) }, Arc::default());
    assert!(matches!(open("a.gor", false), Err(RecordError::Exists { .. })));
    open("a.gor", true).unwrap();
    assert!(matches!(open("b.gor", true), Err(RecordError::Create { .. })));
    assert_eq!(fs::read(victim).unwrap(), b"precious");
}

#[test]
fn a_place_that_cannot_be_written_to_is_found_at_once() {
    let place = Place::new();
    fs::write(place.0.path().join("file"), "").unwrap();
    for name in ["missing/a.gor", "file/a.gor"] {
        for rotate_size in [None, Some(100)] {
            let options = Options { rotate_size, ..place.options(name) };
            let error = Recorder::new(&options, Arc::default()).unwrap_err();
            assert!(matches!(error, RecordError::Create { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_written_any_more_is_counted() {
    let place = Place::new();
    let folder = place.0.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let options = Options { rotate_size: Some(1), ..place.options("folder/a.gor") };
    let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
    recorder.take(&simple(0)).unwrap();
    fs::rename(&folder, place.0.path().join("elsewhere")).unwrap();
    let error = recorder.take(&simple(1)).unwrap_err();
    assert!(matches!(error, RecordError::Create { .. }), "{error}");
    recorder.take(&simple(2)).unwrap();
    recorder.tick(Timestamp(u64::MAX)).unwrap();
    recorder.finish().unwrap();
    let summary = recorder.summary();
    assert_eq!((summary.taken, summary.written, summary.pending), (3, 1, 0));
    assert_eq!(summary.json()["left_out"], json!({ "unwritten": 2 }));
    let whole =
        fs::read(fs::read_dir(place.0.path().join("elsewhere")).unwrap().next().unwrap().unwrap().path());
    assert_eq!(read(&whole.unwrap()).len(), 1);
}

#[test]
fn what_is_taken_is_written_after_a_while_or_when_it_is_much() {
    let place = Place::new();
    let mut recorder = place.recorder("a.gor");
    recorder.take(&simple(1000)).unwrap();
    recorder.tick(Timestamp(DAY + 1249 * MILLI)).unwrap();
    assert_eq!((recorder.summary().written, place.files()["a.gor"].len()), (0, 0));
    recorder.tick(Timestamp(DAY + 1250 * MILLI)).unwrap();
    assert_eq!(recorder.summary().written, 1);

    const MUCH: usize = 256 << 10;
    let of = |body: usize| exchange(1, [0; 4], "x", &"y".repeat(body));
    let around = recorded("b.gor", &[of(MUCH - 1000)]).len() - (MUCH - 1000);
    for (size, written) in [(MUCH - 1, 0), (MUCH, 1)] {
        let place = Place::new();
        let mut recorder = place.recorder("a.gor");
        recorder.take(&of(size - around)).unwrap();
        assert_eq!(recorder.summary().written, written, "{size}");
    }
}

#[test]
fn a_recorder_may_live_in_a_task() {
    fn sent<T: Send>(_: &T) {}
    sent(&Place::new().recorder("a.gor.gz"));
}

#[test]
fn the_file_that_is_read_is_never_replaced() {
    let place = Place::new();
    let there = |name: &str| place.0.path().join(name);
    fs::write(there("a.gor"), "read").unwrap();
    std::os::unix::fs::symlink(there("a.gor"), there("link.gor")).unwrap();
    fs::hard_link(there("a.gor"), there("same.gor")).unwrap();
    for from in ["a.gor", "link.gor", "same.gor"] {
        let options = Options { force: true, from: Some(there(from)), ..place.options("a.gor") };
        let error = Recorder::new(&options, Arc::default()).unwrap_err();
        assert!(matches!(error, RecordError::Itself { .. }), "{from}: {error}");
        assert_eq!(fs::read(there("a.gor")).unwrap(), b"read");
    }
    // One of several that rotation names.
    let options = |rotate_size| Options { rotate_size, force: true, ..place.options("a.gor") };
    let mut recorder = Recorder::new(&options(Some(1)), Arc::default()).unwrap();
    recorder.take(&simple(0)).unwrap();
    recorder.finish().unwrap();
    let first = place.files().into_keys().find(|name| name.starts_with("a-")).unwrap();
    let options = Options { from: Some(there(&first)), ..options(Some(1)) };
    let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
    assert!(matches!(recorder.take(&simple(0)), Err(RecordError::Itself { .. })));
    // Another file, and a link to the one that is read, are.
    let options = Options { force: true, from: Some(there("a.gor")), ..place.options("link.gor") };
    assert!(Recorder::new(&options, Arc::default()).is_ok());
    assert_eq!(fs::read(there("a.gor")).unwrap(), b"read");
}

#[test]
fn files_of_an_earlier_run_stay_and_do_not_end_this_one() {
    let place = Place::new();
    let options = Options { rotate_size: Some(1), ..place.options("a.gor") };
    for runs in 1..=2 {
        let mut recorder = Recorder::new(&options, Arc::default()).unwrap();
        for at in 0..3 {
            recorder.take(&simple(at)).unwrap();
        }
        recorder.finish().unwrap();
        assert_eq!((recorder.summary().written, names(&place).len()), (3, 3 * runs));
    }
    let mut recorder = Recorder::new(&Options { force: true, ..options }, Arc::default()).unwrap();
    recorder.take(&simple(0)).unwrap();
    recorder.finish().unwrap();
    assert_eq!(names(&place).len(), 6, "replaced, because that was asked for");
}

#[test]
fn so_many_names_are_passed_over_and_no_more() {
    let place = Place::new();
    let options = Options { rotate_size: Some(1), ..place.options("a.gor") };
    let mut numbers = 1..;
    for (taken, opened) in [(names::MAX_TAKEN, true), (names::MAX_TAKEN + 2, false)] {
        for number in numbers.by_ref().take_while(|number| *number < taken) {
            fs::write(place.0.path().join(format!("a-20231114T221320Z-{number:04}.gor")), "").unwrap();
        }
        fs::write(place.0.path().join(format!("a-20231114T221320Z-{taken:04}.gor")), "").unwrap();
        let taken = Recorder::new(&options, Arc::default()).unwrap().take(&simple(0));
        assert_eq!(taken.is_ok(), opened, "{taken:?}");
    }
}
