//! What leaves no place for our filters is named, and nothing is touched.

use shadow_agent::capture::kernel::{Attachment, KernelCapture, KernelError, Occupant};

use super::{of_others, possible};
use crate::capture;
use crate::netns::{DEVICE, Pair};
use crate::veth::attached;

/// After `commands`, attaching without TCX fails with `expected`, and changes nothing.
fn check(commands: &[&[&str]], expected: &Occupant, said: &str) {
    let pair = Pair::new();
    for command in commands {
        pair.output(&[&["tc"], *command].concat());
    }
    let before = of_others(&pair);
    let started =
        pair.on_server(|| KernelCapture::start_with(&capture(), &[pair.device()], true, Attachment::Clsact));
    let Err(error) = started else { panic!("attached in spite of {commands:?}") };
    let text = error.to_string();
    let KernelError::Occupied { device, by } = error else { panic!("{error:?}") };
    assert_eq!((device.as_str(), &by), (DEVICE, expected));
    assert!(text.contains(said) && text.contains(DEVICE), "{text}");
    assert_eq!((attached(&pair), of_others(&pair)), (Vec::new(), before));
    let with_tcx = pair.on_server(|| KernelCapture::start(&capture(), &[pair.device()], true));
    assert_eq!(with_tcx.is_ok(), possible(Attachment::Tcx) == Attachment::Tcx, "TCX needs no such place");
}

#[test]
fn an_ingress_qdisc_is_named() {
    let occupant = Occupant::Discipline("ingress".into());
    check(&[&["qdisc", "add", "dev", DEVICE, "ingress"]], &occupant, "queueing discipline `ingress`");
}

#[test]
fn a_shared_block_is_named() {
    let add = ["qdisc", "add", "dev", DEVICE, "ingress_block", "7", "clsact"];
    check(&[&add], &Occupant::SharedBlock, "shared block");
}

#[test]
fn a_filter_in_our_place_is_named() {
    let of = |kind: &str| Occupant::Filter { priority: 90, kind: kind.into() };
    let u32_ip =
        ["prio", "90", "protocol", "ip", "u32", "match", "ip", "dport", "1", "0xffff", "flowid", "1:1"];
    let u32_all = ["prio", "90", "protocol", "all", "u32", "match", "u32", "0", "0", "flowid", "1:1"];
    for other in [&u32_ip[..], &u32_all] {
        let filter = [&["filter", "add", "dev", DEVICE, "egress"], other].concat();
        check(
            &[&["qdisc", "add", "dev", DEVICE, "clsact"], &filter],
            &of("u32"),
            "`u32` filter with priority 90",
        );
    }
}
