//! Attaches to matching devices that come later, such as those of new pods, and lets go of those that are gone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::capture::interfaces::{self, Device, InterfaceError, netlink};
use crate::capture::kernel::KernelCapture;
use crate::config::Capture;

/// How often the kernel is asked which devices there are: what a new one is missed for, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the wish to stop waits at most.
const NAP: Duration = Duration::from_millis(100);

/// The thread that follows devices.
pub(super) struct Following {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Following {
    /// Follows the devices that `capture` means; `known` are attached already.
    pub(super) fn start(
        kernel: Arc<KernelCapture>,
        capture: Capture,
        known: Vec<Device>,
    ) -> io::Result<Following> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let work = move || follow(&kernel, &capture, known, &stopping);
        let thread = thread::Builder::new().name("interfaces".to_owned()).spawn(work)?;
        Ok(Following { stop, thread })
    }

    /// Ends it; nothing is attached to any more when this returns.
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            tracing::error!("the thread that follows interfaces panicked; those that came later are missing");
        }
    }
}

fn follow(kernel: &KernelCapture, capture: &Capture, mut known: Vec<Device>, stop: &AtomicBool) {
    let mut asked = Instant::now();
    let mut complained = false;
    while !stop.load(Ordering::Acquire) {
        thread::sleep(NAP);
        if asked.elapsed() < INTERVAL {
            continue;
        }
        asked = Instant::now();
        match find(capture) {
            Ok(found) => {
                complained = false;
                change(kernel, &known, &found);
                known = found;
            }
            // Once, not every second.
            Err(error) if !complained => {
                complained = true;
                tracing::warn!("{error}; nothing new is captured from until it is there");
            }
            Err(_) => {}
        }
    }
}

fn find(capture: &Capture) -> Result<Vec<Device>, InterfaceError> {
    Ok(interfaces::select(capture, &netlink::links()?)?.devices)
}

fn change(kernel: &KernelCapture, known: &[Device], found: &[Device]) {
    if known.iter().any(|device| !found.contains(device))
        && let Err(error) = kernel.retain(found)
    {
        tracing::warn!(%error, "programs may stay attached");
    }
    for device in found.iter().filter(|device| !known.contains(device)) {
        match kernel.attach(device) {
            Ok(()) => tracing::info!(interface = device.name, "capturing from one more interface"),
            Err(error) => tracing::warn!(%error, "an interface that came is not captured from"),
        }
    }
}
