//! Entry points and maps, and the order of work in a program: switch, filter, heartbeat, budget, copy.
//!
//! Every path of every program returns [`NEXT`] or [`PASS`]: production's packet goes on as if nobody had looked. What is
//! wanted is decided in `shadow_ebpf::filter`; nothing is decided here.

use core::panic::PanicInfo;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_ebpf::{EbpfContext, Global};
use aya_log_ebpf::debug;
use shadow_ebpf::abi::{self, Control, Counts, Endpoint, MAX_NETWORKS, MAX_OWN, MAX_SHARDS, Outcome, Ports};
use shadow_ebpf::filter::{self, Hook, Rules, Seen, Side, Tables};
use shadow_ebpf::packet::{Address, Layer, Reader};

mod access;
mod budget;
mod clock;
mod copy;
mod skb;
mod xdp;
mod yardstick;

use budget::Payment;
use clock::Clock;

/// Lets the next program on the hook decide, and the packet pass when there is none (`TCX_NEXT`).
const NEXT: i32 = TC_ACT_UNSPEC;
/// Lets the packet go up the stack.
const PASS: u32 = xdp_action::XDP_PASS;

/// Constants set by the agent before loading; the verifier removes what they exclude.
#[unsafe(no_mangle)]
static SIDE: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
static MARK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SEED: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static LISTS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SHARDS: Global<u32> = Global::new(1);
/// Unread bytes in one ring at which its consumer is woken whether it asked or not.
#[unsafe(no_mangle)]
static BACKLOG: Global<u32> = Global::new(u32::MAX);

#[btf_map]
static CONTROL: Array<Control, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static NETWORKS: LpmTrie<[u8; 16], u32, { MAX_NETWORKS as usize }> = LpmTrie::new();
#[btf_map]
static COUNTS: PerCpuArray<Counts, 1> = PerCpuArray::new();
/// The local ends of the agent's own sockets.
#[btf_map]
static OWN: HashMap<Endpoint, u32, { MAX_OWN as usize }> = HashMap::new();
/// The size of the inner map is that of the template only; the agent creates the rings.
#[btf_map]
static RINGS: ArrayOfMaps<RingBuf<u8, 65_536>, MAX_SHARDS> = ArrayOfMaps::new();

macro_rules! entry {
    ($name:ident, $layer:ident, $hook:ident) => {
        #[classifier]
        fn $name(context: TcContext) -> i32 {
            run(&context, &skb::Packet::new(&context), Layer::$layer, Hook::$hook);
            NEXT
        }
    };
}

entry!(shadow_eth_srv, Ethernet, TowardServer);
entry!(shadow_eth_cli, Ethernet, TowardClient);
entry!(shadow_eth_any, Ethernet, Either);
entry!(shadow_l3_srv, Ip, TowardServer);
entry!(shadow_l3_cli, Ip, TowardClient);
entry!(shadow_l3_any, Ip, Either);

macro_rules! xdp_entry {
    ($name:ident, $hook:ident) => {
        #[xdp(frags)]
        fn $name(context: XdpContext) -> u32 {
            run(&context, &xdp::Packet::new(&context), Layer::Ethernet, Hook::$hook);
            PASS
        }
    };
}

// Incoming packets only, and only of devices that carry Ethernet: what comes first on others is up to the driver.
xdp_entry!(shadow_xdp_srv, TowardServer);
xdp_entry!(shadow_xdp_cli, TowardClient);

/// A packet where a program meets it.
trait Frame: Reader {
    /// `SO_MARK` of the socket that sent it, or what a firewall made of it; 0 where there is none yet.
    fn mark(&self) -> u32;

    /// The index of the device.
    fn ifindex(&self) -> u32;

    /// Copies `length` bytes at `offset` to `target`, or nothing.
    ///
    /// # Safety
    /// `target` must have room for `length` bytes, in a way that the verifier can see, and `length` must not be 0.
    unsafe fn load(&self, offset: u32, target: *mut u8, length: u32) -> bool;
}

/// Looks at one packet, and counts what was decided.
#[inline(always)]
fn run(context: &impl EbpfContext, packet: &impl Frame, layer: Layer, hook: Hook) {
    let (Some(control), Some(counts)) = (CONTROL.get_ptr_mut(0), COUNTS.get_ptr_mut(0)) else { return };
    let outcome = match work(packet, control, layer, hook) {
        Ok(bytes) => {
            // SAFETY: the slot is this CPU's own, and no other program runs on it before this one ends.
            unsafe { (*counts).bytes += bytes };
            Outcome::Copied
        }
        Err(outcome) => outcome,
    };
    // SAFETY: as above; `packets` has a place for every outcome, by its type.
    unsafe {
        let slot = (&raw mut (*counts).packets).cast::<u64>().add(outcome as usize);
        *slot += 1;
    }
    debug!(context, "outcome {}", outcome as u32);
}

#[inline(always)]
fn work(packet: &impl Frame, control: *mut Control, layer: Layer, hook: Hook) -> Result<u64, Outcome> {
    // SAFETY: `control` points into an array map, which lives as long as the program; the agent writes it
    // concurrently, field by field, so every field is read volatile, here and below.
    let enabled = unsafe { (&raw const (*control).enabled).read_volatile() };
    if enabled != abi::ENABLED {
        return Err(Outcome::Killed);
    }
    let seen = Seen { layer, hook, side: Side::from_code(SIDE.load()) };
    let wanted = filter::decide(packet, &seen, &Maps { packet, control })?;
    // SAFETY: as above.
    let clock = unsafe { Clock::new(control) }?;
    let length = copy::length(packet, &wanted);
    let now = match budget::spend(&wanted, length, &clock)? {
        Payment::Free => None,
        Payment::Paid(now) => Some(now),
        Payment::FlowShed(now) => {
            copy::leave_out(packet, &wanted, &clock, now);
            return Err(Outcome::Shed);
        }
    };
    copy::copy(packet, &wanted, length, &clock, now)
}

/// The tables of the filter, in maps.
struct Maps<'a, F> {
    packet: &'a F,
    control: *const Control,
}

impl<F: Frame> Tables for Maps<'_, F> {
    #[inline(always)]
    fn port(&self, port: u16) -> bool {
        // SAFETY: the control page lives as long as the program.
        unsafe { holds(&raw const (*self.control).ports, port) }
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        self.packet.mark()
    }

    #[inline(always)]
    fn rules(&self) -> Rules {
        // SAFETY: as in `work`.
        let sample = unsafe { (&raw const (*self.control).sample).read_volatile() };
        Rules { mark: MARK.load(), seed: SEED.load(), lists: LISTS.load(), sample }
    }

    #[inline(always)]
    fn own(&self, address: Address, port: u16) -> bool {
        // SAFETY: as above.
        let possible = unsafe { holds(&raw const (*self.control).own_ports, port) };
        let Address { high, low } = address;
        possible && OWN.get_ptr(Endpoint { high, low, port: port.into() }).is_some()
    }

    #[inline(always)]
    fn networks(&self, address: Address) -> u32 {
        NETWORKS.get(&Key::new(128, address.octets())).copied().unwrap_or(0)
    }
}

/// Whether a port is in a bitmap.
///
/// # Safety
/// `ports` must be valid; it may be written concurrently, word by word.
#[inline(always)]
unsafe fn holds(ports: *const Ports, port: u16) -> bool {
    let (word, bit) = Ports::place(port);
    // SAFETY: a port has 16 bits, so the word is below 1024.
    unsafe { ports.cast::<u64>().add(word).read_volatile() & bit != 0 }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
