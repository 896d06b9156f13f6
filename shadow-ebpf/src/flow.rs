//! The hash of a flow: the same in both directions, and on every node with the same seed.
//!
//! It is no defence against an adversary; it spreads flows.

use crate::packet::Address;

/// A hash of a flow. Its halves are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(u64);

impl FlowHash {
    /// Hashes two endpoints; exchanging them changes nothing.
    #[inline(always)]
    #[must_use]
    pub const fn new(seed: u32, left: (Address, u16), right: (Address, u16)) -> FlowHash {
        let sum = endpoint(seed, left).wrapping_add(endpoint(seed, right));
        FlowHash(mix(sum ^ seed as u64))
    }

    /// All of it: what the byte budget knows a flow by.
    #[inline(always)]
    #[must_use]
    pub const fn whole(self) -> u64 {
        self.0
    }

    /// The half that decides sampling.
    #[inline(always)]
    #[must_use]
    pub const fn sample(self) -> u32 {
        self.0 as u32
    }

    /// The half that names the flow in records and chooses its shard.
    #[inline(always)]
    #[must_use]
    pub const fn flow(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The shard out of `shards`.
    #[inline(always)]
    #[must_use]
    pub const fn shard(self, shards: u32) -> u32 {
        ((self.flow() as u64 * shards as u64) >> 32) as u32
    }
}

#[inline(always)]
const fn endpoint(seed: u32, (address, port): (Address, u16)) -> u64 {
    // One multiplication keeps port and seed apart from the address; the rest is left to the mixing.
    let high = (address.high ^ ((seed as u64) << 16 | port as u64)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mix(high ^ (high >> 31) ^ address.low)
}

/// A bijection of 64 bits that spreads every input bit (multiply and fold, twice, with odd constants).
#[inline(always)]
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 29)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    value ^ (value >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: (Address, u16) = (Address { high: 0x2001_0DB8 << 32, low: 9 }, 80);

    fn hash(seed: u32, client: u32, port: u16) -> FlowHash {
        FlowHash::new(seed, (Address { high: 0, low: client.into() }, port), SERVER)
    }

    #[test]
    fn both_directions_hash_alike_and_the_seed_matters() {
        let client = (Address { high: 1, low: 2 }, 1000);
        let there = FlowHash::new(7, client, SERVER);
        assert_eq!(there, FlowHash::new(7, SERVER, client));
        assert_ne!(there, FlowHash::new(8, client, SERVER));
        let swapped_ports = FlowHash::new(7, (client.0, SERVER.1), (SERVER.0, client.1));
        assert_ne!(there, swapped_ports, "ports belong to their addresses");
    }

    #[test]
    fn neighbouring_flows_spread_over_shards_and_over_the_sample() {
        const FLOWS: u32 = 40_000;
        let mut shards = [0_u32; 4];
        let mut sampled = [0_u32; 4];
        for number in 0..FLOWS {
            let hash = hash(0, 0x0A00_0000 + number / 200, 32_768 + (number % 200) as u16);
            let shard = hash.shard(4) as usize;
            shards[shard] += 1;
            if hash.sample() < u32::MAX / 4 {
                sampled[shard] += 1;
            }
        }
        // Within six standard deviations of a fair split.
        for count in shards {
            assert!(count.abs_diff(FLOWS / 4) < 520, "{shards:?}");
        }
        for count in sampled {
            assert!(count.abs_diff(FLOWS / 16) < 300, "{sampled:?}");
        }
    }

    #[test]
    fn the_hash_is_pinned_because_nodes_of_different_versions_must_agree() {
        assert_eq!(hash(0, 0x0A00_0001, 40_000).0, 14_741_072_629_218_159_240);
    }

    #[test]
    fn one_shard_takes_everything() {
        assert_eq!(hash(0, 1, 1).shard(1), 0);
    }
}
