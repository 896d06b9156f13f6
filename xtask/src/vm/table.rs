//! Prints the matrix: a line for every test, a column for every kernel, then what needs words.

use std::collections::BTreeMap;

use super::transcript::{Transcript, Verdict};
use crate::rings::Count;
use crate::sh;

/// A kernel, and what came of it.
pub(super) struct Column<'a> {
    /// What people call it.
    pub(super) short: &'a str,
    /// `uname -r`.
    pub(super) release: &'a str,
    pub(super) transcript: &'a Transcript,
    /// Seconds that it took.
    pub(super) seconds: f64,
}

/// Prints everything; gives the count of results, a kernel that did not come to its end being one failure more.
pub(super) fn print(columns: &[Column<'_>], tests: &[String]) -> Count {
    let mut count = Count::default();
    let mut differences: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let first = tests.iter().map(String::len).max().unwrap_or_default();
    let headings: String = columns.iter().map(heading).collect();
    sh::say(format!("\n{:first$}{headings}", "").trim_end());
    for test in tests {
        let mut line = format!("{test:first$}");
        for column in columns {
            let verdict = column.transcript.verdict(test);
            match verdict {
                Some(Verdict::Passed) => count.passed += 1,
                Some(Verdict::Differs(how)) => {
                    count.passed += 1;
                    let on = differences.entry(how).or_default();
                    if !on.contains(&column.short) {
                        on.push(column.short);
                    }
                }
                Some(Verdict::Failed(_)) | None => count.failed += 1,
            }
            let cell = verdict.map_or("missing", Verdict::word);
            line.push_str(&format!("  {cell:<width$}", width = width(column)));
        }
        sh::say(line.trim_end());
    }
    for (how, kernels) in differences {
        sh::say(&format!("differs, as expected, on {}: {how}", kernels.join(", ")));
    }
    for column in columns {
        details(column, tests, &mut count);
    }
    count
}

/// As wide as its kernel's name, and as the longest of the words below it.
fn width(column: &Column<'_>) -> usize {
    column.short.len().max("differs".len())
}

fn heading(column: &Column<'_>) -> String {
    format!("  {:<width$}", column.short, width = width(column))
}

fn details(column: &Column<'_>, tests: &[String], count: &mut Count) {
    let Column { short, release, transcript, seconds } = column;
    sh::say(&format!("{short}: {release}, {seconds:.0} s"));
    for note in transcript.notes() {
        sh::say(&format!("{short}: note: {note}"));
    }
    for test in tests {
        if let Some(Verdict::Failed(output)) = transcript.verdict(test) {
            sh::say(&format!("{short}: {test} failed:"));
            output.iter().for_each(|line| sh::say(&format!("    {line}")));
        }
    }
    let troubles = transcript.troubles(release, tests);
    if troubles.is_empty() {
        return;
    }
    count.failed += 1;
    sh::say(&format!("{short}: {}; the last it said:", troubles.join("; ")));
    transcript.last().iter().for_each(|line| sh::say(&format!("    {line}")));
}
