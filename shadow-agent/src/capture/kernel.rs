//! Live capture: loads the kernel programs, attaches them, and hands out one source of segments per ring.
//!
//! This module and those below it are the only users of aya and the only home of `unsafe`. It interprets no payload and
//! holds no policy: which devices, and which way they lead, is decided by the caller.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, LpmTrie, MapData, PerCpuArray, lpm_trie};
use shadow_ebpf::abi::{self, Outcome};

use crate::capture::Counters;
use crate::capture::interfaces::Device;
use crate::config;

mod attach;
mod control;
mod error;
mod log;
mod object;
pub mod probe;
mod qdisc;
mod run;
mod source;
mod tables;

pub use attach::{Attached, Attachment};
pub use error::KernelError;
pub use run::{Entry, Leads, Ran};
pub use source::RingSource;

use attach::Attachments;
use control::Control;

/// The size of one record of every outcome, followed by the bytes: `abi::Counts` as words.
type Counts = [u64; Outcome::ALL.len() + 1];

/// The loaded kernel programs, and where they are attached. Dropping it detaches them.
pub struct KernelCapture {
    ebpf: Mutex<Ebpf>,
    control: Arc<Control>,
    attachments: Mutex<Attachments>,
    log: Option<Mutex<log::Log>>,
}

impl KernelCapture {
    /// Loads the programs with `config` and attaches them to `devices`, through TCX where the kernel has it and as
    /// `clsact` filters elsewhere.
    ///
    /// Whether packets are copied from the start is up to `enabled`. There is one source for every ring. A first
    /// heartbeat is written; the next is due within two seconds, or the programs stop copying.
    ///
    /// # Errors
    /// When the kernel refuses, or the configuration asks for more than there can be.
    pub fn start(
        config: &config::Capture,
        devices: &[Device],
        enabled: bool,
    ) -> Result<(KernelCapture, Vec<RingSource>), KernelError> {
        KernelCapture::start_with(config, devices, enabled, Attachment::Tcx)
    }

    /// As [`KernelCapture::start`], beginning with the given kind of attachment: with [`Attachment::Clsact`], TCX is
    /// not tried.
    ///
    /// # Errors
    /// As [`KernelCapture::start`].
    pub fn start_with(
        config: &config::Capture,
        devices: &[Device],
        enabled: bool,
        preferred: Attachment,
    ) -> Result<(KernelCapture, Vec<RingSource>), KernelError> {
        let plan = tables::rings(config.ring_size, config.shards)?;
        let networks = tables::networks(&config.server, &config.client)?;
        let mut ebpf = object::load(config, &networks, plan)?;
        let log = if config.kernel_log { Some(Mutex::new(log::Log::take(&mut ebpf)?)) } else { None };
        fill(&mut ebpf, config, &networks)?;
        let control = Arc::new(Control::map(object::map(&ebpf, "CONTROL")?)?);
        control.set_enabled(enabled);
        control.set_sample(config.sample);
        let sources = source::create(&mut ebpf, plan, &control)?;
        let attachments = Mutex::new(Attachments::new(preferred));
        let capture = KernelCapture { ebpf: Mutex::new(ebpf), control, attachments, log };
        for device in devices {
            capture.attach(device)?;
        }
        // Last, because verifying the programs takes a while.
        capture.beat();
        Ok((capture, sources))
    }

    /// Attaches to one more device.
    ///
    /// # Errors
    /// When the device is gone or the kernel refuses.
    pub fn attach(&self, device: &Device) -> Result<(), KernelError> {
        self.attachments().attach(&mut self.ebpf(), device)
    }

    /// Lets go of every device that is not among `devices` as it is now.
    ///
    /// # Errors
    /// When the kernel refuses; the remaining devices are let go nevertheless.
    pub fn retain(&self, devices: &[Device]) -> Result<(), KernelError> {
        self.attachments().retain(devices)
    }

    /// Says that the agent is well. Due at least every two seconds, and only while every shard makes progress.
    pub fn beat(&self) {
        self.control.beat();
        if let Some(log) = &self.log {
            log.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }

    /// Throws the kill switch either way. Takes effect with the next packet.
    pub fn set_enabled(&self, enabled: bool) {
        self.control.set_enabled(enabled);
    }

    /// Sets the share of flows that is captured. Flows in a smaller sample are in every larger one.
    pub fn set_sample(&self, share: config::Share) {
        self.control.set_sample(share);
    }

    /// What the kernel decided so far, all CPUs together.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let ebpf = self.ebpf();
        let counts: PerCpuArray<&MapData, Counts> =
            object::map(&ebpf, "COUNTS")?.try_into().map_err(|source| error::map("COUNTS", source))?;
        let mut total = Counters { packets: vec![0; Outcome::ALL.len()], bytes: 0 };
        let cpus = counts.get(&0, 0).map_err(|source| error::map("COUNTS", source))?;
        for [packets @ .., bytes] in cpus.iter() {
            for (sum, count) in total.packets.iter_mut().zip(packets) {
                *sum += count;
            }
            total.bytes += bytes;
        }
        Ok(total)
    }

    /// Takes the programs off every device. Records already in the rings stay readable.
    ///
    /// # Errors
    /// When the kernel refuses; the remaining devices are detached nevertheless.
    pub fn detach(&self) -> Result<(), KernelError> {
        self.attachments().detach()
    }

    /// The devices that programs are attached to, and how.
    #[must_use]
    pub fn attached(&self) -> Vec<Attached> {
        self.attachments().list()
    }

    fn ebpf(&self) -> MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attachments(&self) -> MutexGuard<'_, Attachments> {
        self.attachments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill(ebpf: &mut Ebpf, config: &config::Capture, networks: &[tables::Network]) -> Result<(), KernelError> {
    let mut ports: Array<&mut MapData, [u64; 1024]> =
        object::map_mut(ebpf, "PORTS")?.try_into().map_err(|source| error::map("PORTS", source))?;
    ports.set(0, tables::ports(&config.ports), 0).map_err(|source| error::map("PORTS", source))?;
    let mut trie: LpmTrie<&mut MapData, [u8; 16], u32> =
        object::map_mut(ebpf, "NETWORKS")?.try_into().map_err(|source| error::map("NETWORKS", source))?;
    for network in networks {
        let key = lpm_trie::Key::new(network.prefix.into(), network.octets);
        trie.insert(&key, network.lists, 0).map_err(|source| error::map("NETWORKS", source))?;
    }
    Ok(())
}

const _: () = assert!(size_of::<Counts>() == size_of::<abi::Counts>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::PacketResult;

    #[test]
    fn the_kernel_counts_what_the_contract_names_in_the_same_order() {
        let kernel: Vec<_> = Outcome::ALL.iter().map(|(_, name)| *name).collect();
        let contract: Vec<_> = PacketResult::ALL.iter().map(|result| result.as_str()).collect();
        assert_eq!(kernel, contract);
    }

    #[test]
    fn a_capture_can_be_shared_and_a_source_can_move_to_its_thread() {
        fn shared<T: Send + Sync>() {}
        fn moved<T: Send>() {}
        shared::<KernelCapture>();
        moved::<RingSource>();
    }
}
