//! Says what this host can and cannot do, and how to fix it. Changes nothing on it.

use std::fmt;

use crate::capture::kernel::probe;
use crate::cli::Exit;
use crate::config::{self, Config};

mod host;
mod memory;
mod network;
mod rights;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Ok,
    /// The agent runs, less well or less surely.
    Warning,
    /// The agent does not run; the exit code that it would end with.
    Problem(Exit),
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub level: Level,
    /// What was found.
    pub finding: String,
    /// What to do about it; none when all is well.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: impl Into<String>, finding: impl Into<String>) -> Check {
        Check { name: name.into(), level: Level::Ok, finding: finding.into(), remedy: None }
    }

    fn warning(name: impl Into<String>, finding: impl Into<String>, remedy: impl Into<String>) -> Check {
        let remedy = Some(remedy.into());
        Check { name: name.into(), level: Level::Warning, finding: finding.into(), remedy }
    }

    fn problem(
        name: impl Into<String>,
        exit: Exit,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Check {
        let remedy = Some(remedy.into());
        Check { name: name.into(), level: Level::Problem(exit), finding: finding.into(), remedy }
    }
}

/// Everything that was looked at, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// [`Exit::Success`] without problems; [`Exit::Unsupported`] when one prevents capturing; else the first problem's.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let problems = || {
            self.checks.iter().filter_map(|check| match check.level {
                Level::Problem(exit) => Some(exit),
                _ => None,
            })
        };
        problems()
            .find(|exit| *exit == Exit::Unsupported)
            .or_else(|| problems().next())
            .unwrap_or(Exit::Success)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
        let (mut warnings, mut problems) = (0, 0);
        for check in &self.checks {
            let level = match check.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Problem(_) => "problem",
            };
            warnings += usize::from(check.level == Level::Warning);
            problems += usize::from(matches!(check.level, Level::Problem(_)));
            writeln!(f, "{level:<8} {:<width$}  {}", check.name, check.finding)?;
            if let Some(remedy) = &check.remedy {
                writeln!(f, "{:8} {:width$}  -> {remedy}", "", "")?;
            }
        }
        writeln!(f, "\nproblems: {problems}, warnings: {warnings}")
    }
}

/// Looks at this host, and at what `config` needs of it. Works without root, and then says what it could not look at.
///
/// May take seconds: programs are verified, shadows are connected to, and names resolved.
#[must_use]
pub fn run(config: Option<&Config>) -> Report {
    let default = Config::default();
    let mut checks = rights::checks(config.unwrap_or(&default));
    checks.extend(host::checks(&probe::features(), config.unwrap_or(&default).capture.mode));
    checks.extend(memory::checks(config.unwrap_or(&default)));
    checks.extend(network::interfaces(config));
    checks.extend(config.into_iter().flat_map(network::targets));
    checks.extend(config.into_iter().flat_map(advice));
    checks.extend(config.into_iter().flat_map(writes));
    Report { checks }
}

/// What requests that change something would do, and where.
fn writes(config: &Config) -> Vec<Check> {
    config::writes::in_words(config).into_iter().map(|line| Check::ok("writes", line)).collect()
}

/// What the configuration allows and probably does not mean on this host.
fn advice(config: &Config) -> Vec<Check> {
    let advice = config::advice::here(config);
    // Each says itself what to write instead.
    let check = |said: String| Check { level: Level::Warning, ..Check::ok("configuration", said) };
    advice.iter().map(|advice| check(advice.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_gravest_problem() {
        let check = |levels: &[Level]| {
            let one = |level: &Level| Check { level: *level, ..Check::ok("a", "b") };
            Report { checks: levels.iter().map(one).collect() }.exit()
        };
        let (usage, unsupported) = (Level::Problem(Exit::Usage), Level::Problem(Exit::Unsupported));
        assert_eq!(check(&[Level::Ok, Level::Warning]), Exit::Success);
        assert_eq!(check(&[Level::Ok, usage]), Exit::Usage);
        assert_eq!(check(&[usage, unsupported]), Exit::Unsupported);
    }

    #[test]
    fn a_report_is_a_table_with_remedies() {
        let report =
            Report { checks: vec![Check::ok("kernel", "6.18"), Check::warning("JIT", "off", "turn it on")] };
        assert_eq!(
            report.to_string(),
            "ok       kernel  6.18\nwarning  JIT     off\n                 -> turn it on\n\nproblems: 0, warnings: 1\n"
        );
    }

    #[test]
    fn it_runs_here_with_and_without_configuration() {
        let names = |report: Report| report.checks.into_iter().map(|check| check.name).collect::<Vec<_>>();
        let bare = names(run(None));
        for name in
            ["privileges", "verifier", "kernel", "BPF programs", "ring buffer", "TCX", "clsact", "BTF", "JIT"]
        {
            assert!(bare.iter().any(|found| found == name), "{name} in {bare:?}");
        }
        let mut config = Config::default();
        config.capture.interfaces = vec!["no-such-if".to_owned()];
        config.capture.ring_size = 9 << 20;
        let report = run(Some(&config));
        let advice = report.checks.iter().find(|check| check.name == "configuration").unwrap();
        assert!(advice.level == Level::Warning && advice.finding.contains("is rounded down"), "{advice:?}");
        let writes = report.checks.iter().find(|check| check.name == "writes").unwrap();
        assert!(writes.finding.contains("nothing is written anywhere"), "{writes:?}");
        let check = report.checks.iter().find(|check| check.name == "interfaces").unwrap();
        assert_eq!(check.level, Level::Problem(Exit::Usage));
        assert!(check.finding.contains("no interface `no-such-if`"), "{}", check.finding);
    }
}
