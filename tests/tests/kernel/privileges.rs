//! What works, and what does not, once privileges are dropped.

use shadow_agent::capture::kernel::{Attachment, KernelCapture, KernelError, rehearse};
use shadow_agent::privileges;

use crate::capture;
use crate::netns::Pair;

#[test]
fn programs_that_are_loaded_are_attached_without_the_privilege_to_load() {
    let pair = Pair::new();
    pair.on_server(|| {
        let (capture, _sources) = KernelCapture::start(&capture(), &[], true).expect("these tests need root");
        privileges::drop_after_loading().unwrap();
        for _ in 0..2 {
            capture.attach(&pair.device()).unwrap();
            assert_eq!(capture.attached().len(), 1);
            capture.counters().unwrap();
            capture.detach().unwrap();
        }
    });
}

#[test]
fn one_that_is_not_loaded_by_then_is_refused() {
    let pair = Pair::new();
    pair.on_server(|| {
        let (capture, _sources) =
            KernelCapture::start_with(&capture(), &[], true, Attachment::Tcx).expect("these tests need root");
        privileges::drop_after_loading().unwrap();
        let error = capture.attach(&pair.device()).unwrap_err();
        assert!(matches!(error, KernelError::Privilege { .. }), "{error}");
    });
}

#[test]
fn a_rehearsal_loads_all_and_finds_the_rest_working() {
    let rehearsal = rehearse(&capture()).unwrap().expect("these tests need root");
    assert!(rehearsal.programs >= 6, "{rehearsal:?}");
    rehearsal.maps.unwrap();
    rehearsal.mark.unwrap();
    assert!(!rehearsal.reduction.unwrap().dropped.is_empty());
}
