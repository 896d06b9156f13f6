//! The arguments of `run`, in the groups that other commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::duration;

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

    /// A directory in which `ctl disable` outlives a restart, until someone enables, and with the audit log
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

    /// Requests that carry credentials: skip, forward, strip or replace (each target its own; in the file) [default: skip]
    #[arg(long, value_name = "skip|forward|strip|replace")]
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
