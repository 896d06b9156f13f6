//! The command line: arguments, help and exit codes. Values that a file can hold too stay text here, because `config`
//! checks them wherever they come from.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::units;

mod files;
mod run;

pub use files::{InspectArgs, RecordArgs, ReplayArgs};
pub use run::{CaptureArgs, EndingArgs, RunArgs, TargetArgs};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked, or the verdict is pass.
    Success = 0,
    /// The verdict is fail.
    Fail = 1,
    /// A usage or configuration error.
    Usage = 2,
    /// There is not enough evidence for a verdict.
    Insufficient = 3,
    /// A missing privilege or kernel feature.
    Unsupported = 4,
    /// Any other failure.
    Failure = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A value on the command line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// `--report` names a place that no file can be written to.
    #[error("--report {} cannot be written ({source}); name a file in a folder that you may write to", path.display())]
    Report {
        /// The path given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `--keep` without anything that makes a second file.
    #[error("--keep {0} needs --rotate-size or --rotate-every; without them there is one file")]
    Keep(usize),
    /// `--admin` is no address.
    #[error("--admin {0} is not an address; write one such as 127.0.0.1:9465")]
    Admin(String),
    /// `--token-file` cannot be read.
    #[error("--token-file {} cannot be read ({source}); name a file that you may read", path.display())]
    TokenFile {
        /// The file given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Mirrors live HTTP traffic to a shadow, compares the answers and says whether to ship.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "shadow-agent",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 success or verdict pass, 1 verdict fail, 2 usage or configuration error,
3 not enough evidence, 4 missing privilege or kernel feature, 5 any other failure.

Example:
  shadow-agent run --interface eth0 --port 8080 --shadow http://10.0.0.9:8080"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// What is logged to standard error: a level (error, warn, info, debug, trace) or directives such as
    /// info,shadow_agent::replay=debug
    #[arg(long, global = true, display_order = 1000, value_name = "LEVEL", env = "SHADOW_AGENT_LOG", default_value = "info",
          hide_env_values = true, value_parser = log_filter)]
    pub log: String,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Capture, replay, compare, and print a summary at the end
    Run(Box<RunArgs>),
    /// Rebuild the exchanges of a capture file, and print one JSON object a line
    Inspect(InspectArgs),
    /// Replay the requests of a capture file to a shadow, and compare its answers with those captured
    Replay(Box<ReplayArgs>),
    /// Write exchanges to files, masked, instead of replaying them
    Record(Box<RecordArgs>),
    /// Talk to a running agent
    Ctl(CtlArgs),
    /// Say what this host can and cannot do, and how to fix it
    #[command(after_help = "\
Exit codes: 0 nothing stands in the way, 2 the configuration cannot be used, 4 the agent cannot capture here.

Example:
  shadow-agent doctor --config /etc/shadow-agent/config.yaml")]
    Doctor(DoctorArgs),
    /// Check a configuration file, or show what is in effect
    #[command(after_help = "\
Example:
  shadow-agent config check /etc/shadow-agent/config.yaml")]
    Config(ConfigArgs),
}

/// The arguments of `ctl`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shadow-agent ctl status")]
pub struct CtlArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,

    /// The running agent's admin API
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        env = "SHADOW_AGENT_ADMIN",
        default_value = "127.0.0.1:9465",
        hide_env_values = true
    )]
    pub admin: String,

    /// A file with the bearer token of the admin API
    #[arg(long, global = true, value_name = "FILE", env = "SHADOW_AGENT_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
}

/// What can be asked of a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum CtlCommand {
    /// Show what the agent is doing
    #[command(after_help = "Example:\n  shadow-agent ctl status --admin 127.0.0.1:9465")]
    Status,
    /// Capture and replay again
    #[command(after_help = "Example:\n  shadow-agent ctl enable")]
    Enable,
    /// Stop capturing and replaying at once; the agent keeps running
    #[command(after_help = "Example:\n  shadow-agent ctl disable")]
    Disable,
    /// Capture another share of connections, until a restart; the CPU guard works from there downwards
    #[command(after_help = "Example:\n  shadow-agent ctl sample 10%")]
    Sample {
        /// The share, such as 10%
        #[arg(value_name = "SHARE")]
        share: String,
    },
    /// Read configuration file and flags again, and put them in force as a whole, or keep what is in force
    #[command(after_help = "\
Taken over: enabled, select, mask, replay, compare and verdict, but not the number and names of targets.
All else needs a restart, and is refused. A change of mask, replay, compare or verdict begins a new run.

Exit codes: 0 reloaded, 2 the configuration has a mistake, 5 any other failure.

Example:
  shadow-agent ctl reload")]
    Reload,
    /// Begin a run: what a verdict speaks of
    #[command(after_help = "Example:\n  shadow-agent ctl run start --label v2.1")]
    Run {
        /// What to do.
        #[command(subcommand)]
        command: RunCommand,
    },
}

/// What can be done with runs.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum RunCommand {
    /// End the run under way, and begin another with empty books
    #[command(after_help = "Example:\n  shadow-agent ctl run start --label v2.1")]
    Start {
        /// What it is called in reports: a version, a commit
        #[arg(long, value_name = "TEXT")]
        label: String,
    },
}

/// The arguments of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Check what this configuration needs, too
    #[arg(long, value_name = "FILE", env = "SHADOW_AGENT_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}

/// The arguments of `config`.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What can be done with a configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file; the environment plays no part
    #[command(after_help = "Example:\n  shadow-agent config check /etc/shadow-agent/config.yaml")]
    Check {
        /// The file (YAML)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the configuration in effect, from file, environment and flags of `run`, without secrets
    #[command(after_help = "Example:\n  shadow-agent config show --config config.yaml --sample 25%")]
    Show(Box<RunArgs>),
}

fn duration(text: &str) -> Result<Duration, String> {
    match units::duration(text) {
        Ok(Duration::ZERO) => Err("a run of no length sees nothing; write one such as 60s".to_owned()),
        other => other.map_err(|problem| problem.to_string()),
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("write error, warn, info, debug or trace, or directives such as info,shadow_agent=debug"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("shadow-agent "), "{} has no example", command.get_name());
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(check);
        }
        Cli::command().debug_assert();
        check(&Cli::command());
    }

    #[test]
    fn usage_errors_are_refused() {
        for words in [
            "run --nonsense",
            "run --duration 0s",
            "run --duration 5",
            "--log a=b=c run",
            "ctl sample",
            "ctl run start",
            "config",
            "inspect",
            "replay --shadow http://h",
            "replay --from a.pcap --speed 2",
            "replay --from a.pcap --speed 0x",
            "replay --from a.pcap --speed 1001x",
            "replay --from a.pcap --speed 0/s",
            "replay --from a.pcap --speed unlimited",
            "replay --from a.pcap --interface eth0",
            "record --from a.pcap",
            "record --from a.pcap --out a.gor --interface eth0",
            "record --out a.gor --rotate-size 0B",
            "record --out a.gor --rotate-every 999ms",
            "record --out a.gor --keep 0",
        ] {
            let words = ["shadow-agent"].into_iter().chain(words.split_whitespace());
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8), "{error}");
        }
    }

    #[test]
    fn arguments_of_a_run_are_read() {
        let words =
            "shadow-agent run --duration 1.5m --gate --label v2 --report r.json --log warn --config c.yaml";
        let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
        assert_eq!(cli.log, "warn");
        let Command::Run(args) = cli.command else { panic!() };
        assert_eq!(
            (args.duration, args.ending.gate, args.ending.label.as_deref()),
            (Some(Duration::from_secs(90)), true, Some("v2"))
        );
        assert_eq!((args.ending.report, args.config), (Some("r.json".into()), Some("c.yaml".into())));
    }
}
