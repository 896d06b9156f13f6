//! Runs a loaded program on given bytes, without a device: for tests and measurements of the kernel path.

use std::sync::PoisonError;
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};

use super::{KernelCapture, KernelError, error, object};
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
pub struct Entry {
    /// What packets begin with.
    pub layer: Layer,
    /// Where its hook leads.
    pub leads: Leads,
}

impl Entry {
    pub(super) const fn name(self) -> &'static str {
        match (self.layer, self.leads) {
            (Layer::Ethernet, Leads::ToServer) => "shadow_eth_srv",
            (Layer::Ethernet, Leads::ToClient) => "shadow_eth_cli",
            (Layer::Ethernet, Leads::Either) => "shadow_eth_any",
            (Layer::Ip, Leads::ToServer) => "shadow_l3_srv",
            (Layer::Ip, Leads::ToClient) => "shadow_l3_cli",
            (Layer::Ip, Leads::Either) => "shadow_l3_any",
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What the program returned. Anything but -1 (`TCX_NEXT`) would interfere with production.
    pub verdict: i32,
    /// The time of one run, on average.
    pub duration: Duration,
}

impl KernelCapture {
    /// Runs a program on a packet (`BPF_PROG_TEST_RUN`), `repeat` times: between 14 and about 3600 bytes.
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
        // `struct __sk_buff`: the mark is its third word; the kernel insists that most others are 0.
        let mut context = [0; 192];
        if let Some(field) = context.get_mut(8..12) {
            field.copy_from_slice(&mark.to_ne_bytes());
        }
        let program =
            object::program(self.ebpf.get_mut().unwrap_or_else(PoisonError::into_inner), entry.name())?;
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        let result = program
            .test_run(options)
            .map_err(|source| error::classify(format!("running {}", entry.name()), source))?;
        Ok(Ran { verdict: result.return_value.cast_signed(), duration: result.duration })
    }
}
