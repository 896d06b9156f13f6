//! Remembers what was said about the interfaces, so that nothing is said twice while it holds. Logs nothing by itself.

use crate::capture::interfaces::{InterfaceError, Selection, Warning};

/// What was said already, and still holds.
#[derive(Debug, Default)]
pub(super) struct Told {
    missing: Vec<String>,
    two_levels: bool,
    stacked: bool,
}

impl Told {
    /// What did not hold before and is likely not meant, each a sentence. That a new device is still down, or that a glob
    /// matches nothing any more, is nothing special.
    pub(super) fn news(&mut self, selection: &Selection) -> Vec<String> {
        let mut news = Vec::new();
        for unmet in selection.unmet.iter().filter(|unmet| !self.missing.contains(&unmet.pattern)) {
            match &unmet.reason {
                InterfaceError::NothingMatches { .. } => {}
                InterfaceError::NoSuchInterface { name, .. } => news.push(format!(
                    "interface {name}, which capture.interfaces names, is missing; it is captured from when it comes back"
                )),
                reason => news.push(reason.to_string()),
            }
        }
        self.missing = selection.unmet.iter().map(|unmet| unmet.pattern.clone()).collect();
        let (mut two_levels, mut stacked) = (false, false);
        for warning in &selection.warnings {
            let (holds, held) = match warning {
                Warning::TwoLevels { .. } => (&mut two_levels, self.two_levels),
                Warning::Stacked { .. } => (&mut stacked, self.stacked),
                Warning::Down(_) | Warning::LeftOut { .. } | Warning::NothingYet(_) => continue,
            };
            *holds = true;
            if !held {
                news.push(warning.to_string());
            }
        }
        (self.two_levels, self.stacked) = (two_levels, stacked);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::interfaces::Unmet;

    fn selection(missing: &[&str], warnings: &[Warning]) -> Selection {
        let unmet = |name: &&str| {
            let (name, existing) = ((*name).to_owned(), String::new());
            let reason = match name.contains('*') {
                true => InterfaceError::NothingMatches { glob: name.clone(), existing },
                false => InterfaceError::NoSuchInterface { name: name.clone(), existing },
            };
            Unmet { pattern: name, reason }
        };
        Selection {
            devices: Vec::new(),
            warnings: warnings.to_vec(),
            unmet: missing.iter().map(unmet).collect(),
        }
    }

    #[test]
    fn what_holds_is_told_once_and_again_when_it_did_not_hold_meanwhile() {
        let levels =
            |workload: &str| Warning::TwoLevels { uplink: "eth0".to_owned(), workload: workload.to_owned() };
        let stacked = Warning::Stacked { upper: "br0".to_owned(), lower: "veth1".to_owned() };
        let mut told = Told::default();
        let mut check = |selection: Selection, expected: &[&str]| {
            let news = told.news(&selection);
            let as_expected = news.len() == expected.len()
                && news.iter().zip(expected).all(|(found, start)| found.starts_with(start));
            assert!(as_expected, "{selection:?}: {news:?}");
        };
        check(selection(&["cali*"], &[Warning::Down("eth0".to_owned())]), &[]);
        check(
            selection(&["eth1", "cali*"], &[]),
            &["interface eth1, which capture.interfaces names, is missing"],
        );
        check(selection(&["eth1"], &[levels("veth1")]), &["eth0 is this host's own and veth1"]);
        check(selection(&["eth1"], &[levels("veth2")]), &[]);
        check(selection(&[], &[levels("veth2"), stacked.clone()]), &["what passes veth1 passes br0 too"]);
        check(selection(&[], &[stacked]), &[]);
        check(
            selection(&["eth1"], &[levels("veth3")]),
            &["interface eth1, which", "eth0 is this host's own and veth3"],
        );
    }
}
