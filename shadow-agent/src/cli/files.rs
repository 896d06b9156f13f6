//! The arguments of the commands that read or write files, and what their values look like.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CaptureArgs, EndingArgs, RunArgs, TargetArgs, duration};
use crate::config::units;
use crate::pace::Pace;

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

    /// A directory in which `ctl disable` outlives a restart, until someone enables, and with the audit log
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
