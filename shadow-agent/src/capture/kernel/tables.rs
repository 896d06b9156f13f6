//! Works out what goes into the kernel's tables: networks, and the sizes of rings.
//!
//! Pure: nothing here touches the kernel.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZero;
use std::thread;

use ipnet::{IpNet, Ipv6Net};
use shadow_ebpf::abi::networks::{CLIENT_EXCLUDE, CLIENT_INCLUDE, SERVER_EXCLUDE, SERVER_INCLUDE};
use shadow_ebpf::abi::{MAX_NETWORKS, MAX_SHARDS};

use super::error::KernelError;
use crate::config::{Capture, Networks};

/// The least size of a ring: room for a few records of the largest size.
pub(super) const MIN_RING: u64 = 256 * 1024;
/// The largest size of a ring.
const MAX_RING: u64 = 1 << 30;

/// How many rings, and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rings {
    /// The number of rings.
    pub(super) shards: u16,
    /// Bytes of one ring: a power of two.
    pub(super) size: u32,
}

/// Splits `size` bytes over the rings, rounding down to a power of two each.
pub(super) fn rings(size: u64, shards: Option<u16>) -> Result<Rings, KernelError> {
    let cpus = || thread::available_parallelism().map_or(1, NonZero::get);
    let shards = shards.unwrap_or_else(|| Capture::auto_shards(cpus()));
    if shards == 0 || usize::from(shards) > MAX_SHARDS {
        return Err(KernelError::Shards { shards, limit: MAX_SHARDS });
    }
    let share = size / u64::from(shards);
    if !(MIN_RING..=MAX_RING).contains(&share) {
        return Err(KernelError::RingSize { size, shards, minimum: MIN_RING, maximum: MAX_RING });
    }
    // In range: MAX_RING fits in 31 bits.
    Ok(Rings { shards, size: 1 << share.ilog2() })
}

/// A prefix in the trie, IPv4 as IPv4-mapped IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// The address.
    pub(super) octets: [u8; 16],
    /// Its significant bits.
    pub(super) prefix: u8,
    /// The lists that hold every address in it: bits of `abi::networks`.
    pub(super) lists: u32,
}

/// Which lists have entries at all.
pub(super) fn lists(networks: &[Network]) -> u32 {
    networks.iter().fold(0, |bits, network| bits | network.lists)
}

/// Merges the four lists into the prefixes of one trie.
///
/// The trie answers with the longest prefix only, so each prefix carries the lists of the wider ones around it.
pub(super) fn networks(server: &Networks, client: &Networks) -> Result<Vec<Network>, KernelError> {
    let configured: Vec<(Ipv6Net, u32)> = [
        (&server.include, SERVER_INCLUDE),
        (&server.exclude, SERVER_EXCLUDE),
        (&client.include, CLIENT_INCLUDE),
        (&client.exclude, CLIENT_EXCLUDE),
    ]
    .into_iter()
    .flat_map(|(list, bit)| list.iter().map(move |network| (mapped(network), bit)))
    .collect();
    if configured.is_empty() {
        return Ok(Vec::new());
    }
    let ipv4 = mapped(&IpNet::from(ipnet::Ipv4Net::default()));
    let mut merged: BTreeMap<Ipv6Net, u32> = configured.iter().map(|&(network, _)| (network, 0)).collect();
    // An IPv6 prefix as wide as ::/0 does not speak of IPv4.
    merged.entry(ipv4).or_insert(0);
    for (prefix, lists) in &mut merged {
        for (wider, bit) in &configured {
            if wider.contains(prefix) && ipv4.contains(wider) == ipv4.contains(prefix) {
                *lists |= bit;
            }
        }
    }
    if merged.len() > MAX_NETWORKS as usize {
        return Err(KernelError::Networks { count: merged.len(), limit: MAX_NETWORKS });
    }
    let entry = |(network, lists): (Ipv6Net, u32)| Network {
        octets: network.network().octets(),
        prefix: network.prefix_len(),
        lists,
    };
    Ok(merged.into_iter().map(entry).collect())
}

fn mapped(network: &IpNet) -> Ipv6Net {
    match network {
        IpNet::V6(network) => network.trunc(),
        IpNet::V4(network) => {
            let address = Ipv4Addr::to_ipv6_mapped(&network.network());
            Ipv6Net::new_assert(address, 96 + network.prefix_len())
        }
    }
}

#[cfg(test)]
mod tests;
