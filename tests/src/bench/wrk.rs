//! wrk, the load generator that sends as fast as it is answered: started on one core, and its report read.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;
use crate::process::{Process, cpu_of_children};

/// What wrk found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Requests answered per second.
    pub rate: f64,
    /// Half of the requests took at most so long, in microseconds.
    pub p50: f64,
    /// 99 % of the requests took at most so long, in microseconds.
    pub p99: f64,
    /// CPU seconds of wrk itself.
    pub cpu: f64,
}

/// Asks for `/file` over kept connections from one thread on `core`, for so many seconds.
///
/// # Errors
/// When wrk cannot run, or a request fails.
pub fn run(
    namespace: &Namespace,
    folder: &Path,
    core: usize,
    address: SocketAddr,
    connections: usize,
    seconds: u32,
) -> Result<Report> {
    let mut command = namespace.command("taskset");
    command.args(["--cpu-list", &core.to_string(), "wrk", "--latency", "--threads", "1"]);
    command.args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s")]);
    command.arg(format!("http://{address}/file"));
    let before = cpu_of_children()?;
    let mut process = Process::start("wrk", &mut command, &folder.join("wrk.log"))?;
    let status = process.wait(Duration::from_secs(u64::from(seconds) + 30))?;
    let said = process.log();
    ensure!(status.success(), "wrk ended with {status}; it said:\n{said}");
    ensure!(
        !said.contains("Socket errors") && !said.contains("Non-2xx"),
        "requests failed; wrk said:\n{said}"
    );
    let report = read(&said).with_context(|| format!("wrk said:\n{said}"))?;
    Ok(Report { cpu: cpu_of_children()?.saturating_sub(before).as_secs_f64(), ..report })
}

fn read(text: &str) -> Result<Report> {
    let value = |label: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(label));
        found.map(str::trim).with_context(|| format!("no line `{label}`"))
    };
    Ok(Report {
        rate: value("Requests/sec:")?.parse()?,
        p50: microseconds(value("50%")?)?,
        p99: microseconds(value("99%")?)?,
        cpu: 0.0,
    })
}

/// A duration as wrk writes it, such as `571.91us` or `1.18ms`.
fn microseconds(text: &str) -> Result<f64> {
    let (number, unit) = text.split_at(text.find(char::is_alphabetic).unwrap_or(text.len()));
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => anyhow::bail!("`{text}` is no duration"),
    };
    Ok(number.parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_half_of_one_is_not() {
        let text = "Running 2s test @ http://10.77.1.1:8080/file\n  1 threads and 32 connections\n  \
                    Latency Distribution\n     50%  549.00us\n     75%  571.91us\n     99%    1.18ms\n  \
                    119000 requests in 2.00s, 150.00MB read\nRequests/sec:  59811.91\n";
        let expected = Report { rate: 59811.91, p50: 549.0, p99: 1180.0, cpu: 0.0 };
        assert_eq!(read(text).unwrap(), expected);
        for part in ["Requests/sec:", "50%", "99%"] {
            assert!(read(&text.replace(part, "")).unwrap_err().to_string().contains(part));
        }
        assert_eq!(microseconds("2.00s").unwrap(), 2e6);
        assert!(microseconds("2.00h").is_err());
    }
}
