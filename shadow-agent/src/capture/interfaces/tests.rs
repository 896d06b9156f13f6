use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;

fn capture(interfaces: &[&str], polarity: Polarity) -> Capture {
    let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
    Capture { interfaces, polarity, ..Capture::default() }
}

fn link(name: &str, index: u32, hardware: u16, kind: &str, enslaved: bool, addresses: &[&str]) -> Link {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Link {
        name: name.to_owned(),
        index,
        hardware,
        kind: kind.to_owned(),
        up: true,
        enslaved,
        xdp: None,
        addresses,
    }
}

fn host() -> Vec<Link> {
    vec![
        link("lo", 1, ARPHRD_LOOPBACK, "", false, &["127.0.0.1", "::1"]),
        link("eth0", 2, ARPHRD_ETHER, "", false, &["10.0.0.1", "fe80::1"]),
        link("eth1", 3, ARPHRD_ETHER, "", true, &[]),
        link("veth1", 4, ARPHRD_ETHER, "veth", false, &["fe80::2"]),
        link("veth2", 5, ARPHRD_ETHER, "veth", true, &["10.2.0.1"]),
        link("veth3", 6, ARPHRD_ETHER, "veth", false, &["10.3.0.1"]),
        link("tap0", 7, ARPHRD_ETHER, "tun", false, &[]),
        link("tun0", 8, ARPHRD_NONE, "tun", false, &[]),
        link("wg0", 9, ARPHRD_NONE, "wireguard", false, &["10.9.0.1"]),
        link("tunl0", 10, ARPHRD_TUNNEL, "ipip", false, &[]),
        link("can0", 11, 280, "", false, &[]),
        link("br0", 12, ARPHRD_ETHER, "bridge", false, &["10.5.0.1"]),
        link("nk0", 13, ARPHRD_ETHER, "netkit", false, &["169.254.0.1"]),
    ]
}

#[track_caller]
fn check(interfaces: &[&str], polarity: Polarity, expected: &[(&str, Layer, Toward)]) {
    let selection = select(&capture(interfaces, polarity), &host()).unwrap();
    let found: Vec<_> =
        selection.devices.iter().map(|device| (&*device.name, device.layer, device.toward_server)).collect();
    assert_eq!(found, expected);
}

#[test]
fn devices_are_known_by_type_kind_and_addresses() {
    use Layer::{Ethernet, Ip};
    use Toward::{Both, Egress, Ingress};
    let auto = Polarity::Auto;
    check(&["lo"], auto, &[("lo", Ethernet, Both)]);
    check(&["eth?"], auto, &[("eth0", Ethernet, Ingress), ("eth1", Ethernet, Ingress)]);
    check(
        &["veth*", "veth1"],
        auto,
        &[("veth1", Ethernet, Egress), ("veth2", Ethernet, Egress), ("veth3", Ethernet, Ingress)],
    );
    check(
        &["{tap,tun,wg}0", "tunl0"],
        auto,
        &[("tap0", Ethernet, Egress), ("tun0", Ip, Ingress), ("wg0", Ip, Ingress), ("tunl0", Ip, Ingress)],
    );
    check(&["br0", "nk0"], auto, &[("br0", Ethernet, Ingress), ("nk0", Ethernet, Egress)]);
}

#[test]
fn polarity_overrides_all_but_loopback() {
    use Layer::Ethernet;
    check(
        &["eth0", "lo"],
        Polarity::Egress,
        &[("lo", Ethernet, Toward::Both), ("eth0", Ethernet, Toward::Egress)],
    );
    check(&["veth1"], Polarity::Ingress, &[("veth1", Ethernet, Toward::Ingress)]);
}

#[test]
fn what_means_no_device_is_refused_with_what_exists() {
    let all = "lo, eth0, eth1, veth1, veth2, veth3, tap0, tun0, wg0, tunl0, can0, br0, nk0";
    for (interfaces, message) in [
        (
            &["lo", "eth9"][..],
            format!("there is no interface `eth9` here; give one of those that exist: {all}"),
        ),
        (
            &["cali*"],
            format!("no interface matches `cali*`; give a name or a glob for those that exist: {all}"),
        ),
        (
            &["can*"],
            format!("no interface matches `can*`; give a name or a glob for those that exist: {all}"),
        ),
        (
            &["can0"],
            "interface `can0` has link type 280, whose packets shadow-agent cannot read; \
             give an Ethernet, loopback or IP tunnel interface"
                .to_owned(),
        ),
    ] {
        let refused = select(&capture(interfaces, Polarity::Auto), &host()).unwrap_err();
        assert_eq!(refused.to_string(), message);
    }
}

#[test]
fn what_is_likely_not_meant_is_a_warning() {
    let mut links = host();
    links[1].up = false;
    let warnings = |patterns: &[&str]| {
        let selection = select(&capture(patterns, Polarity::Auto), &links).unwrap();
        selection.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        warnings(&["eth0"]),
        ["interface eth0 is down; it is captured from once it is up (ip link set eth0 up)"]
    );
    assert_eq!(warnings(&["*0"]).len(), 3, "down, two levels, and can0: {:?}", warnings(&["*0"]));
    assert_eq!(warnings(&["veth1", "veth2", "lo"]), Vec::<String>::new());
}

#[test]
fn loopback_is_found_here() {
    let devices = resolve(&capture(&["lo"], Polarity::Auto)).unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!((devices[0].layer, devices[0].toward_server), (Layer::Ethernet, Toward::Both));
    assert!(netlink::filters(devices[0].index).is_ok());
}

fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split_whitespace()).status().is_ok_and(|status| status.success())
}

/// Needs root for a network namespace of its own; without, there is only the test above.
#[test]
fn devices_of_a_namespace_are_described_as_they_are() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root to make a network namespace");
        return;
    }
    // The namespace belongs to this thread, and ends with it.
    let found = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(ip("link set lo up"));
        assert!(ip("link add va type veth peer name vb"));
        assert!(ip("link add br9 type bridge"));
        assert!(ip("link set vb master br9"));
        assert!(ip("address add 10.99.0.1/24 dev va"));
        assert!(ip("link set va up"));
        assert!(ip("tuntap add dev t0 mode tun"));
        let selection =
            select(&capture(&["va", "vb", "lo", "t0"], Polarity::Auto), &netlink::links().unwrap());
        (selection.unwrap(), own_addresses().unwrap())
    });
    let (selection, addresses) = found.join().unwrap();
    let find = |name: &str| {
        let device = selection.devices.iter().find(|device| device.name == name).unwrap();
        (device.layer, device.toward_server)
    };
    assert_eq!(find("va"), (Layer::Ethernet, Toward::Ingress));
    assert_eq!(find("vb"), (Layer::Ethernet, Toward::Egress));
    assert_eq!(find("lo"), (Layer::Ethernet, Toward::Both));
    assert_eq!(find("t0"), (Layer::Ip, Toward::Ingress));
    assert!(selection.warnings.contains(&Warning::Down("vb".to_owned())), "{:?}", selection.warnings);
    assert!(addresses.contains(&"10.99.0.1".parse().unwrap()), "{addresses:?}");
    assert!(addresses.contains(&"127.0.0.1".parse().unwrap()), "{addresses:?}");
}
