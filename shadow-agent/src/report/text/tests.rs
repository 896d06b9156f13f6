//! Tests of what people see: structure and order, not every word.

use super::*;
use crate::capture::Counters;
use crate::exchange::{ConnectionId, FailReason, LostReason, SkipReason};
use crate::ledger::{Comparison, Ledger, ShardBatch};
use crate::policy::mask::Kept;
use crate::report::Report;
use crate::report::testing::{answered, difference, failed, observation, report, run, traffic};

fn rendered(report: &Report, ledger: &Ledger, style: Style) -> String {
    render(&report.summary(&ledger.snapshot(), &Counters::default()), style)
}

#[track_caller]
fn check_order(text: &str, parts: &[&str]) {
    let mut from = 0;
    for part in parts {
        let Some(at) = text[from..].find(part) else { panic!("no {part:?} after byte {from} of\n{text}") };
        from += at + part.len();
    }
}

fn example_run() -> (Report, Ledger) {
    let (report, ledger) = (report(true), Ledger::new(1, 2));
    run(&report, &ledger, traffic("/clean", 800, 0, true));
    run(&report, &ledger, traffic("/users/{id}", 400, 10, true));
    let mut timeouts = traffic("/slow", 10, 0, true);
    for seen in &mut timeouts {
        seen.targets[0] = failed(FailReason::Timeout);
    }
    run(&report, &ledger, timeouts);
    ledger.shard(
        0,
        &ShardBatch {
            seen: 9,
            skipped: vec![(SkipReason::Credentials, 7)],
            lost: vec![(LostReason::Gap, 2)],
            ..ShardBatch::default()
        },
    );
    (report, ledger)
}

#[test]
fn the_verdict_comes_first_and_the_worst_endpoint_before_the_clean_one() {
    let (report, ledger) = example_run();
    let text = rendered(&report, &ledger, Style::default());
    check_order(
        &text,
        &[
            "FAIL  candidate, run v2: 1,210 requests",
            "- /users/{id}: 40 mismatches of 400 compared: 10 %",
            "ENDPOINT",
            "/users/{id}",
            "FAIL",
            "/clean",
            "DIFFERENCES",
            "/users/{id}  body:$.price  value  in 40 exchanges (10 %)",
            "production 12.34 → candidate 12.35",
            "exchange 0000000000000000  /users/{id}?id=0",
            "TIME TO FIRST BYTE",
            "all endpoints",
            "EXCHANGES  1,219 seen = 1,210 replayed + 7 skipped + 2 lost + 0 in flight",
            "lost: 2 gap",
            "candidate: 1,200 of 1,210 answered; failed: 10 timeout",
            "SKIPPED",
            "7 credentials",
            "--credentials forward",
        ],
    );
    assert!(text.contains("≥120 s"), "a timeout is shown as a lower bound:\n{text}");
    assert!(!text.contains("the books are off"));
    assert!(!text.contains('\u{1b}'), "no colour unless asked for");
}

#[test]
fn columns_line_up_with_and_without_colour() {
    let (report, ledger) = example_run();
    let plain = rendered(&report, &ledger, Style::default());
    let coloured = rendered(&report, &ledger, Style { colour: true, ..Style::default() });
    assert!(coloured.contains("\u{1b}[1;31mFAIL\u{1b}[0m"));
    let escape = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
    let stripped = escape.replace_all(&coloured, "");
    let table = |text: &str| -> Vec<String> {
        text.lines().skip_while(|line| !line.starts_with("ENDPOINT")).take(4).map(str::to_owned).collect()
    };
    assert_eq!(table(&plain), table(&stripped));
    let ends: Vec<usize> = table(&plain).iter().map(|line| line.chars().count()).collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "{:#?}", table(&plain));
}

#[test]
fn an_empty_run_says_so() {
    let (report, ledger) = (report(false), Ledger::new(1, 1));
    let text = rendered(&report, &ledger, Style::default());
    check_order(&text, &["NOT ENOUGH EVIDENCE  candidate", "nothing was compared yet", "EXCHANGES  0 seen"]);
    assert!(!text.contains("DIFFERENCES") && !text.contains("SKIPPED"));
}

#[test]
fn what_came_from_the_network_cannot_drive_the_terminal() {
    let (report, ledger) = (report(false), Ledger::new(1, 1));
    let mut seen = observation("/a\u{1b}]0;title\u{7}", 1);
    seen.connection = ConnectionId(1);
    seen.target = Kept::for_test("/a\r\n\u{1b}[2J".to_owned());
    let mut target = answered(Comparison::Mismatch, 200);
    target.differences.push(difference("body:$.\u{1b}[31m", "a\nb", "\u{9b}c"));
    seen.targets.push(target);
    run(&report, &ledger, [seen]);
    let text = rendered(&report, &ledger, Style::default());
    let bad: Vec<char> = text.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert!(bad.is_empty(), "{bad:?} in\n{text}");
    assert!(text.contains("a\\u{a}b"));
}

#[test]
fn long_lists_are_cut_and_say_so() {
    for (endpoints, cut) in [(ENDPOINTS, false), (ENDPOINTS + 1, true)] {
        let (report, ledger) = (report(false), Ledger::new(1, 1));
        for id in 0..endpoints {
            run(&report, &ledger, traffic(&format!("/{id}"), 1, 0, false));
        }
        let text = rendered(&report, &ledger, Style::default());
        assert_eq!(text.contains("and 1 more endpoints"), cut, "{text}");
    }
    for (shapes, cut) in [(DIFFERENCES, false), (DIFFERENCES + 1, true)] {
        let (report, ledger) = (report(false), Ledger::new(1, 1));
        let mut all = traffic("/a", 1, 0, false);
        let mut target = answered(Comparison::Mismatch, 200);
        target.differences.extend((0..shapes).map(|id| difference(&format!("body:$.f{id}"), "1", "2")));
        all[0].targets[0] = target;
        run(&report, &ledger, all);
        let text = rendered(&report, &ledger, Style::default());
        assert_eq!(text.contains("… and 1 more of /a"), cut, "{text}");
    }
}

#[test]
fn the_status_line_is_one_line_with_what_matters() {
    let (report, ledger) = example_run();
    let line = report.status_line(&ledger.snapshot());
    assert!(!line.contains('\n'));
    for part in [
        "1,219 exchanges",
        "1,210 replayed",
        "1,200 compared",
        "40 mismatches",
        "10 unanswered",
        "7 skipped",
        "2 lost",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("under way"), "{line}");
}

#[test]
fn time_reads_like_a_clock() {
    for (seconds, text) in [(1.24, "1.2 s"), (59.0, "59.0 s"), (75.0, "1:15 min"), (3_725.0, "1:02:05 h")] {
        assert_eq!(clock(Duration::from_secs_f64(seconds)), text);
    }
}
