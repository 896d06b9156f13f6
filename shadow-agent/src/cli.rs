//! The command line: arguments, help and exit codes. Values that a file can hold too stay text here, because `config`
//! checks them wherever they come from.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::units;
use crate::pace::Pace;

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

/// The arguments of `run`.
///
/// Each sets one key of the configuration file and beats it; SHADOW_AGENT_ and the flag's name in capitals does the
/// same from the environment, lists separated by commas.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Every flag can come from the environment too: SHADOW_AGENT_ and its name in capitals
(SHADOW_AGENT_SAMPLE=25%), lists separated by commas. A flag beats the environment,
which beats the configuration file.

Examples:
  shadow-agent run --interface eth0 --port 8080 --shadow http://10.0.0.9:8080
  shadow-agent run --interface eth0 --port 8080 --shadow http://10.0.0.9:8080 \\
      --baseline http://10.0.0.10:8080 --duration 60s --report report.json --gate
  shadow-agent run --config /etc/shadow-agent/config.yaml")]
pub struct RunArgs {
    /// The configuration file (YAML)
    #[arg(long, value_name = "FILE", env = "SHADOW_AGENT_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// What is captured.
    #[command(flatten)]
    pub capture: CaptureArgs,

    /// Where requests are replayed, and which.
    #[command(flatten)]
    pub targets: TargetArgs,

    /// Requests per second to each target, such as 500/s [default: unlimited]
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,

    /// Where the admin API listens, or off [default: 127.0.0.1:9465]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,

    /// Stop after this time, such as 60s [default: run until interrupted]
    #[arg(long, value_name = "DURATION", env = "SHADOW_AGENT_DURATION", hide_env_values = true,
          value_parser = duration)]
    pub duration: Option<Duration>,

    /// What is said at the end.
    #[command(flatten)]
    pub ending: EndingArgs,

    /// A directory in which `ctl disable` outlives a restart, until someone enables
    #[arg(long, value_name = "DIR", env = "SHADOW_AGENT_STATE", hide_env_values = true)]
    pub state: Option<PathBuf>,
}

/// What is captured.
#[derive(Args, Clone, Debug, Default)]
pub struct CaptureArgs {
    /// Interface to capture on: a name or a glob (repeatable)
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,

    /// The server's port, or a range such as 9000-9010 (repeatable)
    #[arg(long, value_name = "PORT|A-B")]
    pub port: Vec<String>,

    /// Only servers in this network (repeatable)
    #[arg(long, value_name = "SERVER-CIDR")]
    pub cidr: Vec<String>,

    /// The share of connections captured [default: 100%]
    #[arg(long, value_name = "SHARE")]
    pub sample: Option<String>,

    /// Where incoming packets are copied: tc, or xdp, which costs production more [default: tc]
    #[arg(long, value_name = "tc|xdp")]
    pub mode: Option<String>,
}

/// Where requests are replayed, and which.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArgs {
    /// The new version, to which requests are replayed; replaces the file's targets
    #[arg(long, value_name = "URL")]
    pub shadow: Option<String>,

    /// Production's own version as a shadow, which tells differences of version from noise
    #[arg(long, value_name = "URL")]
    pub baseline: Option<String>,

    /// Method to replay; all but safe ones need --isolated (repeatable) [default: GET, HEAD, OPTIONS]
    #[arg(long, value_name = "M")]
    pub method: Vec<String>,

    /// Declare that nothing the targets write reaches anybody
    #[arg(long)]
    pub isolated: bool,

    /// Replay only these paths, save what rules and built-in skips leave out: `*` within a segment, `**` across
    /// segments (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub path: Vec<String>,

    /// Requests that carry credentials: skip, forward or strip [default: skip]
    #[arg(long, value_name = "skip|forward|strip")]
    pub credentials: Option<String>,

    /// Requests under way at once to each target [default: 64]
    #[arg(long, value_name = "N")]
    pub concurrency: Option<String>,
}

/// What is said at the end.
#[derive(Args, Clone, Debug, Default)]
pub struct EndingArgs {
    /// Write the summary as JSON to this file
    #[arg(long, value_name = "FILE", env = "SHADOW_AGENT_REPORT", hide_env_values = true)]
    pub report: Option<PathBuf>,

    /// End with the verdict's exit code: 0 pass, 1 fail, 3 not enough evidence
    #[arg(long, env = "SHADOW_AGENT_GATE", hide_env_values = true)]
    pub gate: bool,

    /// What this run is called in reports: a version, a commit
    #[arg(long, value_name = "TEXT", env = "SHADOW_AGENT_LABEL", hide_env_values = true)]
    pub label: Option<String>,
}

/// The arguments of `replay`.
///
/// Those that `run` has too mean the same here, and can come from the environment likewise.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The requests of a file are sent as those of live traffic are: only safe methods unless others are
listed, marked, masked, and compared with the responses that the file holds. The file waits for
the targets: no request is left out because they are slow. One that does not answer at all is not
waited for: while its breaker is open, requests are counted as not sent. A rate of the
configuration file (replay.rate) is a limit to any speed.

Examples:
  shadow-agent replay --from capture.pcap --shadow http://10.0.0.9:8080 --gate
  shadow-agent replay --from recorded.gor.gz --speed max --shadow http://10.0.0.9:8080")]
pub struct ReplayArgs {
    /// A capture (pcap, pcapng) or recording (.gor, HTTP archive), compressed with gzip or not, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,

    /// How fast: as recorded (1x), a multiple of it, a rate such as 500/s, or max
    #[arg(long, value_name = "1x|4x|max|500/s", default_value = "1x", value_parser = speed)]
    pub speed: Pace,

    /// Send the requests of one connection in their order, each after the answers to the one before
    #[arg(long)]
    pub keep_order: bool,

    /// The configuration file (YAML)
    #[arg(long, value_name = "FILE", env = "SHADOW_AGENT_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// Only connections to the server's port, or a range such as 9000-9010 (repeatable) [default: any]
    #[arg(long, value_name = "PORT|A-B")]
    pub port: Vec<String>,

    /// Where requests are replayed, and which.
    #[command(flatten)]
    pub targets: TargetArgs,

    /// Where the admin API listens [default: off]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,

    /// What is said at the end.
    #[command(flatten)]
    pub ending: EndingArgs,
}

impl ReplayArgs {
    /// What is configured as for a run.
    #[must_use]
    pub fn as_run(&self) -> RunArgs {
        RunArgs {
            capture: CaptureArgs { port: self.port.clone(), ..CaptureArgs::default() },
            targets: self.targets.clone(),
            admin: self.admin.clone(),
            ..RunArgs::default()
        }
    }
}

/// The arguments of `inspect`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Each line is an exchange, whole or lost for a reason; the last line is {\"summary\": ...}. Values
are masked as in reports. Bodies are not shown: body_len and body_sha256 are of the body after
transfer decoding and before content decoding.

Examples:
  shadow-agent inspect capture.pcap
  tcpdump -i eth0 -U -w - port 8080 | shadow-agent inspect - --port 8080")]
pub struct InspectArgs {
    /// A capture (pcap or pcapng, compressed with gzip or not), or - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The server's port, or a range such as 9000-9010 (repeatable) [default: any]
    #[arg(long, value_name = "PORT|A-B")]
    pub port: Vec<String>,

    /// Take masks, limits and ports from this configuration file (YAML) [default: known credentials are masked]
    #[arg(long, value_name = "FILE", env = "SHADOW_AGENT_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}

impl InspectArgs {
    /// What is configured as for a run.
    #[must_use]
    pub fn as_run(&self) -> RunArgs {
        let capture = CaptureArgs { port: self.port.clone(), ..CaptureArgs::default() };
        RunArgs { capture, ..RunArgs::default() }
    }
}

/// The arguments of `record`.
///
/// Those that `run` has too mean the same here, and can come from the environment likewise.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The name of the file says its kind: .gor and .gor.gz (GoReplay), .har (HTTP archive, for the
developer tools of browsers), .pcapng (for Wireshark; its packets are made of the exchanges).
Values are masked by mask.keep, in bodies too; an exchange with a body that cannot be masked is
left out. With --rotate-size or --rotate-every the files have the time in UTC and a number in
their names: capture-20260102T030405Z-0001.gor. The last line says what became of everything.

Examples:
  shadow-agent record --interface eth0 --port 8080 --out capture.gor --duration 60s
  shadow-agent record --from capture.pcap --out capture.har
  shadow-agent record --config /etc/shadow-agent/config.yaml --out /var/tmp/capture.gor.gz \\
      --rotate-size 100MiB --keep 10")]
pub struct RecordArgs {
    /// The file to write: .gor, .gor.gz, .har or .pcapng
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    /// Instead of capturing, a capture or a recording of any kind that inspect reads, or - for standard input; of the
    /// flags for capturing only --port counts then [default port: any]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["interface", "cidr", "sample", "mode", "admin", "duration", "state"])]
    pub from: Option<PathBuf>,

    /// The configuration file (YAML) [default: known credentials are masked]
    #[arg(long, value_name = "FILE", env = "SHADOW_AGENT_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// What is captured.
    #[command(flatten)]
    pub capture: CaptureArgs,

    /// Begin another file before one is larger, before compression, such as 100MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub rotate_size: Option<u64>,

    /// Begin another file when one is so old, on the clock of the exchanges, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = age)]
    pub rotate_every: Option<Duration>,

    /// Keep so many files, and remove the oldest of this run
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub keep: Option<usize>,

    /// Replace files that exist
    #[arg(long)]
    pub force: bool,

    /// Where the admin API listens, or off [default: 127.0.0.1:9465]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,

    /// Stop after this time, such as 60s [default: record until interrupted]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,

    /// A directory in which `ctl disable` outlives a restart, until someone enables
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

impl RecordArgs {
    /// What is configured as for a run.
    #[must_use]
    pub fn as_run(&self) -> RunArgs {
        RunArgs { capture: self.capture.clone(), admin: self.admin.clone(), ..RunArgs::default() }
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
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

/// The slowest and the fastest that a file may be replayed, as multiples of the times in it.
const SPEED: std::ops::RangeInclusive<f64> = 0.001..=1000.0;

fn speed(text: &str) -> Result<Pace, String> {
    let refused = || {
        format!(
            "write 1x for the times recorded, a multiple from {}x to {}x, a rate such as 500/s, or max",
            SPEED.start(),
            SPEED.end()
        )
    };
    if text == "max" {
        return Ok(Pace::Max);
    }
    match text.strip_suffix('x') {
        Some(factor) => match units::decimal(factor) {
            Ok(factor) if SPEED.contains(&factor) => Ok(Pace::Scaled(factor)),
            _ => Err(refused()),
        },
        None => match units::rate(text) {
            Ok(Some(rate)) => Ok(Pace::Rate(rate)),
            _ => Err(refused()),
        },
    }
}

fn size(text: &str) -> Result<u64, String> {
    match units::size(text) {
        Ok(0) => Err("a file of no size holds nothing; write one such as 100MiB".to_owned()),
        other => other.map_err(|problem| problem.to_string()),
    }
}

fn age(text: &str) -> Result<Duration, String> {
    match units::duration(text) {
        Ok(age) if age < Duration::from_secs(1) => Err("write a second or more, such as 1h".to_owned()),
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
            "ctl reload",
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
    fn speeds_are_read() {
        for (word, expected) in [
            ("1x", Pace::Scaled(1.0)),
            ("0.001x", Pace::Scaled(0.001)),
            ("1000x", Pace::Scaled(1000.0)),
            ("500/s", Pace::Rate(500.0)),
            ("0.5/s", Pace::Rate(0.5)),
            ("max", Pace::Max),
        ] {
            assert_eq!(speed(word), Ok(expected), "{word}");
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
