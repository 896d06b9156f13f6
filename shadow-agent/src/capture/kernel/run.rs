//! Runs a loaded program on given bytes, without a device: for tests and measurements of the kernel path.

use std::sync::PoisonError;
use std::time::Duration;

use aya::programs::{ProgramError, TestRun as _, TestRunOptions, TestRunResult};

use super::{KernelCapture, KernelError, error, object};
use crate::capture::Direction;
use crate::capture::interfaces::Layer;

/// Where the hook that a program is attached to leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// Toward the server.
    ToServer,
    /// Toward the client.
    ToClient,
    /// Both directions pass it.
    Either,
}

/// One of the kernel programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// At a TC hook.
    Tc {
        /// What packets begin with.
        layer: Layer,
        /// Where the hook leads.
        leads: Leads,
    },
    /// At the XDP hook of a device that carries Ethernet; incoming packets go this way.
    Xdp(Direction),
}

impl Entry {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Entry::Tc { layer: Layer::Ethernet, leads: Leads::ToServer } => "shadow_eth_srv",
            Entry::Tc { layer: Layer::Ethernet, leads: Leads::ToClient } => "shadow_eth_cli",
            Entry::Tc { layer: Layer::Ethernet, leads: Leads::Either } => "shadow_eth_any",
            Entry::Tc { layer: Layer::Ip, leads: Leads::ToServer } => "shadow_l3_srv",
            Entry::Tc { layer: Layer::Ip, leads: Leads::ToClient } => "shadow_l3_cli",
            Entry::Tc { layer: Layer::Ip, leads: Leads::Either } => "shadow_l3_any",
            Entry::Xdp(Direction::ToServer) => "shadow_xdp_srv",
            Entry::Xdp(Direction::ToClient) => "shadow_xdp_cli",
        }
    }

    /// What its program returns, so that production's packet goes on: `TCX_NEXT` or `XDP_PASS`.
    #[must_use]
    pub const fn verdict(self) -> i32 {
        match self {
            Entry::Tc { .. } => -1,
            Entry::Xdp(_) => 2,
        }
    }
}

/// A program that captures nothing, for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yardstick {
    /// Does nothing.
    Empty,
    /// Reads the clock.
    Clock,
    /// Reserves, copies and submits, and nothing else. Its records are not segments.
    Floor,
}

impl Yardstick {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Yardstick::Empty => "shadow_empty",
            Yardstick::Clock => "shadow_clock",
            Yardstick::Floor => "shadow_floor",
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What the program returned. Anything but [`Entry::verdict`] would interfere with production.
    pub verdict: i32,
    /// The time of one run, on average.
    pub duration: Duration,
}

impl KernelCapture {
    /// Runs a program on a packet (`BPF_PROG_TEST_RUN`), `repeat` times: between 14 and about 3600 bytes, or about 73,000 at
    /// XDP, where a packet has no mark.
    ///
    /// # Errors
    /// When the program does not load or the kernel does not take the packet.
    pub fn run_packet(
        &mut self,
        entry: Entry,
        packet: &[u8],
        mark: u32,
        repeat: u32,
    ) -> Result<Ran, KernelError> {
        match entry {
            Entry::Tc { .. } => self.run(entry.name(), packet, mark, repeat),
            Entry::Xdp(_) => self.run_xdp(entry.name(), packet, repeat),
        }
    }

    /// As [`KernelCapture::run_packet`], with a program that captures nothing.
    ///
    /// # Errors
    /// As [`KernelCapture::run_packet`].
    pub fn run_yardstick(
        &mut self,
        yardstick: Yardstick,
        packet: &[u8],
        repeat: u32,
    ) -> Result<Ran, KernelError> {
        self.run(yardstick.name(), packet, 0, repeat)
    }

    fn run(&mut self, name: &'static str, packet: &[u8], mark: u32, repeat: u32) -> Result<Ran, KernelError> {
        // `struct __sk_buff`: the mark is its third word; the kernel insists that most others are 0.
        let mut context = [0; 192];
        if let Some(field) = context.get_mut(8..12) {
            field.copy_from_slice(&mark.to_ne_bytes());
        }
        let program = object::program(self.ebpf.get_mut().unwrap_or_else(PoisonError::into_inner), name)?;
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        ran(name, program.test_run(options))
    }

    fn run_xdp(&mut self, name: &'static str, packet: &[u8], repeat: u32) -> Result<Ran, KernelError> {
        let ebpf = self.ebpf.get_mut().unwrap_or_else(PoisonError::into_inner);
        let program = object::xdp_program(ebpf, name)?;
        let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::default() };
        ran(name, program.test_run(options))
    }
}

fn ran(name: &str, result: Result<TestRunResult, ProgramError>) -> Result<Ran, KernelError> {
    let result = result.map_err(|source| error::classify(format!("running {name}"), source))?;
    Ok(Ran { verdict: result.return_value.cast_signed(), duration: result.duration })
}
