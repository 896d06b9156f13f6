//! The metrics of the ramp and of the guards.

use super::Sources;
use super::family::Family;
use super::gather::{Named, single};
use crate::guard::watch::Name;

const TRIPPED: Named = Named::gauge(
    "shadow_guard_tripped",
    &["guard"],
    "Whether a guard tripped and has not found things well since (1).",
);
const SHARE: Named = Named::gauge(
    "shadow_ramp_share",
    &[],
    "Share of connections whose selected exchanges are replayed at present, 0 to 1.",
);
const STAGE: Named =
    Named::gauge("shadow_ramp_stage", &[], "Stage of the ramp, from 1; 0 while nothing is replayed.");
const NEXT: Named = Named::gauge(
    "shadow_ramp_next_step_timestamp_seconds",
    &[],
    "When the next step of the ramp forward is due; 0 when none is.",
);
const PAUSED: Named = Named::gauge(
    "shadow_target_paused",
    &["target"],
    "Whether a guard paused a target (1), probes included.",
);

pub(super) const ALL: &[&Named] = &[&TRIPPED, &SHARE, &STAGE, &NEXT, &PAUSED];

/// All of them as of now.
pub(super) fn families(sources: &Sources) -> Vec<Family> {
    let mut tripped = TRIPPED.family();
    for guard in Name::ALL {
        tripped.count(&[guard.as_str()], u64::from(sources.guards.tripped(*guard)));
    }
    let replaying = sources.control.replaying();
    let mut paused = PAUSED.family();
    for (position, target) in sources.runs.current().report().targets().iter().enumerate() {
        paused.count(&[&target.name], u64::from(replaying.paused(position)));
    }
    let rung = replaying.rung();
    let next = rung.next.map_or(0.0, |next| next.0 as f64 / 1e9);
    vec![
        tripped,
        paused,
        single(&SHARE, rung.share.0),
        single(&STAGE, rung.stage as f64),
        single(&NEXT, next),
    ]
}
