//! Reads what the guards ask for, and carries out what they and the ramp decide.
//!
//! It decides nothing itself, and costs a look at a few counters twice a second. Everything that a guard does passes
//! [`announce`].

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::admin::KillSwitch;
use crate::audit::{Action, Actor, Audit};
use crate::capture::{Counters, PacketResult};
use crate::config::Config;
use crate::config::units::write_share;
use crate::control::{Control, Leave, Rung};
use crate::exchange::{TargetInfo, Timestamp};
use crate::guard::pause::PROBES;
use crate::guard::vitals::Tally;
use crate::guard::watch::{Deed, Finding, Name, Reading, Watch};
use crate::guard::{Board, Vitals};
use crate::ramp::Ramp;
use crate::report::words;

/// How often the guards look, at most.
const INTERVAL: Duration = Duration::from_millis(500);

/// Longer between two looks, and the agent itself did not run: what was measured meanwhile means nothing.
const STALE: Duration = Duration::from_secs(2);

/// How much anybody should care about what a guard did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Things go on, or go well again.
    Good,
    /// Less is captured or replayed.
    Less,
    /// An operator has to look.
    Stop,
}

/// Says what a guard did. Every deed of every guard comes by here, and nothing else does.
pub(super) fn announce(guard: &str, weight: Weight, said: &str) {
    match weight {
        Weight::Good => tracing::info!(guard, "{said}"),
        Weight::Less => tracing::warn!(guard, "{said}"),
        Weight::Stop => tracing::error!(guard, "{said}"),
    }
}

/// What the guards of one agent need.
pub(super) struct Wiring {
    pub(super) control: Control,
    pub(super) vitals: Arc<Vitals>,
    pub(super) board: Arc<Board>,
    pub(super) targets: Vec<TargetInfo>,
    /// The kernel's counters.
    pub(super) counters: Arc<dyn Fn() -> Counters + Send + Sync>,
    /// By which a guard disables everything, as an operator would.
    pub(super) switch: Arc<KillSwitch>,
    pub(super) audit: Audit,
}

/// The guards of one running agent, and its ramp.
pub(super) struct Keeper {
    wiring: Wiring,
    watch: Watch,
    ramp: Ramp,
    last: Instant,
    /// Whether capture was enabled at the last look.
    enabled: bool,
}

impl Keeper {
    /// Guards that look from now on. The ramp is in force at once.
    pub(super) fn new(config: &Config, wiring: Wiring) -> Keeper {
        let watch = Watch::new(&config.guards, wiring.vitals.targets(), config.limits.total_buffer);
        let ramp = Ramp::new(&config.portion.ramp, watch.observation(), config.guards.pause);
        let enabled = wiring.control.enabled();
        let keeper = Keeper { wiring, watch, ramp, last: Instant::now(), enabled };
        keeper.publish();
        keeper
    }

    /// Looks, if it is time to. To be called often.
    pub(super) fn look(&mut self) {
        let elapsed = self.last.elapsed();
        if elapsed < INTERVAL {
            return;
        }
        self.last = Instant::now();
        self.turn(elapsed);
    }

    fn turn(&mut self, elapsed: Duration) {
        if !self.wiring.control.enabled() {
            self.enabled = false;
            return;
        }
        if !std::mem::replace(&mut self.enabled, true) {
            self.begin_anew();
        }
        if elapsed > STALE {
            self.watch.restart_windows();
        }
        let found = self.watch.observe(&self.read(), &self.wiring.vitals, self.ramp.rung(), elapsed);
        let went_back = found.iter().any(|finding| finding.deed == Deed::StepBack);
        for finding in &found {
            self.carry_out(finding);
        }
        let may = !went_back && self.wiring.control.enabled();
        let began = may && self.watch.knows_usual() && self.ramp.begin();
        if began || (may && self.ramp.advance(elapsed)) {
            self.wiring.board.stepped_forward();
            let share = write_share(self.ramp.share());
            let next =
                self.next().map_or_else(String::new, |next| format!(", the next step is due in {next}"));
            announce(
                "ramp",
                Weight::Good,
                &format!("every guard held: {share} of connections are replayed{next}"),
            );
        }
        self.publish();
    }

    /// Somebody enabled what was disabled: nothing of before counts.
    fn begin_anew(&mut self) {
        self.watch.restart();
        self.ramp.restart();
        for position in 0..self.wiring.targets.len() {
            self.wiring.control.replaying().give(position, Leave::Everything);
        }
    }

    fn read(&self) -> Reading {
        let counters = (self.wiring.counters)();
        let packets = |result: PacketResult| counters.packets.get(result as usize).copied().unwrap_or(0);
        let full = packets(PacketResult::RingFull);
        Reading {
            packets: Tally { total: packets(PacketResult::Copied) + full, bad: full },
            memory: anonymous_memory(),
            mask_failures: self.wiring.vitals.mask_failures(),
        }
    }

    /// Does what a guard asks for, and says so.
    fn carry_out(&mut self, Finding { guard, deed, said }: &Finding) {
        let replaying = self.wiring.control.replaying();
        let key = format!("guards.{guard}");
        let name = |position: usize| self.wiring.targets.get(position).map_or("?", |target| &target.name);
        match *deed {
            Deed::StepBack => {
                let before = write_share(self.ramp.share());
                if !self.ramp.step_back() {
                    return;
                }
                self.wiring.board.stepped_back(*guard);
                self.write_down(*guard, "ramp", None, before.clone(), write_share(self.ramp.share()));
                let now = match self.ramp.rung() {
                    0 => "nothing is replayed".to_owned(),
                    _ => format!("{} of connections are replayed", write_share(self.ramp.share())),
                };
                let next = self.next().map_or_else(String::new, |next| format!(" for {next} at least"));
                let remedy = remedy(*guard);
                self.say(
                    *guard,
                    Weight::Less,
                    &format!("{said} ({key}): {now} instead of {before}{next}; {remedy}"),
                );
            }
            Deed::Pause(position, pause) => {
                replaying.give(position, Leave::Nothing);
                self.write_down(
                    *guard,
                    "target",
                    Some(position),
                    "given every request".into(),
                    "paused".into(),
                );
                let (name, pause) = (name(position), words::duration(pause));
                let text = format!(
                    "target {name}: {said} ({key}): it is paused for {pause}, others go on; {}",
                    remedy(*guard)
                );
                self.say(*guard, Weight::Less, &text);
            }
            Deed::Probe(position) => {
                replaying.give(position, Leave::Probes(PROBES));
                let text = format!("target {}: {said}, and it is given {PROBES} requests", name(position));
                self.say(*guard, Weight::Good, &text);
            }
            Deed::Resume(position) => {
                replaying.give(position, Leave::Everything);
                self.write_down(
                    *guard,
                    "target",
                    Some(position),
                    "paused".into(),
                    "given every request".into(),
                );
                let text = format!("target {}: {said}, and it is given every request again", name(position));
                self.say(*guard, Weight::Good, &text);
            }
            Deed::Disable => {
                // Whoever sees that it is disabled shall see why.
                self.wiring.board.set_tripped(*guard, true);
                // Off first, remembered second: a full disk must not keep capture on.
                let remembered = self.wiring.switch.throw(Actor::Guard(guard.as_str()), false);
                self.enabled = false;
                let text = format!(
                    "{said} ({key}): capture is disabled until `shadow-agent ctl enable`; {}",
                    remedy(*guard)
                );
                self.say(*guard, Weight::Stop, &text);
                if let Err(error) = remembered {
                    tracing::error!(%error, "the switch is not remembered");
                }
            }
        }
    }

    /// Writes down what is different from now on because of a guard.
    fn write_down(
        &self,
        guard: Name,
        what: &'static str,
        target: Option<usize>,
        before: String,
        after: String,
    ) {
        let target =
            target.and_then(|position| self.wiring.targets.get(position)).map(|info| info.name.clone());
        self.wiring
            .audit
            .record(Actor::Guard(guard.as_str()), Action::Guarded { what, target, before, after });
    }

    fn say(&self, guard: Name, weight: Weight, text: &str) {
        announce(guard.as_str(), weight, text);
    }

    /// How long it is to the next step forward, in words.
    fn next(&self) -> Option<String> {
        self.ramp.remaining().map(words::duration)
    }

    fn publish(&self) {
        for guard in Name::ALL {
            self.wiring.board.set_tripped(*guard, self.watch.tripped(*guard));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.wiring.control.replaying().set_rung(Rung {
            share: self.ramp.share(),
            stage: self.ramp.rung() as u64,
            stages: self.ramp.stages() as u64,
            next: self.ramp.remaining().map(|left| Timestamp::default().plus(now).plus(left)),
        });
    }
}

/// What can be done about it.
fn remedy(guard: Name) -> &'static str {
    match guard {
        Name::ProductionLatency | Name::ProductionErrors => {
            "see whether production depends on what the shadows use, and give them dependencies of their own"
        }
        Name::ShadowErrors | Name::ShadowLatency => "look at the target's own log and load",
        Name::Memory => "report this as a defect of the agent, or raise guards.memory.threshold",
        Name::RingLosses => "raise capture.rings.size or limits.cpu, or capture less (capture.sample)",
        Name::MaskFailures => "correct the rules under mask, and look at what was sent and kept so far",
    }
}

/// Memory of this process that is no file's (RssAnon of proc(5)), in bytes; 0 where that is not told.
fn anonymous_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests;
