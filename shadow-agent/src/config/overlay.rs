//! Lays the environment and the flags over the file: one table says which key each of them sets.
//!
//! A list that is given replaces the file's list, and `--shadow` replaces all targets of the file: settings that were
//! written for one host (above all `isolated`) are never inherited by another.

use super::file::{Raw, Target, Text, nearest};
use super::{ConfigError, Source};
use crate::cli::RunArgs;

/// The prefix of our environment variables.
const PREFIX: &str = "SHADOW_AGENT_";

/// Variables with our prefix that other parts of the program read.
const ELSEWHERE: [&str; 8] = [
    "SHADOW_AGENT_CONFIG",
    "SHADOW_AGENT_DURATION",
    "SHADOW_AGENT_GATE",
    "SHADOW_AGENT_LABEL",
    "SHADOW_AGENT_LOG",
    "SHADOW_AGENT_REPORT",
    "SHADOW_AGENT_STATE",
    "SHADOW_AGENT_TOKEN_FILE",
];

/// Values given on the way that apply to every target, whatever the file says of it.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub(super) isolated: Option<Text>,
    pub(super) rate: Option<Text>,
    pub(super) concurrency: Option<Text>,
}

struct Setting {
    flag: &'static str,
    variable: &'static str,
    given: fn(&RunArgs) -> Vec<String>,
    set: fn(&mut Raw, &mut Overrides, Vec<Text>),
}

fn last(texts: Vec<Text>) -> Option<Text> {
    texts.into_iter().next_back()
}

fn one(value: &Option<String>) -> Vec<String> {
    value.iter().cloned().collect()
}

fn target(name: &str, url: Vec<Text>) -> Option<Target> {
    let url = last(url)?;
    Some(Target { name: Text::new(name, url.source), url, ..Target::default() })
}

const SETTINGS: [Setting; 14] = [
    Setting {
        flag: "--interface",
        variable: "SHADOW_AGENT_INTERFACE",
        given: |args| args.capture.interface.clone(),
        set: |raw, _, texts| raw.capture.interfaces = Some(texts),
    },
    Setting {
        flag: "--port",
        variable: "SHADOW_AGENT_PORT",
        given: |args| args.capture.port.clone(),
        set: |raw, _, texts| raw.capture.ports = Some(texts),
    },
    Setting {
        flag: "--cidr",
        variable: "SHADOW_AGENT_CIDR",
        given: |args| args.capture.cidr.clone(),
        set: |raw, _, texts| raw.capture.cidrs.server.include = Some(texts),
    },
    Setting {
        flag: "--shadow",
        variable: "SHADOW_AGENT_SHADOW",
        given: |args| one(&args.targets.shadow),
        set: |raw, _, texts| raw.replay.targets = target("candidate", texts).map(|target| vec![target]),
    },
    Setting {
        flag: "--baseline",
        variable: "SHADOW_AGENT_BASELINE",
        given: |args| one(&args.targets.baseline),
        set: |raw, _, texts| raw.replay.baseline = target("baseline", texts),
    },
    Setting {
        flag: "--method",
        variable: "SHADOW_AGENT_METHOD",
        given: |args| args.targets.method.clone(),
        set: |raw, _, texts| raw.select.methods = Some(texts),
    },
    Setting {
        flag: "--isolated",
        variable: "SHADOW_AGENT_ISOLATED",
        given: |args| if args.targets.isolated { vec!["true".to_owned()] } else { Vec::new() },
        set: |_, overrides, texts| overrides.isolated = last(texts),
    },
    Setting {
        flag: "--path",
        variable: "SHADOW_AGENT_PATH",
        given: |args| args.targets.path.clone(),
        set: |raw, _, texts| raw.select.only = Some(texts),
    },
    Setting {
        flag: "--credentials",
        variable: "SHADOW_AGENT_CREDENTIALS",
        given: |args| one(&args.targets.credentials),
        set: |raw, _, texts| raw.replay.credentials = last(texts),
    },
    Setting {
        flag: "--sample",
        variable: "SHADOW_AGENT_SAMPLE",
        given: |args| one(&args.capture.sample),
        set: |raw, _, texts| raw.capture.sample = last(texts),
    },
    Setting {
        flag: "--rate",
        variable: "SHADOW_AGENT_RATE",
        given: |args| one(&args.rate),
        set: |_, overrides, texts| overrides.rate = last(texts),
    },
    Setting {
        flag: "--concurrency",
        variable: "SHADOW_AGENT_CONCURRENCY",
        given: |args| one(&args.targets.concurrency),
        set: |_, overrides, texts| overrides.concurrency = last(texts),
    },
    Setting {
        flag: "--mode",
        variable: "SHADOW_AGENT_MODE",
        given: |args| one(&args.capture.mode),
        set: |raw, _, texts| raw.capture.mode = last(texts),
    },
    Setting {
        flag: "--admin",
        variable: "SHADOW_AGENT_ADMIN",
        given: |args| one(&args.admin),
        set: |raw, _, texts| raw.admin.listen = last(texts),
    },
];

/// Lays `flags` over `environment` over `raw`.
///
/// # Errors
/// When a variable has our prefix and means nothing.
pub(super) fn lay(
    raw: &mut Raw,
    environment: impl Iterator<Item = (String, String)>,
    flags: &RunArgs,
) -> Result<Overrides, ConfigError> {
    let mut overrides = Overrides::default();
    for (name, value) in environment.filter(|(name, _)| name.starts_with(PREFIX)) {
        if is_service_link(&name, &value) || ELSEWHERE.contains(&name.as_str()) {
            continue;
        }
        let Some(setting) = SETTINGS.iter().find(|setting| setting.variable == name) else {
            let known: Vec<_> = SETTINGS.iter().map(|setting| setting.variable).chain(ELSEWHERE).collect();
            return Err(ConfigError::UnknownVariable { suggestion: nearest(&name, &known), name, known });
        };
        let source = Source::Environment(setting.variable);
        let texts = split_list(&value).map(|item| Text::new(item, source)).collect();
        (setting.set)(raw, &mut overrides, texts);
    }
    for setting in &SETTINGS {
        let given = (setting.given)(flags);
        if !given.is_empty() {
            let source = Source::Flag(setting.flag);
            let texts = given.into_iter().map(|item| Text::new(item, source)).collect();
            (setting.set)(raw, &mut overrides, texts);
        }
    }
    Ok(overrides)
}

/// Whether Kubernetes set this variable, because a Service is called `shadow-agent` or begins so.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = value.starts_with("tcp://") || value.starts_with("udp://") || value.starts_with("sctp://");
    let of_a_port = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol));
    name.contains("SERVICE_HOST") || name.contains("SERVICE_PORT") || is_url || of_a_port
}

/// The items of a list in one variable: separated by commas, save those within the braces of a glob.
fn split_list(value: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i32;
    value
        .split(move |c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            c == ',' && depth <= 0
        })
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn no_variable_that_the_command_line_reads_is_refused() {
        fn check(command: &clap::Command) {
            for name in command.get_arguments().filter_map(clap::Arg::get_env) {
                let name = name.to_str().unwrap().to_owned();
                let laid =
                    lay(&mut Raw::default(), [(name, "x".to_owned())].into_iter(), &RunArgs::default());
                laid.unwrap();
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
