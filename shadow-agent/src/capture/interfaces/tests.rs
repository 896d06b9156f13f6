use super::*;

mod real;

fn capture(interfaces: &[&str], polarity: Polarity) -> Capture {
    let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
    Capture { interfaces, polarity, ..Capture::default() }
}

/// A device that is up, with `master` and `parent` by name, and with these addresses.
#[derive(Default)]
struct Given(&'static str, &'static str, u16, &'static str, &'static str, &'static [&'static str]);

/// Devices of one host, numbered from 1; the one named by `default` has the default route.
fn links(given: &[Given], default: &str) -> Vec<Link> {
    let index =
        |name: &str| given.iter().position(|one| one.0 == name).map(|at| u32::try_from(at).unwrap() + 1);
    let one = |Given(name, kind, hardware, master, parent, addresses): &Given| Link {
        name: (*name).to_owned(),
        index: index(name).unwrap(),
        hardware: *hardware,
        kind: (*kind).to_owned(),
        up: true,
        master: index(master),
        parent: index(parent),
        xdp: None,
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        default_route: *name == default,
    };
    given.iter().map(one).collect()
}

fn host() -> Vec<Link> {
    links(
        &[
            Given("lo", "", ARPHRD_LOOPBACK, "", "", &["127.0.0.1/8", "::1/128"]),
            Given("eth0", "", ARPHRD_ETHER, "", "", &["10.0.0.1/24", "fe80::1/64"]),
            Given("eth1", "", ARPHRD_ETHER, "", "", &[]),
            Given("veth1", "veth", ARPHRD_ETHER, "", "", &["fe80::2/64"]),
            Given("veth2", "veth", ARPHRD_ETHER, "br0", "", &["10.2.0.1/24"]),
            Given("can0", "", 280, "", "", &[]),
            Given("br0", "bridge", ARPHRD_ETHER, "", "", &["10.5.0.1/24"]),
        ],
        "eth0",
    )
}

#[track_caller]
fn check(interfaces: &[&str], polarity: Polarity, expected: &[(&str, Layer, Toward)]) {
    let selection = select(&capture(interfaces, polarity), &host()).checked().unwrap();
    let found: Vec<_> =
        selection.devices.iter().map(|device| (&*device.name, device.layer, device.toward_server)).collect();
    assert_eq!(found, expected);
}

#[test]
fn names_and_globs_mean_each_device_once() {
    use Layer::Ethernet;
    use Toward::{Both, Egress, Ingress};
    let auto = Polarity::Auto;
    check(&["lo"], auto, &[("lo", Ethernet, Both)]);
    check(&["eth?"], auto, &[("eth0", Ethernet, Ingress), ("eth1", Ethernet, Ingress)]);
    check(&["veth*", "veth1"], auto, &[("veth1", Ethernet, Egress), ("veth2", Ethernet, Egress)]);
}

/// What each device is on a host of its own that has these beside it, and which hook leads to the server there.
#[test]
fn the_hook_that_leads_to_the_server_is_found() {
    use Layer::{Ethernet, Ip};
    use Toward::{Both, Egress, Ingress};
    const E: u16 = ARPHRD_ETHER;
    const N: u16 = ARPHRD_NONE;
    let card = || Given("eth0", "", E, "br", "", &[]);
    let pod = || Given("vethx", "veth", E, "br", "", &["fe80::9/64"]);
    let tap = || Given("vnet0", "tun", E, "br", "", &[]);
    let bridge = |addresses| Given("br", "bridge", E, "", "", addresses);
    let subnet: &[&str] = &["10.0.0.1/24"];
    let table: Vec<(&str, Vec<Given>, &str, Layer, Toward)> = vec![
        // Endpoints.
        ("loopback", vec![Given("lo", "", ARPHRD_LOOPBACK, "", "", &["127.0.0.1/8"])], "", Ethernet, Both),
        ("a network card", vec![Given("eth0", "", E, "", "", subnet)], "eth0", Ethernet, Ingress),
        ("a card without address", vec![Given("eth0", "", E, "", "", &[])], "", Ethernet, Ingress),
        ("a card in a bridge", vec![card(), pod(), bridge(&[])], "", Ethernet, Ingress),
        ("a card in a bond", vec![card(), Given("br", "bond", E, "", "", subnet)], "br", Ethernet, Ingress),
        ("a bond", vec![Given("bond0", "bond", E, "", "", subnet)], "bond0", Ethernet, Ingress),
        ("a macvlan", vec![Given("mv0", "macvlan", E, "", "eth0", subnet), card()], "", Ethernet, Ingress),
        (
            "a macvlan of a pair",
            vec![Given("mv0", "macvlan", E, "", "vethx", &[]), pod()],
            "",
            Ethernet,
            Ingress,
        ),
        ("an ipvlan", vec![Given("iv0", "ipvlan", E, "", "eth0", subnet), card()], "", Ethernet, Ingress),
        ("a macvtap", vec![Given("macvtap0", "macvtap", E, "", "eth0", &[]), card()], "", Ethernet, Ingress),
        ("a VLAN of a card", vec![Given("v5", "vlan", E, "", "eth0", subnet), card()], "", Ethernet, Ingress),
        ("without address", vec![Given("v5", "vlan", E, "", "eth0", &[]), card()], "", Ethernet, Ingress),
        ("a vxlan", vec![Given("flannel.1", "vxlan", E, "", "", &["10.244.0.0/32"])], "", Ethernet, Ingress),
        // Pairs.
        ("a container's end", vec![Given("eth0", "veth", E, "", "", subnet)], "eth0", Ethernet, Ingress),
        ("with IPv6", vec![Given("eth0", "veth", E, "", "", &["fd00::5/64"])], "", Ethernet, Ingress),
        (
            "that is routed",
            vec![Given("eth0", "veth", E, "", "", &["10.9.0.7/32"])],
            "eth0",
            Ethernet,
            Ingress,
        ),
        (
            "in a bond",
            vec![Given("p", "veth", E, "b", "", &[]), Given("b", "bond", E, "", "", subnet)],
            "",
            Ethernet,
            Ingress,
        ),
        ("a host's end", vec![Given("cali1", "veth", E, "", "", &["fe80::1/64"])], "", Ethernet, Egress),
        (
            "with the gateway's",
            vec![Given("veth1", "veth", E, "", "", &["10.4.0.1/32"])],
            "eth0",
            Ethernet,
            Egress,
        ),
        (
            "with a link's own",
            vec![Given("veth1", "veth", E, "", "", &["169.254.1.1/16"])],
            "",
            Ethernet,
            Egress,
        ),
        ("in a bridge", vec![Given("v", "veth", E, "br", "", subnet), bridge(&[])], "", Ethernet, Egress),
        (
            "in a switch",
            vec![Given("v", "veth", E, "s", "", &[]), Given("s", "openvswitch", E, "", "", &[])],
            "",
            Ethernet,
            Egress,
        ),
        (
            "in a VRF",
            vec![Given("v", "veth", E, "red", "", &[]), Given("red", "vrf", E, "", "", &[])],
            "",
            Ethernet,
            Egress,
        ),
        (
            "an endpoint in a VRF",
            vec![Given("v", "veth", E, "red", "", subnet), Given("red", "vrf", E, "", "", &[])],
            "",
            Ethernet,
            Ingress,
        ),
        ("a netkit host end", vec![Given("nk0", "netkit", E, "", "", &[])], "", Ethernet, Egress),
        ("a netkit pod end", vec![Given("nk1", "netkit", E, "", "", subnet)], "", Ethernet, Ingress),
        // Bridges, and what stands on them.
        ("of containers", vec![bridge(subnet), pod(), tap()], "", Ethernet, Egress),
        ("without address", vec![bridge(&[]), pod()], "", Ethernet, Egress),
        ("without ports", vec![bridge(subnet)], "", Ethernet, Egress),
        ("with a card", vec![bridge(subnet), card(), tap()], "br", Ethernet, Ingress),
        (
            "with a vxlan",
            vec![bridge(subnet), pod(), Given("x", "vxlan", E, "br", "", &[])],
            "",
            Ethernet,
            Ingress,
        ),
        ("with the way out", vec![bridge(subnet), pod()], "br", Ethernet, Ingress),
        (
            "kept up by a dummy",
            vec![bridge(subnet), Given("d", "dummy", E, "br", "", &[])],
            "",
            Ethernet,
            Egress,
        ),
        (
            "a VLAN of it",
            vec![Given("br.5", "vlan", E, "", "br", subnet), bridge(&[]), pod()],
            "",
            Ethernet,
            Egress,
        ),
        (
            "a VLAN of the other",
            vec![Given("br.5", "vlan", E, "", "br", subnet), bridge(&[]), card()],
            "",
            Ethernet,
            Ingress,
        ),
        (
            "a VLAN in a pod",
            vec![Given("e.5", "vlan", E, "", "e", subnet), Given("e", "veth", E, "", "", &[])],
            "",
            Ethernet,
            Ingress,
        ),
        ("a VLAN to a pod", vec![Given("v.5", "vlan", E, "", "vethx", &[]), pod()], "", Ethernet, Egress),
        // Virtual machines.
        ("a tap", vec![Given("tap0", "tun", E, "", "", &["fe80::3/64"])], "", Ethernet, Egress),
        ("a tap in a bridge", vec![tap(), bridge(subnet), card()], "br", Ethernet, Egress),
        ("a tap of a VPN", vec![Given("tap0", "tun", E, "", "", subnet)], "", Ethernet, Ingress),
        // Layer 3.
        ("a tun", vec![Given("tun0", "tun", N, "", "", &["10.8.0.1/24"])], "", Ip, Ingress),
        ("a tun without address", vec![Given("tun0", "tun", N, "", "", &[])], "", Ip, Ingress),
        ("WireGuard", vec![Given("wg0", "wireguard", N, "", "", &["10.9.0.1/24"])], "", Ip, Ingress),
        ("ipip", vec![Given("tunl0", "ipip", ARPHRD_TUNNEL, "", "", &["10.1.1.0/32"])], "", Ip, Ingress),
        ("gre", vec![Given("gre1", "gre", ARPHRD_IPGRE, "", "", &[])], "", Ip, Ingress),
        ("sit", vec![Given("sit1", "sit", ARPHRD_SIT, "", "", &[])], "", Ip, Ingress),
        ("ppp", vec![Given("ppp0", "ppp", ARPHRD_PPP, "", "", &["10.6.0.2/32"])], "ppp0", Ip, Ingress),
    ];
    for (what, given, default, layer, toward) in table {
        let name = given[0].0;
        let selection = select(&capture(&[name], Polarity::Auto), &links(&given, default)).checked().unwrap();
        let [device] = selection.devices.as_slice() else { panic!("{what}: {selection:?}") };
        assert_eq!((device.layer, device.toward_server), (layer, toward), "{what}: {name}");
    }
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
    let all = "lo, eth0, eth1, veth1, veth2, can0, br0";
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
        let refused = select(&capture(interfaces, Polarity::Auto), &host()).checked().unwrap_err();
        assert_eq!(refused.to_string(), message);
    }
}

#[test]
fn what_is_likely_not_meant_is_a_warning() {
    let mut links = host();
    links[1].up = false;
    let warnings = |patterns: &[&str]| {
        let selection = select(&capture(patterns, Polarity::Auto), &links).checked().unwrap();
        selection.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let check = |patterns: &[&str], starts: &[&str]| {
        let found = warnings(patterns);
        let as_expected = found.len() == starts.len()
            && found.iter().zip(starts).all(|(found, start)| found.starts_with(start));
        assert!(as_expected, "{patterns:?}: {found:?}");
    };
    let levels =
        "eth1 is this host's own and veth1 leads to a workload; a flow that passes both is seen twice";
    check(&["eth0"], &["interface eth0 is down; it is captured from once it is up (ip link set eth0 up)"]);
    check(&["eth1", "veth1"], &[levels]);
    check(&["br0", "veth2"], &["what passes veth2 passes br0 too; each segment is copied twice"]);
    check(
        &["can*", "eth1"],
        &["interface can0 has link type 280 and is left out", "no interface matches `can*` yet"],
    );
    check(&["cali*", "lo"], &["no interface matches `cali*` yet; one that comes is captured from"]);
    check(&["veth1", "veth2", "lo"], &[]);
}

#[test]
fn loopback_is_found_here() {
    let devices = resolve(&capture(&["lo"], Polarity::Auto)).unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!((devices[0].layer, devices[0].toward_server), (Layer::Ethernet, Toward::Both));
    assert!(netlink::filters(devices[0].index).is_ok());
}
