//! Entry points and maps, and the order of work in a program: switch, filter, heartbeat, copy.
//!
//! Every path of every program returns [`NEXT`]: production's packet goes on as if nobody had looked. What is wanted is
//! decided in `shadow_ebpf::filter`; nothing is decided here.

use core::panic::PanicInfo;

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use shadow_ebpf::abi::{self, Control, Counts, MAX_NETWORKS, MAX_SHARDS, Outcome, Ports};
use shadow_ebpf::filter::{self, Hook, Rules, Seen, Side, Tables};
use shadow_ebpf::packet::{Address, Layer};

mod copy;
mod skb;

/// Lets the next program on the hook decide, and the packet pass when there is none (`TCX_NEXT`).
const NEXT: i32 = TC_ACT_UNSPEC;

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
static PORTS: Array<Ports, 1> = Array::new();
#[btf_map]
static NETWORKS: LpmTrie<[u8; 16], u32, { MAX_NETWORKS as usize }> = LpmTrie::new();
#[btf_map]
static COUNTS: PerCpuArray<Counts, 1> = PerCpuArray::new();
/// The size of the inner map is that of the template only; the agent creates the rings.
#[btf_map]
static RINGS: ArrayOfMaps<RingBuf<u8, 65_536>, MAX_SHARDS> = ArrayOfMaps::new();

macro_rules! entry {
    ($name:ident, $layer:ident, $hook:ident) => {
        #[classifier]
        fn $name(context: TcContext) -> i32 {
            run(&context, Layer::$layer, Hook::$hook)
        }
    };
}

entry!(shadow_eth_srv, Ethernet, TowardServer);
entry!(shadow_eth_cli, Ethernet, TowardClient);
entry!(shadow_eth_any, Ethernet, Either);
entry!(shadow_l3_srv, Ip, TowardServer);
entry!(shadow_l3_cli, Ip, TowardClient);
entry!(shadow_l3_any, Ip, Either);

#[inline(always)]
fn run(context: &TcContext, layer: Layer, hook: Hook) -> i32 {
    let (Some(control), Some(counts)) = (CONTROL.get_ptr(0), COUNTS.get_ptr_mut(0)) else { return NEXT };
    let outcome = match work(context, control, layer, hook) {
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
    NEXT
}

#[inline(always)]
fn work(context: &TcContext, control: *const Control, layer: Layer, hook: Hook) -> Result<u64, Outcome> {
    // SAFETY: `control` points into an array map, which lives as long as the program; the agent writes it
    // concurrently, field by field, so every field is read once and volatile.
    let (enabled, sample) = unsafe {
        ((&raw const (*control).enabled).read_volatile(), (&raw const (*control).sample).read_volatile())
    };
    if enabled != abi::ENABLED {
        return Err(Outcome::Killed);
    }
    let packet = skb::Packet::new(context);
    let seen = Seen { layer, hook, length: packet.length(), mark: packet.mark() };
    let rules = Rules {
        side: Side::from_code(SIDE.load()),
        mark: MARK.load(),
        seed: SEED.load(),
        lists: LISTS.load(),
        sample,
    };
    let wanted = filter::decide(&packet, &seen, &rules, &Maps)?;
    // SAFETY: a helper without arguments; the read is as above.
    let (now, heartbeat) = unsafe { (bpf_ktime_get_ns(), (&raw const (*control).heartbeat).read_volatile()) };
    if now.saturating_sub(heartbeat) > abi::HEARTBEAT_STALE {
        return Err(Outcome::Killed);
    }
    copy::copy(&packet, &wanted, now)
}

/// The tables of the filter, in maps.
struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn port(&self, port: u16) -> bool {
        let Some(ports) = PORTS.get_ptr(0) else { return false };
        // SAFETY: a port has 16 bits, so the word is below 1024.
        let word = unsafe { *ports.cast::<u64>().add(usize::from(port >> 6)) };
        (word >> (port & 63)) & 1 == 1
    }

    #[inline(always)]
    fn networks(&self, address: Address) -> u32 {
        NETWORKS.get(&Key::new(128, address.octets())).copied().unwrap_or(0)
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
