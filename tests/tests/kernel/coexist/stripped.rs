//! What others remove of ours is noticed, and can be put back.

use std::slice;

use shadow_agent::capture::kernel::{Attachment, KernelCapture};

use super::possible;
use crate::capture;
use crate::netns::{DEVICE, Pair};
use crate::veth::attached;

fn check(preferred: Attachment, command: &[&str], is_removed: bool) {
    let pair = Pair::new();
    let device = pair.device();
    let (capture, _sources) =
        pair.on_server(|| KernelCapture::start_with(&capture(), &[pair.device()], true, preferred)).unwrap();
    let ours = attached(&pair);
    let stripped = || pair.on_server(|| capture.stripped()).unwrap();
    assert_eq!((ours.len(), stripped()), (2, Vec::new()));
    pair.output(command);
    if !is_removed {
        assert_eq!((attached(&pair), stripped()), (ours, Vec::new()), "{command:?}");
        return;
    }
    assert_eq!(stripped(), slice::from_ref(&device), "{command:?}");
    pair.on_server(|| {
        capture.retain(&[]).unwrap();
        capture.attach(&device).unwrap();
    });
    assert_eq!((attached(&pair), stripped()), (ours, Vec::new()), "{command:?}");
}

#[test]
fn filters_that_others_remove_are_missed_and_put_back() {
    check(Attachment::Clsact, &["tc", "qdisc", "del", "dev", DEVICE, "clsact"], true);
    check(Attachment::Clsact, &["tc", "filter", "del", "dev", DEVICE, "egress"], true);
    check(Attachment::Clsact, &["tc", "filter", "del", "dev", DEVICE, "ingress", "prio", "90"], true);
}

#[test]
fn a_change_that_leaves_them_is_none() {
    check(Attachment::Clsact, &["tc", "qdisc", "add", "dev", DEVICE, "root", "pfifo"], false);
    if possible(Attachment::Tcx) == Attachment::Tcx {
        check(Attachment::Tcx, &["tc", "qdisc", "add", "dev", DEVICE, "clsact"], false);
    }
}
