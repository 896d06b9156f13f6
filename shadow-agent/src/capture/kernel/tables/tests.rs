//! Tables of networks and ring sizes.

use super::*;

const MEBIBYTE: u64 = 1024 * 1024;

#[test]
fn rings_are_powers_of_two_within_their_limits() {
    let check = |size, shards, expected: Option<u32>| {
        let result = rings(size, Some(shards)).ok();
        assert_eq!(result, expected.map(|size| Rings { shards, size }), "{size} over {shards}");
    };
    check(8 * MEBIBYTE, 4, Some(2 << 20));
    check(8 * MEBIBYTE, 3, Some(2 << 20));
    check(MIN_RING, 1, Some(256 << 10));
    check(MIN_RING - 1, 1, None);
    check(MIN_RING * 2 - 1, 1, Some(256 << 10));
    check(MIN_RING * 2 - 1, 2, None);
    check(MAX_RING, 1, Some(1 << 30));
    check(MAX_RING + 1, 1, None);
    check(8 * MEBIBYTE, MAX_SHARDS as u16, Some(256 << 10));
    check(64 * MEBIBYTE, MAX_SHARDS as u16 + 1, None);
    check(8 * MEBIBYTE, 0, None);
}

#[test]
fn the_number_of_rings_follows_the_cpus_up_to_a_limit() {
    let chosen = rings(8 * MEBIBYTE, None).unwrap().shards;
    assert!((1..=Capture::AUTO_SHARDS).contains(&chosen), "{chosen}");
}

#[test]
fn a_ring_that_is_too_small_is_refused_with_the_numbers() {
    let error = rings(1000, Some(2)).unwrap_err().to_string();
    assert!(error.contains("1000 bytes for 2 rings") && error.contains("262144"), "{error}");
}

/// The lists that a look-up of the longest prefix finds, as the kernel's trie does it.
fn look_up(table: &[Network], address: &str) -> u32 {
    let address = match address.parse().unwrap() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
        std::net::IpAddr::V6(address) => address,
    };
    table
        .iter()
        .filter(|network| Ipv6Net::new(network.octets.into(), network.prefix).unwrap().contains(&address))
        .max_by_key(|network| network.prefix)
        .map_or(0, |network| network.lists)
}

fn lists_of(include: &[&str], exclude: &[&str]) -> Networks {
    let parse = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect();
    Networks { include: parse(include), exclude: parse(exclude) }
}

#[test]
fn a_prefix_carries_the_lists_of_the_wider_ones() {
    let server = lists_of(&["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"], &["10.1.2.0/24"]);
    let client = lists_of(&["10.1.2.3/32"], &["::/0"]);
    let table = networks(&server, &client).unwrap();
    for (address, expected) in [
        ("10.9.9.9", SERVER_INCLUDE),
        ("10.1.9.9", SERVER_INCLUDE),
        ("10.1.2.9", SERVER_INCLUDE | SERVER_EXCLUDE),
        ("10.1.2.3", SERVER_INCLUDE | SERVER_EXCLUDE | CLIENT_INCLUDE),
        ("192.0.2.1", 0),
        ("2001:db8::1", SERVER_INCLUDE | CLIENT_EXCLUDE),
        ("2001:db9::1", CLIENT_EXCLUDE),
    ] {
        assert_eq!(look_up(&table, address), expected, "{address}");
    }
    assert_eq!(lists(&table), SERVER_INCLUDE | SERVER_EXCLUDE | CLIENT_INCLUDE | CLIENT_EXCLUDE);
}

#[test]
fn one_family_does_not_speak_of_the_other() {
    let ipv4 = networks(&lists_of(&["0.0.0.0/0"], &[]), &Networks::default()).unwrap();
    assert_eq!((look_up(&ipv4, "192.0.2.1"), look_up(&ipv4, "2001:db8::1")), (SERVER_INCLUDE, 0));
    let ipv6 = networks(&lists_of(&["::/0"], &[]), &Networks::default()).unwrap();
    assert_eq!((look_up(&ipv6, "192.0.2.1"), look_up(&ipv6, "2001:db8::1")), (0, SERVER_INCLUDE));
}

#[test]
fn host_bits_and_duplicates_do_not_matter() {
    let table = networks(&lists_of(&["10.1.2.3/8", "10.0.0.0/8"], &[]), &Networks::default()).unwrap();
    assert_eq!(look_up(&table, "10.200.0.1"), SERVER_INCLUDE);
    // The prefix, and the one that stands for all of IPv4.
    assert_eq!(table.len(), 2);
}

#[test]
fn there_can_be_as_many_networks_as_the_trie_holds() {
    let many = |count: u32| Networks {
        // One place is taken by the prefix that stands for all of IPv4.
        include: (1..count)
            .map(|number| format!("10.{}.{}.0/24", number / 256, number % 256).parse().unwrap())
            .collect(),
        exclude: Vec::new(),
    };
    assert_eq!(networks(&many(MAX_NETWORKS), &Networks::default()).unwrap().len(), MAX_NETWORKS as usize);
    let error = networks(&many(MAX_NETWORKS + 1), &Networks::default()).unwrap_err();
    assert!(matches!(error, KernelError::Networks { count: 1025, limit: 1024 }), "{error}");
}

#[test]
fn no_networks_need_no_table() {
    let table = networks(&Networks::default(), &Networks::default()).unwrap();
    assert_eq!((table.len(), lists(&table)), (0, 0));
}
