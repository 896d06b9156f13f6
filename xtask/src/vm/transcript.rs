//! Reads what a virtual machine says on its serial console, and judges it. A line that is missing is a failure.

use std::collections::BTreeMap;

/// What the lines of ours begin with.
const SENTINEL: &str = "@vm ";
/// The most lines of a console that are kept for whoever has to find out what went wrong.
const MOST_LINES: usize = 40;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passed.
    Passed,
    /// It passed, having asserted that this kernel differs in the way that is said.
    Differs(String),
    /// It failed, or was ended for taking too long; what it said.
    Failed(Vec<String>),
}

impl Verdict {
    /// How it is shown.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Verdict::Passed => "ok",
            Verdict::Differs(_) => "differs",
            Verdict::Failed(_) => "FAILED",
        }
    }
}

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    kernel: Option<String>,
    results: BTreeMap<String, Verdict>,
    differs: BTreeMap<String, String>,
    output: Vec<String>,
    notes: Vec<String>,
    last: Vec<String>,
    begun: Option<String>,
    latest: Option<(String, &'static str)>,
    end: Option<usize>,
}

impl Transcript {
    /// Takes one line of the console.
    pub(super) fn read(&mut self, line: &str) {
        let line = line.trim_end();
        self.latest = None;
        if self.last.len() == MOST_LINES {
            self.last.remove(0);
        }
        self.last.push(line.to_owned());
        // The firmware leaves the line unfinished on which the kernel begins to speak.
        let Some((_, said)) = line.split_once(SENTINEL) else { return };
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "kernel" => self.kernel = Some(rest.to_owned()),
            "note" => self.notes.push(rest.to_owned()),
            "begin" => {
                self.begun = Some(rest.to_owned());
                self.output.clear();
            }
            "output" => self.output.push(rest.to_owned()),
            "differs" => {
                if let Some((name, how)) = rest.split_once(' ') {
                    self.differs.insert(name.to_owned(), how.to_owned());
                }
            }
            "result" => {
                let mut words = rest.split(' ');
                let (Some(name), Some(result)) = (words.next(), words.next()) else { return };
                let verdict = match (result, self.differs.get(name)) {
                    ("ok", None) => Verdict::Passed,
                    ("ok", Some(how)) => Verdict::Differs(how.clone()),
                    _ => Verdict::Failed(std::mem::take(&mut self.output)),
                };
                self.latest = Some((name.to_owned(), verdict.word()));
                self.results.insert(name.to_owned(), verdict);
                self.begun = None;
            }
            "end" => self.end = rest.parse().ok(),
            _ => {}
        }
    }

    /// Whether the last line was read.
    pub(super) fn is_complete(&self) -> bool {
        self.end.is_some()
    }

    /// The result that the last line told, if it told one: the test, and how it ended in a word.
    pub(super) fn latest(&self) -> Option<(&str, &'static str)> {
        self.latest.as_ref().map(|(test, word)| (test.as_str(), *word))
    }

    /// How a test ended; `None` when nothing was said about it.
    pub(super) fn verdict(&self, test: &str) -> Option<&Verdict> {
        self.results.get(test)
    }

    /// What the machine thought worth saying.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Everything that is wrong with the run of `tests` on a kernel, save tests that failed and say so themselves.
    pub(super) fn troubles(&self, release: &str, tests: &[String]) -> Vec<String> {
        let mut troubles = Vec::new();
        match self.kernel.as_deref() {
            None => troubles.push("it did not boot".to_owned()),
            Some(kernel) if kernel != release => troubles.push(format!("it is {kernel}")),
            Some(_) => {}
        }
        let missing: Vec<&str> =
            tests.iter().filter(|test| !self.results.contains_key(*test)).map(String::as_str).collect();
        if let Some(begun) = &self.begun {
            troubles.push(format!("{begun} did not come to an end"));
        }
        if !missing.is_empty() {
            troubles.push(format!("{} of {} tests have no result", missing.len(), tests.len()));
        }
        if self.end != Some(tests.len()) {
            troubles.push("its last line is missing".to_owned());
        }
        troubles
    }

    /// The last lines of the console.
    pub(super) fn last(&self) -> &[String] {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<String> {
        ["a::b", "c"].map(str::to_owned).to_vec()
    }

    fn transcript(lines: &[&str]) -> Transcript {
        let mut transcript = Transcript::default();
        for line in lines {
            transcript.read(line);
        }
        transcript
    }

    const WHOLE: [&str; 8] = [
        "firmware@vm kernel 6.1.0-56\r",
        "@vm begin a::b",
        "@vm result a::b ok",
        "[    1.0] noise",
        "@vm begin c",
        "@vm differs c no TCX below 6.6",
        "@vm result c ok\r",
        "@vm end 2\r",
    ];

    #[test]
    fn a_whole_run_has_a_verdict_for_every_test_and_no_trouble() {
        let transcript = transcript(&WHOLE);
        assert_eq!(transcript.verdict("a::b"), Some(&Verdict::Passed));
        assert_eq!(transcript.verdict("c"), Some(&Verdict::Differs("no TCX below 6.6".to_owned())));
        assert!(transcript.is_complete());
        assert_eq!(transcript.troubles("6.1.0-56", &tests()), Vec::<String>::new());
    }

    #[test]
    fn every_line_that_is_missing_is_a_trouble() {
        let check = |without: usize, expected: &[&str]| {
            let lines: Vec<&str> = (0..WHOLE.len()).filter(|at| *at != without).map(|at| WHOLE[at]).collect();
            assert_eq!(transcript(&lines).troubles("6.1.0-56", &tests()), expected, "{without}");
        };
        check(0, &["it did not boot"]);
        check(6, &["c did not come to an end", "1 of 2 tests have no result"]);
        check(7, &["its last line is missing"]);
        let other = transcript(&WHOLE).troubles("6.12.1", &tests());
        assert_eq!(other, ["it is 6.1.0-56"]);
        let none = transcript(&[]).troubles("6.1.0-56", &tests());
        assert_eq!(none, ["it did not boot", "2 of 2 tests have no result", "its last line is missing"]);
        let fewer = transcript(&["@vm kernel 6.1.0-56", "@vm end 0"]).troubles("6.1.0-56", &tests());
        assert_eq!(fewer, ["2 of 2 tests have no result", "its last line is missing"]);
    }

    #[test]
    fn a_failure_keeps_what_the_test_said_and_nothing_of_others() {
        let transcript = transcript(&[
            "@vm begin a::b",
            "@vm output first",
            "@vm result a::b failed 101",
            "@vm begin c",
            "@vm differs c somehow",
            "@vm output second",
            "@vm output",
            "@vm result c failed 137",
        ]);
        assert_eq!(transcript.verdict("a::b"), Some(&Verdict::Failed(vec!["first".to_owned()])));
        assert_eq!(transcript.verdict("c"), Some(&Verdict::Failed(vec!["second".to_owned(), String::new()])));
    }
}
