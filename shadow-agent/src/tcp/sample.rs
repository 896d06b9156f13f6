//! Which flows are in the sample: the same answer as the kernel's, so that userspace can let go of a flow at the moment
//! at which the kernel does. It decides nothing about how large the sample is.

use shadow_ebpf::abi;
use shadow_ebpf::flow::FlowHash;

use super::key::FlowKey;
use crate::config::Share;

/// A sample of flows. One of a smaller share is a part of every larger one with the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    seed: u32,
    /// Flows whose hash is below are in it; [`abi::SAMPLE_ALL`] is every flow.
    threshold: u32,
}

impl Sample {
    /// The sample of that share.
    pub(super) fn new(seed: u32, share: Share) -> Sample {
        Sample { seed, threshold: share.threshold() }
    }

    pub(super) fn holds(&self, flow: &FlowKey) -> bool {
        self.threshold == abi::SAMPLE_ALL || self.hash(flow).sample() < self.threshold
    }

    fn hash(&self, flow: &FlowKey) -> FlowHash {
        let [low, high] = flow.endpoints();
        FlowHash::new(self.seed, low, high)
    }
}

#[cfg(test)]
mod tests {
    use shadow_ebpf::packet::Address;

    use super::*;

    #[test]
    fn a_flow_hashes_as_it_does_in_the_kernel() {
        let mapped = |last: u64| Address { high: 0, low: 0xFFFF_0A00_0000 | last };
        let v6 = |last: u64| Address { high: 0x2001_0DB8 << 32, low: last };
        let cases = [
            ("10.0.0.1:40000", "10.0.0.2:80", (mapped(1), 40_000), (mapped(2), 80)),
            ("10.0.0.2:80", "10.0.0.1:40000", (mapped(1), 40_000), (mapped(2), 80)),
            ("[2001:db8::1]:443", "[2001:db8::2]:9", (v6(1), 443), (v6(2), 9)),
        ];
        for (source, destination, one, other) in cases {
            let (key, _) = FlowKey::of(&source.parse().unwrap(), &destination.parse().unwrap());
            let sample = Sample::new(7, Share(0.5));
            assert_eq!(sample.hash(&key), FlowHash::new(7, one, other), "{source} to {destination}");
        }
    }

    #[test]
    fn a_smaller_sample_is_a_part_of_a_larger_one() {
        let flows = (1..=1000_u16)
            .map(|port| FlowKey::of(&([10, 0, 0, 1], port).into(), &([10, 0, 0, 2], 80).into()).0);
        let mut counts = [0; 4];
        for flow in flows {
            let held = [0.0, 0.25, 0.5, 1.0].map(|share| Sample::new(3, Share(share)).holds(&flow));
            assert!(held.is_sorted(), "{flow:?}");
            for (count, held) in counts.iter_mut().zip(held) {
                *count += u32::from(held);
            }
        }
        let [none, quarter, half, all] = counts;
        assert_eq!((none, all), (0, 1000));
        assert!(quarter.abs_diff(250) < 60 && half.abs_diff(500) < 60, "{counts:?}");
    }
}
