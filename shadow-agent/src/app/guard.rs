//! Measures the agent's CPU time for the CPU guard, and carries out what it decides: the sample, a log line, readings.
//!
//! It decides nothing itself, and costs two reads of a clock a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::guards::{Weight, announce};
use crate::config::units::write_share;
use crate::config::{Config, Share};
use crate::control::Control;
use crate::guard::{Direction, Guard, Judgement, Readings};

/// How often CPU time is read, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// What can be done about an agent that needs more than it may have.
const REMEDY: &str = "raise limits.cpu, or capture less (capture.sample, capture.ports, capture.cidrs)";

/// The guard of one running agent.
pub(super) struct CpuGuard {
    /// None without a limit; what is used is measured all the same.
    guard: Option<Guard>,
    limit: Share,
    control: Control,
    readings: Arc<Readings>,
    /// When CPU time was last read, and what it was.
    last: (Instant, Duration),
    /// Whether it was said that sampling cannot be lowered any further.
    complained: bool,
}

impl CpuGuard {
    /// A guard that starts to measure now.
    pub(super) fn new(config: &Config, control: Control, readings: Arc<Readings>) -> CpuGuard {
        CpuGuard {
            guard: config.limits.cpu.map(Guard::new),
            limit: config.limits.cpu.unwrap_or(Share::ALL),
            control,
            readings,
            last: (Instant::now(), cpu_time()),
            complained: false,
        }
    }

    /// Looks at what was used since the last time, if that is long enough ago. To be called often.
    pub(super) fn look(&mut self) {
        let (since, before) = self.last;
        let elapsed = since.elapsed();
        if elapsed < INTERVAL {
            return;
        }
        let now = cpu_time();
        self.last = (Instant::now(), now);
        let used = Share(now.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64());
        self.readings.measured(used);
        if let Some(judgement) = self.guard.as_mut().and_then(|guard| guard.observe(used, elapsed)) {
            self.carry_out(judgement);
        }
    }

    fn carry_out(&mut self, judgement: Judgement) {
        let Some(guard) = &self.guard else { return };
        let limit = write_share(self.limit);
        let old = write_share(self.control.sample());
        match judgement {
            Judgement::Change { direction, used } => {
                let sample = self.control.lower_sample(|configured| guard.step().of(configured));
                self.readings.stepped(direction);
                self.complained = false;
                let (new, used) = (write_share(sample), tenths(used));
                match direction {
                    Direction::Down => announce(
                        "cpu",
                        Weight::Less,
                        &format!(
                            "the agent used {used} of one core, over limits.cpu ({limit}): sampling goes from {old} to \
                             {new} of flows until it has room again; {REMEDY}"
                        ),
                    ),
                    Direction::Up => announce(
                        "cpu",
                        Weight::Good,
                        &format!(
                            "the agent used {used} of one core, well below limits.cpu ({limit}): sampling goes from \
                             {old} to {new} of flows"
                        ),
                    ),
                }
            }
            // Once, not every few seconds.
            Judgement::Exhausted { used } if !self.complained => {
                self.complained = true;
                let used = tenths(used);
                tracing::warn!(
                    "the agent used {used} of one core, over limits.cpu ({limit}), with sampling as low as it goes \
                     ({old} of flows); {REMEDY}"
                );
            }
            Judgement::Exhausted { .. } => {}
        }
    }
}

/// A share with one decimal, never rounded down to the limit that it exceeds.
fn tenths(share: Share) -> String {
    write_share(Share((share.0 * 1000.0).ceil() / 1000.0))
}

/// CPU time of all threads of this process so far, user and system.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_be_over_a_limit_looks_so() {
        for (share, said) in [(0.010_1, "1.1%"), (1.000_2, "100.1%"), (0.0, "0%"), (2.0, "200%")] {
            assert_eq!(tenths(Share(share)), said);
        }
    }

    #[test]
    fn what_the_guard_decides_reaches_the_control_and_the_readings() {
        let mut config = Config::default();
        config.capture.sample = Share(0.5);
        config.limits.cpu = Some(Share(0.01));
        let (control, readings) = (Control::new(true), Arc::new(Readings::default()));
        control.configure_sample(config.capture.sample);
        let mut guard = CpuGuard::new(&config, control.clone(), Arc::clone(&readings));
        let over = guard.guard.as_mut().unwrap().observe(Share(1.0), crate::guard::WINDOW).unwrap();
        guard.carry_out(over);
        assert_eq!((control.sample(), readings.steps(Direction::Down)), (Share(0.25), 1));
        guard.last.0 -= INTERVAL;
        guard.look();
        assert!(readings.used() > Share(0.0), "this test uses some CPU time");
    }
}
