//! The one thread that has to do with devices: attaches to those that are meant, follows them as they come and go, and
//! lets go of them at the end.
//!
//! It lives in the network namespace of `capture.netns`, because the kernel looks devices up in the namespace of the
//! thread that asks. Everything else in the agent stays in the agent's own. It sleeps until the kernel says that a
//! device or an address changed.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::net::if_::if_nametoindex;

use crate::admin::readiness::Condition;
use crate::capture::interfaces::netns::{Entered, NetNsError};
use crate::capture::interfaces::roster::Roster;
use crate::capture::interfaces::watch::{self, Heard, Stop, Stopped, Watcher};
use crate::capture::interfaces::{self, Device, InterfaceError, Selection, netlink};
use crate::capture::kernel::{KernelCapture, KernelError};
use crate::config::{Capture, NetNs};
use crate::privileges;

mod told;

use super::wreck::Witness;
use told::Told;

/// Between two looks at what devices there are, at least: what a storm of changes costs, and what a device that comes
/// within one is missed for.
const SPACING: Duration = Duration::from_millis(20);
/// How long after the kernel did not answer it is asked again.
const TROUBLE: Duration = Duration::from_secs(1);
/// How often it is checked what nothing announces: whether the network namespace is still there, which being in it keeps
/// from ending, and whether others have left our programs where they are.
const CHECK: Duration = Duration::from_secs(5);

/// The thread that follows devices; dropping it lets go of them.
pub(super) struct Following {
    stop: Option<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    /// Attaches to the devices that `capture` means, and follows them. `attached` is met while there is one.
    ///
    /// A device that vanishes meanwhile is no error.
    ///
    /// # Errors
    /// When the network namespace cannot be entered, devices cannot be listened for, or the kernel refuses to attach.
    pub(super) fn start(
        kernel: Arc<KernelCapture>,
        capture: Capture,
        attached: Condition,
        witness: Witness,
    ) -> anyhow::Result<Following> {
        let (stop, stopped) = watch::stop().context("the interfaces cannot be followed")?;
        let (tell, told) = mpsc::sync_channel(1);
        let work = move || {
            let _witness = witness;
            let mut follower = Follower::new(kernel, capture, attached);
            let netns = follower.capture.netns.clone();
            let started = follower.start().and_then(|()| {
                privileges::drop_after_entering(netns.as_ref()).context("interfaces cannot be followed")
            });
            let goes_on = started.is_ok();
            // Whoever waits for it is there until it is told.
            let _ = tell.send(started);
            if goes_on {
                follower.follow(&stopped);
            }
            follower.let_go();
        };
        let thread = thread::Builder::new()
            .name("interfaces".to_owned())
            .spawn(work)
            .context("the thread that follows interfaces could not be started")?;
        let following = Following { stop: Some(stop), thread: Some(thread) };
        told.recv().map_err(|_| anyhow!("the thread that follows interfaces panicked"))??;
        Ok(following)
    }

    /// Lets go of every device, and returns when that is done.
    pub(super) fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that follows interfaces panicked; programs end with this process");
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end();
    }
}

struct Follower {
    kernel: Arc<KernelCapture>,
    capture: Capture,
    attached: Condition,
    roster: Roster,
    watcher: Option<Watcher>,
    namespace: Option<Entered>,
    /// Attached devices that went away and were not looked for since.
    gone: Vec<u32>,
    told: Told,
    looked: Instant,
    /// When what nothing announces was last checked.
    checked: Instant,
    /// Whether the last look failed.
    blind: bool,
    /// Whether what is attached from now on is news.
    is_started: bool,
}

impl Follower {
    fn new(kernel: Arc<KernelCapture>, capture: Capture, attached: Condition) -> Follower {
        Follower {
            kernel,
            capture,
            attached,
            roster: Roster::new(),
            watcher: None,
            namespace: None,
            gone: Vec::new(),
            told: Told::default(),
            looked: Instant::now(),
            checked: Instant::now(),
            blind: false,
            is_started: false,
        }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let selection = self.enter()?;
        self.sweep();
        // What is worth a warning was said when the configuration was checked.
        let _ = self.told.news(&selection);
        let names = self.capture.interfaces.clone();
        let mut refused = None;
        self.update(&selection, |device, error| {
            if is_gone(device) {
                return Ok(());
            }
            if names.contains(&device.name) {
                return Err(anyhow!(error));
            }
            // One of many that a pattern matches, such as workloads that others look after.
            explain(device, &error);
            refused.get_or_insert(error);
            Ok(())
        })?;
        if let Some(error) = refused.filter(|_| !self.is_capturing()) {
            return Err(error.into());
        }
        self.is_started = true;
        Ok(())
    }

    /// Removes what agents that were killed left on any device here, whether or not it is captured from.
    fn sweep(&self) {
        for link in netlink::links().unwrap_or_default() {
            if let Err(error) = self.kernel.sweep(&link.name) {
                tracing::debug!(
                    interface = link.name,
                    error = reason(&error),
                    "not known to be free of leftovers"
                );
            }
        }
    }

    /// Goes where the devices are, subscribes, and only then looks, so that nothing is missed in between.
    fn enter(&mut self) -> Result<Selection, InterfaceError> {
        if let Some(netns) = &self.capture.netns {
            self.namespace = Some(Entered::enter(netns)?);
        }
        self.watcher = Some(Watcher::new()?);
        Ok(interfaces::select(&self.capture, &netlink::links()?))
    }

    /// Follows devices until the agent stops, or their namespace is gone for good.
    fn follow(&mut self, stopped: &Stopped) {
        loop {
            let Some(watcher) = &self.watcher else {
                match stopped.within(CHECK) {
                    Ok(false) => self.enter_again(),
                    _ => return,
                }
                continue;
            };
            match watcher.wait(stopped, self.timeout()) {
                Ok(Heard::Stop) => return,
                Ok(Heard::Changed(gone)) => {
                    let attached = self.roster.attached();
                    self.gone.extend(
                        gone.into_iter().filter(|gone| attached.iter().any(|device| device.index == *gone)),
                    );
                    match stopped.within(SPACING.saturating_sub(self.looked.elapsed())) {
                        Ok(false) => self.look(),
                        _ => return,
                    }
                }
                Ok(Heard::Nothing) => {
                    let is_due = self.roster.next().is_some_and(|next| next <= Instant::now());
                    if is_due || (self.blind && self.looked.elapsed() >= TROUBLE) {
                        self.look();
                    }
                }
                Err(error) => {
                    self.complain(&error);
                    match stopped.within(TROUBLE) {
                        Ok(false) => self.watcher = Watcher::new().ok().or(self.watcher.take()),
                        _ => return,
                    }
                }
            }
            // However much is announced meanwhile, and not more often.
            if self.checked.elapsed() >= CHECK && !self.check() {
                return;
            }
        }
    }

    /// Checks what nothing announces. Says whether to go on.
    fn check(&mut self) -> bool {
        self.checked = Instant::now();
        if self.namespace.as_ref().is_some_and(Entered::is_gone) {
            return self.leave();
        }
        if self.is_stripped() {
            self.look();
        }
        true
    }

    /// How long nothing has to be done unless something changes.
    fn timeout(&self) -> Option<Duration> {
        let retry = self.roster.next().map(|next| next.saturating_duration_since(Instant::now()));
        let check = self.namespace.is_some() || self.is_capturing();
        let check = check.then(|| CHECK.saturating_sub(self.checked.elapsed()));
        let trouble = self.blind.then(|| TROUBLE.saturating_sub(self.looked.elapsed()));
        [retry, check, trouble].into_iter().flatten().min()
    }

    /// Whether somebody removed our programs from a device, to which the next look attaches again.
    fn is_stripped(&mut self) -> bool {
        let stripped = match self.kernel.stripped() {
            Ok(stripped) => stripped,
            Err(error) => {
                tracing::debug!(error = reason(&error), "not known whether programs are still attached");
                return false;
            }
        };
        // That a device went is announced.
        for device in stripped.iter().filter(|device| !is_gone(device)) {
            tracing::warn!(
                interface = device.name,
                "somebody removed the agent's programs from an interface, which was not captured from since; attaching again"
            );
            self.gone.push(device.index);
        }
        !self.gone.is_empty()
    }

    fn look(&mut self) {
        self.looked = Instant::now();
        match netlink::links() {
            Ok(links) => {
                self.blind = false;
                let selection = interfaces::select(&self.capture, &links);
                self.warn(&selection);
                let captured = self.is_capturing();
                // Nothing that happens to a later device ends the agent.
                let _ = self.update(&selection, |_, _| Ok(()));
                if captured && !self.is_capturing() {
                    tracing::warn!(
                        "nothing is captured: no interface that capture.interfaces names is there"
                    );
                }
            }
            Err(error) => self.complain(&error),
        }
    }

    fn warn(&mut self, selection: &Selection) {
        for sentence in self.told.news(selection) {
            tracing::warn!("{sentence}");
        }
    }

    /// Once, not each time.
    fn complain(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.blind, true) {
            tracing::warn!(%error, "the kernel does not list its interfaces; those that come are not captured from");
        }
    }

    /// Lets go of what is not meant any more, and attaches to what is. `fatal` makes an error of a first failure.
    fn update(
        &mut self,
        selection: &Selection,
        mut fatal: impl FnMut(&Device, KernelError) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let gone = std::mem::take(&mut self.gone);
        let lost = self.roster.keep(&selection.devices, &gone);
        if !lost.is_empty()
            && let Err(error) = self.kernel.retain(self.roster.attached())
        {
            tracing::warn!(error = reason(&error), "programs may stay attached");
        }
        for device in &lost {
            if !selection.devices.iter().any(|other| other.name == device.name) {
                tracing::info!(
                    interface = device.name,
                    "an interface is gone; it is captured from when it comes back"
                );
            }
        }
        let mut result = Ok(());
        for device in self.roster.due(&selection.devices, Instant::now()) {
            match self.kernel.attach(&device) {
                Ok(()) => {
                    if self.is_started {
                        tracing::info!(interface = device.name, "capturing from one more interface");
                    }
                    self.roster.succeeded(device);
                }
                Err(error) => {
                    let first = self.roster.failed(device.clone(), Instant::now());
                    if first && (self.is_started || is_gone(&device)) {
                        explain(&device, &error);
                    }
                    result = result.and(fatal(&device, error));
                }
            }
        }
        self.attached.set(self.is_capturing());
        result
    }

    fn is_capturing(&self) -> bool {
        !self.roster.attached().is_empty()
    }

    /// Leaves a network namespace that has ended but for this thread in it. Says whether to go on.
    fn leave(&mut self) -> bool {
        let Some(netns) = &self.capture.netns else { return true };
        self.attached.set(false);
        let again = match netns {
            NetNs::Name(_) => {
                tracing::warn!(%netns, "the network namespace is gone; its interfaces are captured from when it is back");
                true
            }
            // Another process may get the number.
            NetNs::Pid(_) => {
                tracing::warn!(%netns, "the process is gone, and its network namespace with it; nothing is captured any more");
                false
            }
        };
        self.let_go();
        self.blind = false;
        self.told = Told::default();
        // A socket keeps its namespace, too.
        self.watcher = None;
        if !again {
            // This thread ends, and by that leaves it; to leave it otherwise takes a privilege that was dropped.
            return false;
        }
        if let Some(Err(error)) = self.namespace.take().map(Entered::leave) {
            tracing::warn!(%error, "the agent may not leave the namespace; start it again to capture");
            return false;
        }
        true
    }

    /// Tries to enter a network namespace that was gone.
    fn enter_again(&mut self) {
        match self.enter() {
            Ok(selection) => {
                self.blind = false;
                self.warn(&selection);
                let _ = self.update(&selection, |_, _| Ok(()));
            }
            Err(InterfaceError::NetNs(NetNsError::NoSuchName { .. })) => {}
            Err(error) => {
                // Between two of the steps; none of them may stay half done.
                self.watcher = None;
                let _ = self.namespace.take().map(Entered::leave);
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!("{error}");
                }
            }
        }
    }

    fn let_go(&mut self) {
        self.roster = Roster::new();
        self.gone.clear();
        if let Err(error) = self.kernel.detach() {
            tracing::error!(
                error = reason(&error),
                "the kernel programs could not be detached; they end with this process"
            );
        }
    }
}

fn explain(device: &Device, error: &KernelError) {
    let interface = &device.name;
    if is_gone(device) {
        tracing::info!(interface, "an interface went away while it was being attached to");
    } else {
        tracing::warn!(
            interface,
            error = reason(error),
            "an interface is not captured from; it is tried again"
        );
    }
}

/// Whether the device went, or another one has its name now.
fn is_gone(device: &Device) -> bool {
    if_nametoindex(device.name.as_str()) != Ok(device.index)
}

/// An error with all that lies beneath it.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
