//! Says in the log what the self-check of masking found: once of each rule, and never what it missed.

use crate::policy::mask::Masker;

/// Looks for rules that failed since the last time, and gives how many values they missed; without failures it costs two
/// loads of each rule.
pub(super) fn tell_failures(masker: &Masker) -> u64 {
    let failures = masker.new_failures();
    if failures == 0 {
        return 0;
    }
    for tally in masker.tallies() {
        let exit = tally.exit().as_str();
        for rule in tally.newly_failed() {
            tracing::error!(
                "masking failed: the self-check found a value that the rule `{rule}` of mask.{exit} should have hidden; it did \
                 not leave, and shadow_mask_failures_total counts it; please report it"
            );
        }
    }
    failures
}
