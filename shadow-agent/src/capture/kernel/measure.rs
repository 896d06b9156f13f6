//! Figures about attached programs under real traffic, for measurements of the kernel path.

use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, ProgramError};
use aya::sys::{Stats, enable_stats};

use super::run::{Entry, Yardstick};
use super::{KernelCapture, KernelError, error, object};

/// While it lives, the kernel adds up how often and how long every program of the host runs, which costs each of them
/// some time.
#[derive(Debug)]
pub struct Statistics(#[expect(dead_code, reason = "the kernel counts until it is closed")] OwnedFd);

impl Statistics {
    /// Makes the kernel count.
    ///
    /// # Errors
    /// When it refuses.
    pub fn enable() -> Result<Statistics, KernelError> {
        enable_stats(Stats::RunTime)
            .map(Statistics)
            .map_err(|source| error::classify("run-time statistics of programs", source))
    }
}

/// How often a program ran, and how long in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// How often.
    pub count: u64,
    /// How long, all runs together.
    pub time: Duration,
}

/// The floor of copying, attached to a device until this is dropped.
pub struct Floor(#[expect(dead_code, reason = "dropping it detaches")] SchedClassifierLink);

impl KernelCapture {
    /// Attaches the floor of copying to what a device of the calling thread's namespace receives, by TCX.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_floor(&self, device: &str) -> Result<Floor, KernelError> {
        let failed = |source: ProgramError| error::device(device, "attaching to", source);
        let mut ebpf = self.ebpf();
        let program = object::program(&mut ebpf, Yardstick::Floor.name())?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(device, TcAttachType::Ingress, options).map_err(failed)?;
        program.take_link(id).map(Floor).map_err(failed)
    }

    /// What [`Statistics`] say about a program.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn runs(&self, entry: Entry) -> Result<Runs, KernelError> {
        self.runs_of(entry.name())
    }

    /// What [`Statistics`] say about the floor.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn floor_runs(&self) -> Result<Runs, KernelError> {
        self.runs_of(Yardstick::Floor.name())
    }

    fn runs_of(&self, name: &'static str) -> Result<Runs, KernelError> {
        let mut ebpf = self.ebpf();
        let program = object::program(&mut ebpf, name)?;
        let info = program.info().map_err(|source| error::program(name, source))?;
        Ok(Runs { count: info.run_count(), time: info.run_time() })
    }
}
