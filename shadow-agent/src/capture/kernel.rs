//! Live capture: loads the kernel programs, attaches them, and hands out one source of segments per ring.
//!
//! This module and those below it are the only users of aya and the only home of `unsafe`. It interprets no payload and
//! holds no policy: which devices, and which way they lead, is decided by the caller.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{LpmTrie, MapData, PerCpuArray, lpm_trie};
use shadow_ebpf::abi::{self, Outcome};

use crate::capture::Counters;
use crate::capture::interfaces::Device;
use crate::config;

mod attach;
mod control;
mod error;
mod log;
mod measure;
mod object;
mod own;
pub mod probe;
mod qdisc;
mod rehearsal;
mod run;
mod source;
mod tables;

pub use attach::{Attached, Attachment};
pub use error::{KernelError, Occupant, XdpObstacle, XdpProgram};
pub use measure::{Floor, Runs, Statistics};
pub use own::{OwnSocket, OwnSockets};
pub use rehearsal::{Rehearsal, rehearse};
pub use run::{Entry, Leads, Ran, Yardstick};
pub use source::RingSource;

use attach::Attachments;
use control::Control;

/// The size of one record of every outcome, followed by the bytes: `abi::Counts` as words.
type Counts = [u64; Outcome::ALL.len() + 1];

/// The loaded kernel programs, and where they are attached. Dropping it detaches them.
pub struct KernelCapture {
    ebpf: Mutex<Ebpf>,
    control: Arc<Control>,
    own: OwnSockets,
    attachments: Mutex<Attachments>,
    /// What is in `attachments`, for those who must not wait while a device is attached to.
    attached: Mutex<Vec<Attached>>,
    counts: PerCpuArray<MapData, Counts>,
    log: Option<Mutex<log::Log>>,
}

impl KernelCapture {
    /// Loads all programs with `config` and attaches them to `devices`, through TCX where the kernel has it and as
    /// `clsact` filters elsewhere. Nothing that comes later needs CAP_PERFMON.
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
        let (capture, sources) = KernelCapture::open(config, enabled, Attachment::Tcx)?;
        capture.load_programs(config)?;
        capture.attach_all(devices)?;
        Ok((capture, sources))
    }

    /// As [`KernelCapture::start`], beginning with the given kind of attachment: with [`Attachment::Clsact`], TCX is
    /// not tried. A program is loaded when it is first needed, which saves those who run one or two of them the rest.
    ///
    /// # Errors
    /// As [`KernelCapture::start`].
    pub fn start_with(
        config: &config::Capture,
        devices: &[Device],
        enabled: bool,
        preferred: Attachment,
    ) -> Result<(KernelCapture, Vec<RingSource>), KernelError> {
        let (capture, sources) = KernelCapture::open(config, enabled, preferred)?;
        capture.attach_all(devices)?;
        Ok((capture, sources))
    }

    /// Makes the maps and fills them. No program is loaded.
    fn open(
        config: &config::Capture,
        enabled: bool,
        preferred: Attachment,
    ) -> Result<(KernelCapture, Vec<RingSource>), KernelError> {
        let plan = tables::rings(config.ring_size, config.shards)?;
        let networks = tables::networks(&config.server, &config.client)?;
        let mut ebpf = object::load(config, &networks, plan)?;
        let log = if config.kernel_log { Some(Mutex::new(log::Log::take(&mut ebpf)?)) } else { None };
        fill(&mut ebpf, &networks)?;
        let control = Arc::new(Control::map(object::map(&ebpf, "CONTROL")?)?);
        control.set_ports(&config.ports);
        control.set_sample(config.sample);
        control.set_enabled(enabled);
        let sources = source::create(&mut ebpf, plan, &control)?;
        let own = OwnSockets::take(&mut ebpf, &control)?;
        let counts = ebpf.take_map("COUNTS").ok_or(KernelError::Object { name: "COUNTS" })?;
        let counts = counts.try_into().map_err(|source| error::map("COUNTS", source))?;
        let attachments = Mutex::new(Attachments::new(config.mode, preferred));
        let (ebpf, attached) = (Mutex::new(ebpf), Mutex::default());
        Ok((KernelCapture { ebpf, control, own, attachments, attached, counts, log }, sources))
    }

    /// Loads every program, and says how many there are.
    fn load_programs(&self, config: &config::Capture) -> Result<usize, KernelError> {
        object::load_programs(&mut self.ebpf(), config.mode)
    }

    fn attach_all(&self, devices: &[Device]) -> Result<(), KernelError> {
        for device in devices {
            self.attach(device)?;
        }
        // Last, because verifying the programs takes a while.
        self.beat();
        Ok(())
    }

    /// Removes the filters that killed agents left on a device of this thread's network namespace.
    ///
    /// # Errors
    /// When the device is gone or the kernel refuses.
    pub fn sweep(&self, device: &str) -> Result<(), KernelError> {
        attach::clsact::sweep(device)
    }

    /// Attaches to one more device.
    ///
    /// # Errors
    /// When the device is gone or the kernel refuses.
    pub fn attach(&self, device: &Device) -> Result<(), KernelError> {
        self.change(|attachments| attachments.attach(&mut self.ebpf(), device))
    }

    /// Lets go of every device that is not among `devices` as it is now.
    ///
    /// # Errors
    /// When the kernel refuses; the remaining devices are let go nevertheless.
    pub fn retain(&self, devices: &[Device]) -> Result<(), KernelError> {
        self.change(|attachments| attachments.retain(devices))
    }

    /// The attached devices from which somebody else removed our programs, or one of them. They are to be let go of, and
    /// attached to again.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn stripped(&self) -> Result<Vec<Device>, KernelError> {
        self.attachments().stripped()
    }

    /// Says that the agent is well. Due at least every two seconds, and only while every shard makes progress.
    pub fn beat(&self) {
        self.control.beat();
        if let Some(log) = &self.log {
            log.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }

    /// Where the agent's own sockets are to be registered.
    #[must_use]
    pub fn own_sockets(&self) -> OwnSockets {
        self.own.clone()
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
        let mut total = Counters { packets: vec![0; Outcome::ALL.len()], bytes: 0 };
        let cpus = self.counts.get(&0, 0).map_err(|source| error::map("COUNTS", source))?;
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
        self.change(Attachments::detach)
    }

    /// The devices that programs are attached to, and how.
    #[must_use]
    pub fn attached(&self) -> Vec<Attached> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change<T>(&self, work: impl FnOnce(&mut Attachments) -> T) -> T {
        let mut attachments = self.attachments();
        let result = work(&mut attachments);
        *self.attached.lock().unwrap_or_else(PoisonError::into_inner) = attachments.list();
        result
    }

    fn ebpf(&self) -> MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attachments(&self) -> MutexGuard<'_, Attachments> {
        self.attachments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill(ebpf: &mut Ebpf, networks: &[tables::Network]) -> Result<(), KernelError> {
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
