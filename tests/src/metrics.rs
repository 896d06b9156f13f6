//! Reads metrics in Prometheus' text format, as far as tests need it.

use std::collections::BTreeMap;

/// One scrape: every sample by its series as printed (`name{label="value"}`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads the text of a scrape; comments and lines that are no samples are left out.
    #[must_use]
    pub fn parse(text: &str) -> Scrape {
        let sample = |line: &str| {
            let (series, value) = line.trim().rsplit_once(' ')?;
            Some((series.trim().to_owned(), value.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Scrape { samples: lines.filter_map(sample).collect() }
    }

    /// The sum of all series of the metric `name` that carry each of the labels; `None` when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matching = self.samples.iter().filter(|(series, _)| {
            let (metric, rest) = series.split_once('{').unwrap_or((series, ""));
            metric == name
                && labels.iter().all(|(label, value)| {
                    let wanted = format!("{label}=\"{value}\"");
                    rest.match_indices(&wanted).any(|(at, _)| {
                        at == 0
                            || rest
                                .as_bytes()
                                .get(at - 1)
                                .is_some_and(|&before| before == b',' || before == b' ')
                    })
                })
        });
        matching.map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }

    /// As [`Scrape::sum`], with 0 for what is absent.
    #[must_use]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        // Counts of a test are far below 2^53.
        self.sum(name, labels).unwrap_or_default() as u64
    }

    /// The series of one metric that are not 0, as printed, one a line: for messages.
    #[must_use]
    pub fn counted(&self, name: &str) -> String {
        let samples = self.samples.iter().filter(|(series, value)| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && **value != 0.0
        });
        samples.map(|(series, value)| format!("{series} {value}\n")).collect()
    }

    /// Every series as printed.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_whole_labels() {
        let scrape = Scrape::parse(
            "# HELP a text 7\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\na{xx=\"1\"} 9\nb 2.5\nbroken\n",
        );
        assert_eq!(scrape.sum("a", &[("x", "1")]), Some(7.0));
        assert_eq!(scrape.sum("a", &[("x", "1"), ("y", "2")]), Some(3.0));
        assert_eq!(scrape.sum("b", &[]), Some(2.5));
        assert_eq!(scrape.sum("c", &[]), None);
        assert_eq!(scrape.count("a", &[]), 16);
        assert_eq!(scrape.counted("b"), "b 2.5\n");
    }
}
