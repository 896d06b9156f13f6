//! The byte budget: what a copy costs, and whether a flow may still be copied.
//!
//! A token bucket, kept as a time: what was copied is paid for up to that time, and the bucket is full when it lies
//! [`DEPTH`] in the past. So a copy is one atomic addition, and refilling is nothing at all. The programs keep the bucket
//! and the flows; this only decides.

/// How much the bucket holds: what the budget allows in this time, in nanoseconds.
pub const DEPTH: u64 = 250_000_000;
/// Below this much in the bucket, no flow is admitted that is not known yet.
pub const RESERVE: u64 = DEPTH / 4;
/// How long a flow is left out that found the bucket empty, in nanoseconds: shorter than [`DEPTH`], so that the bucket is
/// not full, and hence nothing wasted, while a single flow waits.
pub const PENANCE: u64 = DEPTH / 4 * 3;
/// The state of a flow that is admitted; any other is the time until which it is left out.
pub const ADMITTED: u64 = 0;

/// Binary digits behind the point of a price.
const FRACTION: u32 = 20;

/// Nanoseconds that a byte costs, as a constant of the programs: of `rate` bytes a second, which is not 0.
#[must_use]
pub const fn price(rate: u64) -> u64 {
    let price = (1_000_000_000_u64 << FRACTION) / rate;
    // A price of 0 means that there is no budget.
    if price == 0 { 1 } else { price }
}

/// What a copy costs at least, as so many bytes: a segment without payload takes room and time, too.
const LEAST: u32 = 64;

/// What a copy of `bytes` costs, in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn cost(price: u64, bytes: u32) -> u64 {
    let bytes = if bytes < LEAST { LEAST } else { bytes };
    (price * bytes as u64) >> FRACTION
}

/// What is in a bucket that is paid up to `paid`, in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn level(paid: u64, now: u64) -> u64 {
    let level = now.saturating_sub(paid);
    if level < DEPTH { level } else { DEPTH }
}

/// What is to be done with a packet that is to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Copy it; its flow is admitted already.
    Copy,
    /// Copy it, and admit its flow.
    Admit,
    /// Leave it out.
    Shed,
    /// Leave it out, and its flow with it for a while.
    ShedFlow,
}

/// Decides about a packet.
///
/// `state` is that of its flow, when it is known. `opens` says that an exchange may begin with it: it does not come from
/// the server. A flow is admitted by such a packet only, so that what is captured has a beginning. `starts` says that it
/// opens the connection: whatever was known of its flow is history.
#[inline(always)]
#[must_use]
pub const fn decide(state: Option<u64>, level: u64, now: u64, opens: bool, starts: bool) -> Decision {
    match state {
        Some(ADMITTED) if !starts => {
            if level > 0 {
                Decision::Copy
            } else {
                Decision::ShedFlow
            }
        }
        Some(until) if until > now && !starts => Decision::Shed,
        _ if opens && level >= RESERVE => Decision::Admit,
        _ => Decision::Shed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_buys_the_rate() {
        for rate in [64 << 10, 1 << 20, 100 << 20, 1 << 30, 1 << 50] {
            let price = price(rate);
            assert!(price > 0);
            // A second's worth, in packets of 1000 bytes, costs a second within a hundredth where that matters.
            let packets = rate / 1000;
            if rate <= 1 << 33 {
                let second = packets as u128 * u128::from(cost(price, 1000));
                assert!(second.abs_diff(1_000_000_000) < 10_000_000, "{rate}: {second}");
            }
        }
        // The dearest byte times the largest packet fits.
        assert_eq!(cost(price(64 << 10), 600_000), 600_000 * 1_000_000_000_u64 / 65_536);
    }

    #[test]
    fn a_bucket_fills_to_its_depth_and_not_further() {
        for (paid, now, expected) in
            [(0, 0, 0), (0, 1, 1), (0, DEPTH, DEPTH), (0, DEPTH + 1, DEPTH), (5, 4, 0), (5, 5, 0), (5, 6, 1)]
        {
            assert_eq!(level(paid, now), expected, "{paid} {now}");
        }
    }

    #[test]
    fn flows_are_admitted_at_their_beginning_and_left_out_whole() {
        use Decision::{Admit, Copy, Shed, ShedFlow};
        let now = 1_000;
        for (state, level, opens, starts, expected) in [
            (Some(ADMITTED), 1, false, false, Copy),
            (Some(ADMITTED), 0, true, false, ShedFlow),
            (Some(now + 1), DEPTH, true, false, Shed),
            (Some(now), DEPTH, true, false, Admit),
            (Some(now), DEPTH, false, false, Shed),
            (None, RESERVE, true, false, Admit),
            (None, RESERVE - 1, true, false, Shed),
            (None, DEPTH, false, false, Shed),
            (Some(now + 1), DEPTH, true, true, Admit),
            (Some(ADMITTED), RESERVE - 1, true, true, Shed),
            (Some(ADMITTED), RESERVE, true, true, Admit),
        ] {
            assert_eq!(
                decide(state, level, now, opens, starts),
                expected,
                "{state:?} {level} {opens} {starts}"
            );
        }
    }

    /// Offers `flows` equal keep-alive flows, twice the rate in all, for two seconds, and gives what was copied of the
    /// budget.
    fn simulate(flows: usize) -> f64 {
        const RATE: u64 = 100 << 20;
        const BYTES: u32 = 10_000;
        let price = price(RATE);
        let step = 1_000_000_000 * u64::from(BYTES) / (2 * RATE);
        let (mut paid, mut copied) = (0, 0_u64);
        let mut states = vec![None; flows];
        let (start, time) = (10 * DEPTH, 2_000_000_000);
        for (number, now) in (start..start + time).step_by(step as usize).enumerate() {
            let flow = number % flows;
            // Every tenth packet is a request, the others are answers.
            let opens = (number / flows).is_multiple_of(10);
            if level(paid, now) == DEPTH {
                paid = now - DEPTH;
            }
            match decide(states[flow], level(paid, now), now, opens, false) {
                decision @ (Decision::Copy | Decision::Admit) => {
                    if decision == Decision::Admit {
                        states[flow] = Some(ADMITTED);
                    }
                    paid += cost(price, BYTES);
                    copied += u64::from(BYTES);
                }
                Decision::Shed => {}
                Decision::ShedFlow => states[flow] = Some(now + PENANCE),
            }
        }
        (copied as f64 - RATE as f64 * DEPTH as f64 / 1e9) / (RATE as f64 * time as f64 / 1e9)
    }

    #[test]
    fn the_rate_is_met_by_one_flow_and_by_many() {
        for flows in [1, 2, 3, 10, 100, 1000] {
            let met = simulate(flows);
            assert!((0.85..=1.05).contains(&met), "{flows} flows: {met}");
        }
    }
}
