//! Boots a kernel in QEMU and listens to its serial console. The machine it starts is ended before it returns.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::kernels::Kernel;
use super::transcript::Transcript;
use crate::sh;

/// Enough for the rings of the tests and the image twice; more would only be cleared.
const MEMORY: &str = "1536M";

/// A machine that is running. Ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots `kernel` with an initial file system, and reads until the last line, the end of the machine, or the timeout.
pub(super) fn run(kernel: &Kernel, image: &Path, kvm: bool, timeout: Duration) -> Result<Transcript> {
    let name = kernel.release.short();
    let mut command = command(&kernel.image(), image, kvm);
    let child =
        command.spawn().context("`qemu-system-x86_64` could not be started; run `cargo xtask setup`")?;
    let mut running = Running(child);
    let stdout = running.0.stdout.take().ok_or_else(|| anyhow!("the console of the machine is not there"))?;
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { return };
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + timeout;
    let mut transcript = Transcript::default();
    while !transcript.is_complete() {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                transcript.read(&line);
                if let Some((test, result)) = transcript.latest() {
                    sh::say(&format!("{name}: {test} {result}"));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                transcript.read(&format!("(nothing more within {} s)", timeout.as_secs()));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(transcript)
}

fn command(kernel: &Path, image: &Path, kvm: bool) -> Command {
    let mut command = sh::program("qemu-system-x86_64");
    command.args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    // Emulated CPUs take turns on one thread: side by side, they now and then execute an instruction that the kernel is
    // just patching, and crash. Two machines at once are no slower that way.
    // Without page tables of five levels, which only cost when every walk is emulated.
    let accelerator = if kvm { ["kvm", "host"] } else { ["tcg,thread=single", "max,la57=off"] };
    let [accelerator, cpu] = accelerator;
    command.args(["-accel", accelerator, "-cpu", cpu, "-smp", "2", "-m", MEMORY]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    // The address of a panic is worth more than its secrecy, and nothing here keeps secrets from the tests.
    // Mitigations stay on, as in production: without them the verifier asks less of programs.
    command.args(["-append", "console=ttyS0 loglevel=1 panic=-1 nokaslr random.trust_cpu=on"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}
