//! Tests by simulated traffic.

use proptest::prelude::*;

use super::*;

/// What became of one endpoint.
#[derive(Clone, Debug, Default)]
struct Seen {
    all: u64,
    chosen: u64,
    weight: f64,
    /// Those of which a property holds that the choice knows nothing of, and their weight.
    odd: (u64, f64),
    /// When each was chosen.
    times: Vec<f64>,
}

/// Traffic of these rates for so many seconds, in random order; `bad` says whose results are.
fn simulate(
    budget: f64,
    rates: &[f64],
    seconds: u64,
    seed: u64,
    bad: fn(usize) -> bool,
) -> (Vec<Seen>, Vec<u64>) {
    let names: Vec<Arc<str>> = (0..rates.len()).map(|number| format!("GET /{number}").into()).collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut arrivals = Vec::new();
    for (position, rate) in rates.iter().enumerate() {
        let mut at = 0.0;
        loop {
            at -= (1.0 - random.f64()).ln() / rate;
            if at >= seconds as f64 {
                break;
            }
            arrivals.push((at, position));
        }
    }
    arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut adaptive = Adaptive::new(budget, rates.len());
    let mut seen = vec![Seen::default(); rates.len()];
    let mut by_second = vec![0; seconds as usize];
    for (at, position) in arrivals {
        let odd = random.u8(..) < 50;
        let seen = &mut seen[position];
        seen.all += 1;
        seen.odd.0 += u64::from(odd);
        let chosen =
            adaptive.choose(&names[position], ExchangeId(random.u64(..)), Duration::from_secs_f64(at));
        if let Some(weight) = chosen {
            seen.chosen += 1;
            seen.weight += weight;
            seen.odd.1 += if odd { weight } else { 0.0 };
            seen.times.push(at);
            by_second[at as usize] += 1;
            adaptive.learn(&names[position], bad(position));
        }
    }
    (seen, by_second)
}

fn good(_: usize) -> bool {
    false
}

const RATES: [f64; 6] = [1500.0, 300.0, 50.0, 5.0, 1.0, 0.3];

#[test]
fn rare_endpoints_get_a_larger_share_and_common_ones_more_replays() {
    let (seen, _) = simulate(100.0, &RATES, 120, 1, good);
    let share = |seen: &Seen| seen.chosen as f64 / seen.all as f64;
    for pair in seen.windows(2) {
        assert!(pair[0].chosen > pair[1].chosen, "{pair:?}");
        assert!(share(&pair[0]) <= share(&pair[1]) + 0.01, "{pair:?}");
    }
    assert!(share(&seen[0]) < 0.05 && share(&seen[5]) > 0.9, "{} {}", share(&seen[0]), share(&seen[5]));
}

#[test]
fn whoever_differs_gets_more() {
    let rates = [200.0, 200.0];
    let (seen, _) = simulate(50.0, &rates, 120, 2, |position| position == 1);
    let ratio = seen[1].chosen as f64 / seen[0].chosen as f64;
    assert!((BOOST * 0.8..BOOST * 1.2).contains(&ratio), "{ratio}");
}

#[test]
fn below_the_budget_everything_is_replayed_and_weighs_itself() {
    let (seen, _) = simulate(200.0, &[100.0, 20.0], 60, 3, good);
    for seen in seen {
        assert!(seen.chosen as f64 > 0.97 * seen.all as f64, "{} of {}", seen.chosen, seen.all);
    }
}

#[test]
fn endpoints_beyond_the_bound_share_one_place() {
    let mut adaptive = Adaptive::new(10.0, 2);
    for number in 0..4_u64 {
        let name: Arc<str> = format!("/{number}").into();
        let weight = adaptive.choose(&name, ExchangeId(number), Duration::ZERO);
        assert_eq!((weight, adaptive.endpoints.len()), (Some(1.0), (number as usize + 1).min(2)));
    }
    assert_eq!(adaptive.rest.seen, 2);
}

#[test]
fn a_chance_is_never_so_small_that_a_weight_has_no_bound() {
    let mut adaptive = Adaptive::new(0.001, 1);
    let name: Arc<str> = "/".into();
    let weights: Vec<f64> = (0..2_000_000_u64)
        .filter_map(|id| adaptive.choose(&name, ExchangeId(id), Duration::from_micros(id)))
        .collect();
    assert!(weights.len() > 10 && weights.iter().all(|weight| *weight <= 1.0 / RAREST), "{weights:?}");
}

#[test]
fn a_surge_meets_the_brake_within_its_first_period() {
    let mut adaptive = Adaptive::new(100.0, 10);
    let name: Arc<str> = "/".into();
    let chosen = (0..20_000_u64)
        .filter(|&id| adaptive.choose(&name, ExchangeId(id), Duration::from_micros(id * 50)).is_some())
        .count();
    assert!((100..=200).contains(&chosen), "{chosen} of 20,000 in the first second");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_budget_is_kept_every_endpoint_reaches_its_minimum_and_totals_are_unbiased(
        seed: u64,
        budget in 20.0..300.0_f64,
        mut rates in proptest::collection::vec(0.2..400.0_f64, 2..20),
    ) {
        rates.push(800.0);
        let (seen, by_second) = simulate(budget, &rates, 60, seed, |position| position % 3 == 0);
        let settled: u64 = by_second.iter().skip(5).sum();
        let a_second = settled as f64 / 55.0;
        prop_assert!(a_second <= budget * 1.02 && a_second > budget.min(800.0) * 0.7, "{a_second} a second");
        prop_assert!(by_second.iter().skip(1).all(|&count| count as f64 <= budget * 1.5 + 20.0), "{by_second:?}");
        for (seen, rate) in seen.iter().zip(&rates).filter(|(seen, _)| seen.all > 0) {
            prop_assert!(seen.chosen > 0);
            // The next request behind 10 s comes when it comes, and may find the period full.
            let patience = 10.0 + 2.0 * 21.0 / budget + 14.0 / rate + 2.0;
            for pair in seen.times.windows(2) {
                prop_assert!(pair[1] - pair[0] <= patience, "{rate}/s: {pair:?}");
            }
            // The variance of such a sum is about the sum of weights above one, squared.
            let mean = seen.weight / seen.chosen as f64;
            let spread = 6.0 * (seen.all as f64 * mean).sqrt() + 3.0 * mean;
            prop_assert!((seen.weight - seen.all as f64).abs() <= spread, "{} for {}", seen.weight, seen.all);
            prop_assert!((seen.odd.1 - seen.odd.0 as f64).abs() <= spread, "{:?}", seen.odd);
        }
    }
}

#[test]
fn weighted_totals_have_no_bias_over_many_runs() {
    let (mut weight, mut all) = (0.0, 0.0);
    for seed in 0..40 {
        let (seen, _) = simulate(20.0, &[200.0, 2.0], 20, seed, |position| position == 0);
        weight += seen[0].weight;
        all += seen[0].all as f64;
    }
    // 160,000 requests, 16,000 replays: the standard error is below 1 %.
    assert!((weight / all - 1.0).abs() < 0.03, "{weight} for {all}");
}
