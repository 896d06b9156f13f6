//! Anytime-valid confidence bounds: for a rate, and for the rank of a quantile.
//!
//! Both invert one martingale. For Bernoulli trials with success rate `p`, and any Beta(a, b) fixed beforehand,
//!
//! ```text
//! M(p) = B(a + successes, b + failures) / (B(a, b) · p^successes · (1 - p)^failures)
//! ```
//!
//! starts at 1 and is a non-negative martingale, so it ever reaches `1/alpha` with probability at most `alpha`
//! (Ville's inequality). The rates at which it has not are a confidence sequence: it holds the true rate at *all*
//! times at once with probability `1 - alpha`, however often someone looks and whenever they stop.
//!
//! The mixing distribution has its mean at a rate named by the caller before any data (the limit that the rate will
//! be compared with), which makes the bounds tight there and costs no validity anywhere. Trials are taken to be
//! independent; requests of one connection are not quite.
//!
//! Pure arithmetic: it knows nothing of requests or verdicts.

/// Bounds on a rate, `0.0 <= lower <= upper <= 1.0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    /// The rate is not below this.
    pub(crate) lower: f64,
    /// The rate is not above this.
    pub(crate) upper: f64,
}

impl Interval {
    /// What is known before the first trial.
    pub(crate) const UNKNOWN: Interval = Interval { lower: 0.0, upper: 1.0 };
}

/// Bounds on the rank (1-based, in ascending order) of the observation that a quantile lies at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranks {
    /// The quantile is not below the observation of this rank; 0 bounds nothing.
    pub(crate) lower: u64,
    /// The quantile is not above the observation of this rank; `None` bounds nothing.
    pub(crate) upper: Option<u64>,
}

/// Halvings after which a bound is as exact as an `f64`.
const BISECTIONS: usize = 80;
/// The smaller parameter of the mixing distribution; the other follows from its mean.
const MIXING: f64 = 0.5;
/// A mean that is no rate to look for (0 or 1) is moved this far inside.
const MEAN_MARGIN: f64 = 1e-6;

/// The confidence sequence's bounds on the rate after `successes` of `trials`, tight around the rate `around`.
pub(crate) fn rate(successes: u64, trials: u64, around: f64, alpha: f64) -> Interval {
    let successes = successes.min(trials);
    if trials == 0 {
        return Interval::UNKNOWN;
    }
    let martingale = Martingale::new(around);
    let evidence = martingale.evidence(successes, trials);
    let limit = -alpha.ln();
    let reached = |p: f64| evidence - likelihood(successes, trials, p) >= limit;
    let observed = successes as f64 / trials as f64;
    let lower = if successes == 0 { 0.0 } else { bisect(0.0, observed, &reached) };
    let upper = if successes == trials { 1.0 } else { bisect(1.0, observed, &reached) };
    Interval { lower, upper }
}

/// The fewest trials, at least `trials`, after which the upper bound is within `limit` if no success is added;
/// `None` above `most`.
pub(crate) fn trials_until_within(
    successes: u64,
    trials: u64,
    limit: f64,
    alpha: f64,
    most: u64,
) -> Option<u64> {
    let within = |trials: u64| rate(successes, trials, limit, alpha).upper <= limit;
    if !within(most) {
        return None;
    }
    let (mut too_few, mut enough) = (trials, most);
    if within(too_few) {
        return Some(too_few);
    }
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if within(middle) { enough = middle } else { too_few = middle }
    }
    Some(enough)
}

/// The ranks between which the `quantile` lies after `observations`, at all times at once.
///
/// The number of observations at or below the true quantile is a count of trials whose rate is known: the quantile.
pub(crate) fn ranks(observations: u64, quantile: f64, alpha: f64) -> Ranks {
    let martingale = Martingale::new(quantile);
    let limit = -alpha.ln();
    let possible = |below: u64| {
        martingale.evidence(below, observations) - likelihood(below, observations, quantile) < limit
    };
    let likely = ((observations as f64) * quantile).round() as u64;
    let likely = likely.min(observations);
    let fewest = first(0, likely, &possible);
    let most = observations - first(0, observations - likely, &|above| possible(observations - above));
    Ranks { lower: fewest, upper: (most < observations).then_some(most + 1) }
}

/// The smallest value in `from..=to` for which `holds`, which holds at `to` and stays true once true.
fn first(from: u64, to: u64, holds: &dyn Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (from, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    high
}

/// The point between `outside`, where `reached` is true, and `inside`, where it is not; errs toward `outside`.
fn bisect(outside: f64, inside: f64, reached: &dyn Fn(f64) -> bool) -> f64 {
    let (mut outside, mut inside) = (outside, inside);
    for _ in 0..BISECTIONS {
        let middle = outside + (inside - outside) / 2.0;
        if reached(middle) { outside = middle } else { inside = middle }
    }
    outside
}

/// The mixture's side of the martingale: what does not depend on the rate.
struct Martingale {
    a: f64,
    b: f64,
    start: f64,
}

impl Martingale {
    fn new(mean: f64) -> Martingale {
        let mean = mean.clamp(MEAN_MARGIN, 1.0 - MEAN_MARGIN);
        let (a, b) = if mean <= 0.5 {
            (MIXING, MIXING * (1.0 - mean) / mean)
        } else {
            (MIXING * mean / (1.0 - mean), MIXING)
        };
        Martingale { a, b, start: ln_beta(a, b) }
    }

    fn evidence(&self, successes: u64, trials: u64) -> f64 {
        ln_beta(self.a + successes as f64, self.b + (trials - successes) as f64) - self.start
    }
}

/// The logarithm of the likelihood of a rate, where nothing happened counting as certain.
fn likelihood(successes: u64, trials: u64, p: f64) -> f64 {
    let part = |count: u64, p: f64| if count == 0 { 0.0 } else { count as f64 * p };
    part(successes, p.ln()) + part(trials - successes, (-p).ln_1p())
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// The logarithm of the gamma function for `x > 0`: Stirling's series, after raising small arguments by the recurrence.
fn ln_gamma(x: f64) -> f64 {
    const ENOUGH: f64 = 12.0;
    let (mut x, mut product) = (x, 1.0);
    while x < ENOUGH {
        product *= x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = 1.0 / 12.0
        - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0)));
    let half_ln_tau = std::f64::consts::TAU.ln() / 2.0;
    (x - 0.5) * x.ln() - x + half_ln_tau + series / x - product.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_gamma_at_known_points() {
        let factorial_19: f64 = (1..=19u64).map(|n| n as f64).product();
        let cases = [
            (0.5, std::f64::consts::PI.sqrt().ln()),
            (1.0, 0.0),
            (2.0, 0.0),
            (5.0, 24f64.ln()),
            (20.0, factorial_19.ln()),
        ];
        for (x, expected) in cases {
            assert!((ln_gamma(x) - expected).abs() < 1e-11, "ln_gamma({x}) = {}", ln_gamma(x));
        }
        let mut x = 0.001;
        while x < 1e6 {
            let step = ln_gamma(x + 1.0) - ln_gamma(x) - x.ln();
            assert!(step.abs() < 1e-8, "recurrence at {x}: {step}");
            x *= 1.37;
        }
    }

    #[test]
    fn bounds_hold_the_observed_rate_and_narrow_with_evidence() {
        for around in [0.001, 0.01, 0.5, 0.95] {
            for (successes, trials) in [(0, 1), (1, 1), (1, 2), (0, 50), (3, 50), (50, 50), (7, 12_345)] {
                let bounds = rate(successes, trials, around, 0.05);
                let observed = successes as f64 / trials as f64;
                assert!((0.0..=observed).contains(&bounds.lower), "{successes}/{trials}: {bounds:?}");
                assert!((observed..=1.0).contains(&bounds.upper), "{successes}/{trials}: {bounds:?}");
                let more = rate(successes * 10, trials * 10, around, 0.05);
                assert!(
                    more.upper - more.lower < bounds.upper - bounds.lower,
                    "{successes}/{trials} at {around}"
                );
                let surer = rate(successes, trials, around, 0.01);
                assert!(surer.lower <= bounds.lower && surer.upper >= bounds.upper);
            }
        }
        assert_eq!(rate(0, 0, 0.01, 0.05), Interval::UNKNOWN);
    }

    #[test]
    fn one_success_more_raises_both_bounds() {
        for successes in 0..100 {
            let (less, more) = (rate(successes, 100, 0.1, 0.05), rate(successes + 1, 100, 0.1, 0.05));
            assert!(less.lower < more.lower && less.upper <= more.upper, "{successes}: {less:?} {more:?}");
        }
    }

    #[test]
    fn coverage_holds_under_continuous_peeking() {
        const RUNS: u32 = 600;
        const TRIALS: u64 = 1_500;
        let mut random = fastrand::Rng::with_seed(7);
        for (p, around, alpha) in
            [(0.01, 0.01, 0.05), (0.002, 0.001, 0.05), (0.05, 0.01, 0.1), (0.5, 0.01, 0.05)]
        {
            let martingale = Martingale::new(around);
            let mut missed = 0;
            for _ in 0..RUNS {
                let mut successes = 0;
                let ever_outside = (1..=TRIALS).any(|trials| {
                    successes += u64::from(random.f64() < p);
                    martingale.evidence(successes, trials) - likelihood(successes, trials, p)
                        >= -f64::ln(alpha)
                });
                missed += u32::from(ever_outside);
            }
            // Three standard deviations above what is promised.
            let promised = alpha * f64::from(RUNS);
            let most = promised + 3.0 * (promised * (1.0 - alpha)).sqrt();
            assert!(
                f64::from(missed) <= most,
                "rate {p}: {missed} of {RUNS} runs left the bounds, promised {promised}"
            );
        }
    }

    #[test]
    fn the_bounds_are_where_the_martingale_says() {
        for (successes, trials, around) in [(3u64, 400u64, 0.01), (0, 900, 0.001), (40, 100, 0.5)] {
            let bounds = rate(successes, trials, around, 0.05);
            let martingale = Martingale::new(around);
            let at = |p: f64| martingale.evidence(successes, trials) - likelihood(successes, trials, p);
            for bound in [bounds.lower, bounds.upper].into_iter().filter(|bound| *bound > 0.0) {
                assert!((at(bound) - 20f64.ln()).abs() < 1e-6, "{bound} of {bounds:?}");
            }
        }
    }

    #[test]
    fn quantile_ranks_hold_the_true_quantile_under_peeking() {
        const RUNS: u32 = 300;
        let mut random = fastrand::Rng::with_seed(11);
        let mut missed = 0;
        for _ in 0..RUNS {
            let mut below = 0;
            let ever_outside = (1..=800u64).any(|observations| {
                // The true 95th percentile of a uniform value is 0.95.
                below += u64::from(random.f64() <= 0.95);
                if !observations.is_multiple_of(10) {
                    return false;
                }
                let ranks = ranks(observations, 0.95, 0.05);
                below < ranks.lower || ranks.upper.is_some_and(|upper| below + 1 > upper)
            });
            missed += u32::from(ever_outside);
        }
        assert!(missed <= 26, "{missed} of {RUNS} runs left the bounds, promised 15");
    }

    #[test]
    fn quantile_ranks_enclose_the_sample_quantile_and_need_evidence() {
        let cases = [(0, false), (10, false), (60, false), (1_000, true), (100_000, true)];
        for (observations, bounded) in cases {
            let ranks = ranks(observations, 0.95, 0.05);
            let sample = (observations as f64 * 0.95).round() as u64;
            assert!(ranks.lower <= sample, "{observations}: {ranks:?}");
            assert_eq!(ranks.upper.is_some(), bounded, "{observations}: {ranks:?}");
            assert!(ranks.upper.is_none_or(|upper| upper > sample && upper <= observations));
        }
    }

    #[test]
    fn the_trials_still_needed_are_the_first_that_do() {
        for (successes, limit) in [(0, 0.01), (0, 0.001), (2, 0.01), (5, 0.05)] {
            let needed = trials_until_within(successes, 1, limit, 0.05, 10_000_000).unwrap();
            assert!(rate(successes, needed, limit, 0.05).upper <= limit);
            assert!(rate(successes, needed - 1, limit, 0.05).upper > limit);
        }
        assert_eq!(trials_until_within(0, 1, 0.001, 0.05, 1_000), None);
    }
}
