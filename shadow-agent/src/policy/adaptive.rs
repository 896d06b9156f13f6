//! Spreads a budget of replays per second over the endpoints: rare and error-prone ones get more of their traffic replayed
//! than common ones, and every one that is seen gets some.
//!
//! In each [`PERIOD`] an endpoint has one chance of being replayed. It goes by the root of its rate, so that an endpoint a
//! hundred times as common gets ten times as many replays; by what its last results were, up to [`BOOST`] times; and it is
//! such that all of them together fit the budget. Besides, the first request of an endpoint in [`MINIMUM`] is replayed for
//! certain. Every exchange that is chosen weighs one divided by the chance that it had, so weighted sums estimate what
//! would have been seen of all (Horvitz and Thompson): a chance depends on what came before, never on the exchange itself.
//!
//! A surge meets a brake until the next period knows of it: beyond the budget, chances go down to a quarter again and again.
//! They never reach 0, which would leave something out unseen.
//!
//! Pure: ids and time in, weights out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::chance::position;
use crate::exchange::ExchangeId;

/// How often chances are computed.
pub const PERIOD: Duration = Duration::from_secs(1);

/// Within this time, each endpoint that is seen gets one replay at least; or within as much more as it takes for these to
/// need half of the budget.
pub const MINIMUM: Duration = Duration::from_secs(10);

/// How many times as many replays an endpoint gets whose results are all bad.
pub const BOOST: f64 = 4.0;

/// The least chance, and so one divided by the greatest weight.
pub const RAREST: f64 = 1.0 / 65_536.0;

/// The part of the budget that is aimed at: rates are never quite those of the last period.
const AIM: f64 = 0.95;

/// How much a new period counts in a rate.
const FRESH: f64 = 0.3;

/// How much a new result counts in what an endpoint's last results were.
const RECENT: f64 = 1.0 / 16.0;

/// Beyond the budget, the brake takes hold again after each eighth of it.
const BRAKES: f64 = 8.0;

/// Keeps this choice independent of every other one that goes by an id.
const SALT: u64 = 0x6275_6467;

#[derive(Clone, Copy, Debug, Default)]
struct Endpoint {
    /// Requests per second; none before its first period ended.
    rate: Option<f64>,
    /// Requests in this period.
    seen: u64,
    /// When the next one is replayed for certain.
    due: Duration,
    /// How bad its last results were, 0 to 1.
    bad: f64,
}

impl Endpoint {
    /// How many times as many replays it gets as if its results were good.
    fn boost(&self) -> f64 {
        1.0 + (BOOST - 1.0) * self.bad
    }

    /// Its rate as far as it is known, which within a surge is what came already.
    fn rate(&self) -> f64 {
        let now = self.seen as f64 / PERIOD.as_secs_f64();
        self.rate.map_or(now, |rate| rate.max(now))
    }
}

/// A budget, and what is known about the endpoints that share it.
#[derive(Debug)]
pub struct Adaptive {
    budget: f64,
    most: usize,
    endpoints: HashMap<Arc<str>, Endpoint>,
    /// Where all endpoints beyond the bound are one.
    rest: Endpoint,
    /// When this period began; none before the first request.
    began: Option<Duration>,
    /// The chance of an endpoint of one request per second without bad results.
    level: f64,
    /// How long an endpoint waits for its next certain replay.
    minimum: Duration,
    /// Replays chosen that no budget was there for yet.
    debt: f64,
}

impl Adaptive {
    /// So many replays per second, for so many endpoints told apart at most.
    #[must_use]
    pub fn new(budget: f64, most: usize) -> Adaptive {
        Adaptive {
            budget,
            most,
            endpoints: HashMap::new(),
            rest: Endpoint::default(),
            began: None,
            level: f64::INFINITY,
            minimum: MINIMUM,
            debt: 0.0,
        }
    }

    /// Whether an exchange of that endpoint is replayed, at that time since any one moment; if so, its weight.
    pub fn choose(&mut self, endpoint: &Arc<str>, id: ExchangeId, now: Duration) -> Option<f64> {
        self.turn(now);
        let (level, minimum, room, brake) =
            (self.level, self.minimum, self.debt < self.capacity(), self.brake());
        let entry = self.entry(endpoint);
        entry.seen += 1;
        let chance = match now >= entry.due && room {
            true => {
                entry.due = now + minimum;
                1.0
            }
            false => chance(level, entry, minimum) * brake,
        };
        let chance = chance.clamp(RAREST, 1.0);
        if position(id.0, SALT) >= chance {
            return None;
        }
        self.debt += 1.0;
        Some(1.0 / chance)
    }

    /// Takes what a replay of that endpoint came to.
    pub fn learn(&mut self, endpoint: &Arc<str>, bad: bool) {
        let entry = self.entry(endpoint);
        entry.bad += RECENT * (f64::from(u8::from(bad)) - entry.bad);
    }

    fn entry(&mut self, endpoint: &Arc<str>) -> &mut Endpoint {
        if !self.endpoints.contains_key(endpoint) && self.endpoints.len() >= self.most {
            return &mut self.rest;
        }
        self.endpoints.entry(Arc::clone(endpoint)).or_default()
    }

    /// What may be chosen within a period.
    fn capacity(&self) -> f64 {
        self.budget * PERIOD.as_secs_f64()
    }

    /// What chances are multiplied by, for what was chosen already.
    fn brake(&self) -> f64 {
        let over = self.debt - self.capacity();
        if over < 0.0 {
            return 1.0;
        }
        let step = (self.capacity() / BRAKES).max(1.0);
        0.25_f64.powi(1 + (over / step).min(16.0) as i32)
    }

    /// Ends the period if its time is over.
    fn turn(&mut self, now: Duration) {
        let began = *self.began.get_or_insert(now);
        let elapsed = now.saturating_sub(began);
        if elapsed < PERIOD {
            return;
        }
        self.began = Some(now);
        let seconds = elapsed.as_secs_f64();
        // As many periods as there could have been each count alike.
        let fresh = 1.0 - (1.0 - FRESH).powf(seconds / PERIOD.as_secs_f64());
        for endpoint in self.endpoints.values_mut().chain([&mut self.rest]) {
            let rate = std::mem::take(&mut endpoint.seen) as f64 / seconds;
            endpoint.rate = Some(endpoint.rate.map_or(rate, |before| before + fresh * (rate - before)));
        }
        self.debt = (self.debt - self.budget * seconds).max(0.0);
        let least = 2.0 * (self.endpoints.len() + 1) as f64 / self.budget;
        self.minimum = MINIMUM.max(Duration::try_from_secs_f64(least).unwrap_or(Duration::MAX / 4));
        self.level = self.level();
    }

    /// The level at which all that is not certain needs what the certain ones leave of the budget.
    fn level(&self) -> f64 {
        let all = || self.endpoints.values().chain([&self.rest]);
        let certain: f64 = all().map(|endpoint| endpoint.rate().min(1.0 / self.minimum.as_secs_f64())).sum();
        let left = (self.budget * AIM - certain).max(0.0);
        let needed = |level: f64| -> f64 {
            all()
                .map(|endpoint| further(endpoint, self.minimum) * chance(level, endpoint, self.minimum))
                .sum()
        };
        if needed(f64::INFINITY) <= left {
            return f64::INFINITY;
        }
        // What is needed rises with the level; everything needs 1e6 at most.
        let (mut low, mut high) = (0.0, 1e6);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if needed(middle) <= left { low = middle } else { high = middle }
        }
        low
    }
}

/// The rate of requests that are not replayed for certain.
fn further(endpoint: &Endpoint, minimum: Duration) -> f64 {
    (endpoint.rate() - 1.0 / minimum.as_secs_f64()).max(0.0)
}

/// The chance of a request that is not replayed for certain.
fn chance(level: f64, endpoint: &Endpoint, minimum: Duration) -> f64 {
    let root = further(endpoint, minimum).sqrt();
    if root <= 0.0 { 1.0 } else { (level * endpoint.boost() / root).min(1.0) }
}

#[cfg(test)]
mod tests;
