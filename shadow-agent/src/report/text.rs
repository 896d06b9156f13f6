//! The summary on a terminal: verdict first, then where to look, then what the verdict rests on.
//!
//! It chooses words and columns; every figure comes from [`Summary`]. Text from the network is escaped.

use std::fmt::Write;
use std::time::Duration;

use super::differences::{Class, Example};
use super::summary::{Counts, EndpointSummary, EndpointTarget, Latency};
use super::verdict::Outcome;
use super::words::{duration, percent, printable, thousands};
use super::{OTHER, Summary};
use crate::exchange::{Role, TargetInfo};
use crate::ledger;

mod table;

use table::Table;

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Characters in a line; long names and examples are cut to fit.
    pub width: usize,
    /// Whether outcomes are coloured with ANSI escape sequences.
    pub colour: bool,
}

impl Default for Style {
    fn default() -> Style {
        Style { width: 120, colour: false }
    }
}

/// Endpoints listed; the rest is in the JSON document.
const ENDPOINTS: usize = 25;
/// Shapes of differences listed of one endpoint and target.
const DIFFERENCES: usize = 5;
/// Examples shown of one shape.
const EXAMPLES: usize = 2;
/// Where the name of an endpoint is cut.
const NAME: usize = 44;

/// The whole summary, ending in a line break.
#[must_use]
pub fn render(summary: &Summary, style: Style) -> String {
    let mut out = String::new();
    verdict(&mut out, summary, style);
    endpoints(&mut out, summary, style);
    differences(&mut out, summary, style);
    latency(&mut out, summary);
    books(&mut out, summary);
    skipped(&mut out, summary, style);
    out
}

/// How things stand, in one line without a line break.
pub(super) fn status_line(targets: &[TargetInfo], ledger: &ledger::Snapshot, elapsed: Duration) -> String {
    let candidates = || {
        let judged = targets.iter().zip(&ledger.targets);
        judged.filter(|(target, _)| target.role == Role::Candidate).map(|(_, counts)| counts)
    };
    let compared: u64 =
        candidates().map(|counts| counts.matches + counts.mismatches + counts.noise + counts.drift).sum();
    let mismatches: u64 = candidates().map(|counts| counts.mismatches).sum();
    let unanswered: u64 = candidates().flat_map(|counts| counts.failed.iter().chain(&counts.dropped)).sum();
    let under_way: u64 = ledger.in_flight + candidates().map(|counts| counts.in_flight).max().unwrap_or(0);
    let mut line = format!(
        "{} · {} exchanges · {} replayed · {} compared · {}",
        clock(elapsed),
        thousands(ledger.seen),
        thousands(ledger.selected),
        thousands(compared),
        many(mismatches, "mismatch", "mismatches"),
    );
    for (count, what) in [
        (unanswered, "unanswered"),
        (ledger.skipped_total(), "skipped"),
        (ledger.lost_total(), "lost"),
        (under_way, "under way"),
    ] {
        if count > 0 {
            let _ = write!(line, " · {} {what}", thousands(count));
        }
    }
    line
}

fn verdict(out: &mut String, summary: &Summary, style: Style) {
    let answer = summary.verdict.outcome;
    let words = match answer {
        Outcome::Pass => "PASS",
        Outcome::Fail => "FAIL",
        Outcome::Insufficient => "NOT ENOUGH EVIDENCE",
    };
    let _ = write!(out, "{}", paint(words, answer, style));
    let names: Vec<String> = summary.verdict.targets.iter().map(|one| printable(&one.target, NAME)).collect();
    let _ = write!(out, "  {}", names.join(", "));
    if !summary.run.is_empty() {
        let _ = write!(out, ", run {}", printable(&summary.run, NAME));
    }
    let elapsed = Duration::try_from_secs_f64(summary.duration_seconds).unwrap_or_default();
    let _ = writeln!(
        out,
        ": {} in {}, {} confidence",
        many(summary.overall.requests, "request", "requests"),
        clock(elapsed),
        percent(summary.verdict.confidence)
    );
    for reason in &summary.verdict.reasons {
        let _ = writeln!(out, "  - {}", printable(reason, style.width.max(NAME).saturating_mul(2)));
    }
}

fn candidates(endpoint: &EndpointSummary) -> impl Iterator<Item = &EndpointTarget> {
    endpoint.targets.iter().filter(|target| target.verdict.is_some())
}

/// The name of a row: the endpoint, and the candidate when there are several.
fn name(summary: &Summary, endpoint: &EndpointSummary, target: &EndpointTarget) -> String {
    if summary.verdict.targets.len() > 1 {
        format!("{} @ {}", printable(&endpoint.endpoint, NAME), printable(&target.target, NAME))
    } else {
        printable(&endpoint.endpoint, NAME)
    }
}

fn endpoints(out: &mut String, summary: &Summary, style: Style) {
    if summary.endpoints.is_empty() {
        return;
    }
    let head = [
        "ENDPOINT",
        "REQUESTS",
        "MATCH",
        "MISMATCH",
        "NOISE",
        "DRIFT",
        "UNCOMPARED",
        "FAILED",
        "NOT SENT",
        "VERDICT",
    ];
    let mut table = Table::new(&head);
    for endpoint in summary.endpoints.iter().take(ENDPOINTS) {
        for target in candidates(endpoint) {
            let sum = |counts: &Counts| thousands(counts.values().sum());
            let mut cells = vec![name(summary, endpoint, target)];
            cells.extend(
                [endpoint.requests, target.matches, target.mismatches, target.noise, target.drift]
                    .map(thousands),
            );
            cells.extend([&target.uncomparable, &target.failed, &target.dropped].map(sum));
            let answer = target.verdict.unwrap_or(Outcome::Insufficient);
            cells.push(short(answer).to_owned());
            table.row(cells, |cell| paint(cell, answer, style));
        }
    }
    let _ = write!(out, "\n{}", table.render());
    let more = summary.endpoints.len().saturating_sub(ENDPOINTS);
    if more > 0 {
        let _ = writeln!(out, "and {more} more endpoints; --report FILE writes them all");
    }
    if summary.beyond_endpoint_limit > 0 {
        let _ = writeln!(
            out,
            "{} of endpoints beyond compare.max_endpoints count as {OTHER}",
            many(summary.beyond_endpoint_limit, "exchange", "exchanges")
        );
    }
}

fn differences(out: &mut String, summary: &Summary, style: Style) {
    let mut titled = false;
    for endpoint in summary.endpoints.iter().take(ENDPOINTS) {
        for target in candidates(endpoint) {
            let real = target.differences.iter().filter(|group| group.class == Class::Mismatch);
            for (position, group) in real.enumerate() {
                if !titled {
                    out.push_str("\nDIFFERENCES\n");
                    titled = true;
                }
                if position == DIFFERENCES {
                    let more =
                        target.differences.iter().filter(|group| group.class == Class::Mismatch).count();
                    let _ = writeln!(
                        out,
                        "  … and {} more of {}",
                        more - position,
                        name(summary, endpoint, target)
                    );
                    break;
                }
                let _ = writeln!(
                    out,
                    "  {}  {}  {}  in {} ({})",
                    name(summary, endpoint, target),
                    printable(&group.place, style.width / 2),
                    group.kind,
                    many(group.count, "exchange", "exchanges"),
                    percent(group.share)
                );
                for one in group.examples.iter().take(EXAMPLES) {
                    example(out, one, style);
                }
            }
        }
    }
}

fn example(out: &mut String, example: &Example, style: Style) {
    let side = |value: Option<&String>| {
        value.map_or_else(
            || "(nothing)".to_owned(),
            |text| printable(text, (style.width / 2).saturating_sub(20).max(20)),
        )
    };
    let _ = writeln!(
        out,
        "      production {} → candidate {}",
        side(example.production.as_ref().map(|kept| kept.get())),
        side(example.candidate.as_ref().map(|kept| kept.get()))
    );
    let target = printable(example.target.get(), style.width.saturating_sub(36).max(20));
    let _ = writeln!(out, "      exchange {}  {target}", example.exchange);
}

fn latency(out: &mut String, summary: &Summary) {
    if summary.endpoints.is_empty() {
        return;
    }
    let mut head = vec!["TIME TO FIRST BYTE (p50 / p95 / p99)".to_owned()];
    head.extend(summary.overall.targets.iter().map(|target| printable(&target.target, NAME)));
    head.push("production, on the wire".to_owned());
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::new(&head);
    let all = std::iter::once((&summary.overall, "all endpoints"));
    let each =
        summary.endpoints.iter().take(ENDPOINTS).map(|endpoint| (endpoint, endpoint.endpoint.as_str()));
    for (endpoint, label) in all.chain(each) {
        let mut cells = vec![printable(label, NAME)];
        cells.extend(endpoint.targets.iter().map(|target| quantiles(target.latency)));
        cells.push(quantiles(endpoint.production_wire_latency));
        table.row(cells, str::to_owned);
    }
    let _ = write!(out, "\n{}", table.render());
    out.push_str("production's time has another vantage point and is not judged\n");
}

fn quantiles(latency: Option<Latency>) -> String {
    let Some(latency) = latency else { return "-".to_owned() };
    let one = |(value, at_least)| format!("{}{}", if at_least { "≥" } else { "" }, duration(value));
    latency.quantiles().map(one).join(" / ")
}

fn books(out: &mut String, summary: &Summary) {
    let ledger = &summary.ledger;
    let _ = writeln!(
        out,
        "\nEXCHANGES  {} seen = {} replayed + {} skipped + {} lost + {} in flight",
        thousands(ledger.seen),
        thousands(ledger.selected),
        thousands(ledger.skipped.values().sum()),
        thousands(ledger.lost.values().sum()),
        thousands(ledger.in_flight)
    );
    if !ledger.lost.is_empty() {
        let _ = writeln!(out, "  lost: {}", listed(&ledger.lost));
    }
    for target in &ledger.targets {
        let mut line = format!(
            "  {}: {} of {} answered",
            printable(&target.target, NAME),
            thousands(target.answered),
            thousands(target.selected)
        );
        for (counts, what) in [(&target.failed, "failed"), (&target.dropped, "not sent")] {
            if !counts.is_empty() {
                let _ = write!(line, "; {what}: {}", listed(counts));
            }
        }
        if target.in_flight > 0 {
            let _ = write!(line, "; {} in flight", thousands(target.in_flight));
        }
        let _ = writeln!(out, "{line}");
    }
    let packets = ["ring_full", "copy_error", "shed", "fragment"]
        .iter()
        .filter_map(|&name| summary.kernel.packets.get_key_value(name))
        .map(|(name, count)| (*name, *count));
    let packets: Counts = packets.collect();
    if !packets.is_empty() {
        let _ = writeln!(out, "  packets the kernel could not hand over: {}", listed(&packets));
    }
    if ledger.imbalance > 0 {
        let _ = writeln!(
            out,
            "  the books are off by {}: this is a defect of the agent, please report it",
            thousands(ledger.imbalance)
        );
    }
}

fn skipped(out: &mut String, summary: &Summary, style: Style) {
    if summary.skipped.is_empty() {
        return;
    }
    out.push_str("\nSKIPPED\n");
    for skipped in &summary.skipped {
        let line = format!(
            "{} {} ({}): {}",
            thousands(skipped.count),
            skipped.reason,
            percent(skipped.share),
            skipped.remedy
        );
        let _ = writeln!(out, "  {}", printable(&line, style.width.max(NAME).saturating_mul(2)));
    }
}

fn listed(counts: &Counts) -> String {
    let all: Vec<String> =
        counts.iter().map(|(name, count)| format!("{} {name}", thousands(*count))).collect();
    all.join(", ")
}

fn many(count: u64, one: &str, several: &str) -> String {
    format!("{} {}", thousands(count), if count == 1 { one } else { several })
}

fn short(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Insufficient => "too few",
    }
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds < 60 {
        return format!("{:.1} s", elapsed.as_secs_f64());
    }
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02} h")
    } else {
        format!("{minutes}:{seconds:02} min")
    }
}

fn paint(text: &str, outcome: Outcome, style: Style) -> String {
    if !style.colour {
        return text.to_owned();
    }
    let colour = match outcome {
        Outcome::Pass => 32,
        Outcome::Insufficient => 33,
        Outcome::Fail => 31,
    };
    format!("\u{1b}[1;{colour}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests;
