//! Real devices, in network namespaces that belong to a thread and end with it.

use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::super::watch::{self, Heard, Watcher};
use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// Runs `work` in a namespace of its own. Needs root; without, only the tests with made-up devices run.
fn inside(work: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root to make a network namespace");
        return;
    }
    let inside = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        work();
    });
    inside.join().unwrap();
}

#[test]
fn devices_of_a_namespace_are_described_as_they_are() {
    inside(|| {
        // `va` is an endpoint; `vc` is the gateway of a container; `br9` has one behind it; `tb` and its bridge lead out.
        ip("link add va type veth peer name pa");
        ip("link add vb type veth peer name pb");
        ip("link add vc type veth peer name pc");
        ip("link add br9 type bridge");
        ip("link set vb master br9");
        ip("link add brx type bridge");
        ip("link add vx type vxlan id 9 dstport 4789");
        ip("link set vx master brx");
        ip("tuntap add dev tb mode tap");
        ip("tuntap add dev t0 mode tun");
        ip("link add link va name mv type macvlan");
        ip("address add 10.99.0.1/24 dev va");
        ip("address add 10.98.0.1/24 dev br9");
        ip("address add 10.4.0.1/32 dev vc");
        for device in ["va", "vc", "pc", "br9", "pa"] {
            ip(&format!("link set {device} up"));
        }
        let toward = |name: &str| {
            let selection = select(&capture(&[name], Polarity::Auto), &netlink::links().unwrap());
            let device = selection.checked().unwrap().devices.remove(0);
            (device.layer, device.toward_server)
        };
        use Layer::{Ethernet, Ip};
        use Toward::{Both, Egress, Ingress};
        let expected = [
            ("lo", Ethernet, Both),
            ("va", Ethernet, Ingress),
            ("vb", Ethernet, Egress),
            ("vc", Ethernet, Egress),
            ("br9", Ethernet, Egress),
            ("brx", Ethernet, Ingress),
            ("tb", Ethernet, Egress),
            ("t0", Ip, Ingress),
            ("mv", Ethernet, Ingress),
        ];
        for (name, layer, expected) in expected {
            assert_eq!(toward(name), (layer, expected), "{name}");
        }
        // What makes a gateway's device an endpoint is the way out.
        ip("route add default dev vc");
        assert_eq!(toward("vc"), (Ethernet, Ingress));

        let links = netlink::links().unwrap();
        let warnings = |names: &[&str]| select(&capture(names, Polarity::Auto), &links).warnings;
        let two = warnings(&["br9", "va"]);
        assert!(two.iter().any(|one| matches!(one, Warning::TwoLevels { .. })), "{two:?}");
        for (upper, lower) in [("br9", "vb"), ("mv", "va"), ("va", "pa")] {
            let found = warnings(&[upper, lower]);
            assert!(
                found.iter().any(|one| matches!(one, Warning::Stacked { .. })),
                "{upper}, {lower}: {found:?}"
            );
        }
        assert!(warnings(&["vb"]).contains(&Warning::Down("vb".to_owned())));
        let addresses = own_addresses(None).unwrap();
        for address in ["10.99.0.1", "127.0.0.1"] {
            assert!(addresses.contains(&address.parse().unwrap()), "{addresses:?}");
        }
    });
}

#[test]
fn changes_are_heard_of_and_devices_that_went_are_named() {
    inside(|| {
        let (_stop, stopped) = watch::stop().unwrap();
        let watcher = Watcher::new().unwrap();
        let heard = || match watcher.wait(&stopped, Some(TIMEOUT)).unwrap() {
            Heard::Changed(gone) => gone,
            other => panic!("{other:?}"),
        };
        ip("link add va type veth peer name vb");
        heard();
        ip("address add 10.99.0.1/24 dev va");
        heard();
        ip("link add br9 type bridge");
        ip("link set va master br9");
        ip("link set va nomaster");
        assert_eq!(heard(), Vec::<u32>::new(), "a port that leaves its bridge is still there");
        let index = netlink::links().unwrap().iter().find(|link| link.name == "va").unwrap().index;
        ip("link del va");
        let mut gone = heard();
        while !gone.contains(&index) {
            gone.extend(heard());
        }
    });
}

#[test]
fn a_default_route_is_heard_of_and_others_are_not() {
    inside(|| {
        let (_stop, stopped) = watch::stop().unwrap();
        let watcher = Watcher::new().unwrap();
        let heard = || watcher.wait(&stopped, Some(TIMEOUT)).unwrap();
        ip("route add 10.5.0.0/16 dev lo");
        assert_eq!(heard(), Heard::Nothing);
        for family in ["-4", "-6"] {
            for change in ["add", "del"] {
                ip(&format!("{family} route {change} default dev lo"));
                assert_eq!(heard(), Heard::Changed(Vec::new()), "{family} {change}");
            }
        }
    });
}

#[test]
fn notifications_that_were_lost_are_a_change_too() {
    inside(|| {
        let (_stop, stopped) = watch::stop().unwrap();
        let watcher = Watcher::new().unwrap();
        // More than the socket's buffer holds.
        let many: String = (0..4000).map(|_| "link set lo down\nlink set lo up\n").collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), many).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        assert!(matches!(watcher.wait(&stopped, Some(TIMEOUT)).unwrap(), Heard::Changed(_)));
        assert_eq!(watcher.wait(&stopped, Some(Duration::from_millis(1))).unwrap(), Heard::Nothing);
    });
}
