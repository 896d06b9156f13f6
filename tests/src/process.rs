//! Starts programs, waits for what must become true, and ends only what was started here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(10);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Makes Ctrl-C and SIGTERM end every wait with an error, so that destructors clean up.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_on_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("installing a signal handler")?;
    }
    Ok(())
}

/// Fails once a signal asked us to stop.
///
/// # Errors
/// When interrupted.
pub fn check_interrupt() -> Result<()> {
    if INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps, unless interrupted.
///
/// # Errors
/// When interrupted.
pub fn pause(span: Duration) -> Result<()> {
    let end = Instant::now() + span;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        check_interrupt()?;
        thread::sleep(left.min(POLL * 5));
    }
    Ok(())
}

/// Asks again and again until `probe` gives a value.
///
/// # Errors
/// When the deadline passes (the error names `what` and why the last probe gave nothing), or when interrupted.
pub fn wait_until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        check_interrupt()?;
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("waited {} s for: {what}", within.as_secs_f64())));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// A program that was started here and ends with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program; its output goes to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be made or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Process { child, name: name.to_owned(), log: log.to_path_buf() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Fails, with what it printed, when it has ended.
    ///
    /// # Errors
    /// When it is not running any more.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended early ({status}); it said:\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it is still running after `within`; it says what it printed.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} is still running after {within:?}; it said:\n{}", self.name, self.log());
            }
            thread::sleep(POLL);
        }
    }

    /// CPU time used so far, user and system.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(self.id())
    }

    /// A line of `/proc/PID/status` that is given in kB, in bytes.
    ///
    /// # Errors
    /// When the process is gone or has no such line.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| format!("{} has no {field}", self.name))?.parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // It may end by itself between these steps; then there is nothing left to do.
        let _ = self.signal(Signal::SIGTERM);
        if self.wait(GRACE).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// CPU time used so far by the process of that id, user and system, ended and awaited children not included.
///
/// # Errors
/// When there is no such process.
pub fn cpu_of(id: u32) -> Result<Duration> {
    cpu_fields(id, 11)
}

/// CPU time used by children of this process that have ended and were awaited.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn cpu_of_children() -> Result<Duration> {
    cpu_fields(std::process::id(), 13)
}

/// The sum of two neighbours among the fields of `/proc/PID/stat` behind the name.
fn cpu_fields(id: u32, first: usize) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("reading CPU time")?;
    // The name in parentheses may hold spaces; fields 14 to 17 (proc_pid_stat(5)) count from behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("CPU time");
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64((ticks(first)? + ticks(first + 1)?) as f64 / per_second as f64))
}

/// CPU time and number of time slices of the living threads of a process, by the scheduler's own count: the clock ticks
/// of `/proc/PID/stat` are too coarse for a process that does next to nothing.
///
/// # Errors
/// When there is no such process, or the kernel keeps no such count.
pub fn scheduled(id: u32) -> Result<(Duration, u64)> {
    let (mut time, mut slices) = (0, 0);
    for thread in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))
            .context("reading schedstat (CONFIG_SCHED_INFO)")?;
        let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [on_cpu, _waited, runs] = *numbers else { bail!("schedstat holds `{text}`") };
        time += on_cpu;
        slices += runs;
    }
    Ok((Duration::from_nanos(time), slices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_ends_with_its_value_and_its_output_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new("sh");
        let process = Process::start("sh", command.args(["-c", "echo hello; exec sleep 60"]), &log).unwrap();
        wait_until("output", Duration::from_secs(5), || {
            if process.log() == "hello\n" { Ok(()) } else { bail!("log is {:?}", process.log()) }
        })
        .unwrap();
        assert!(process.memory("VmRSS").unwrap() > 0);
        let id = process.id();
        drop(process);
        assert!(cpu_of(id).is_err(), "process {id} is still there");
    }

    #[test]
    fn a_wait_that_fails_says_for_what() {
        let error = wait_until::<()>("the impossible", Duration::ZERO, || bail!("no")).unwrap_err();
        assert!(format!("{error:#}").contains("the impossible"));
    }
}
