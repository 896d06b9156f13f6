//! `bench kernel`: what the kernel programs cost a packet, beside a program that does nothing and one that only copies.
//!
//! Crafted packets go through the loaded programs (`BPF_PROG_TEST_RUN`), with a consumer emptying the ring between
//! batches; all cases interleaved. Nothing is attached, no packet of this host is touched. Large packets are measured by
//! the kernel's run-time statistics on real traffic between namespaces (`bulk`).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use shadow_agent::capture::PacketResult;
use shadow_agent::capture::interfaces::Layer;
use shadow_agent::capture::kernel::{Entry, KernelCapture, Leads, RingSource, Yardstick};
use shadow_agent::config::{Capture, Networks, Share};

use super::median;
use super::table::Table;

mod bulk;

const PORT: u16 = 8080;
/// Packets of one run of a program.
const REPEAT: u32 = 1500;
/// Runs of a program in one measurement.
const RUNS: u32 = 10;
/// Measurements of each case in one repeat.
const ROUNDS: u32 = 5;
/// The size of the ring, in bytes: what one run copies takes half of it.
const RING: u64 = 16 << 20;

const TO_SERVER: Entry = Entry::Tc { layer: Layer::Ethernet, leads: Leads::ToServer };

/// One thing to measure.
struct Case {
    name: &'static str,
    /// Which of the loaded configurations it runs with.
    setup: usize,
    program: Program,
    packet: Vec<u8>,
    /// What must be decided about each packet.
    expected: Option<PacketResult>,
}

impl Case {
    fn copies(&self) -> bool {
        matches!(self.expected, Some(PacketResult::Copied))
            || matches!(self.program, Program::Yardstick(Yardstick::Floor))
    }
}

#[derive(Clone, Copy)]
enum Program {
    Yardstick(Yardstick),
    Ours,
}

/// A loaded configuration.
struct Setup {
    kernel: KernelCapture,
    source: RingSource,
}

impl Setup {
    fn new(config: &Capture, enabled: bool) -> Result<Setup> {
        let config =
            Capture { ports: vec![(PORT, PORT)], ring_size: RING, shards: Some(1), ..config.clone() };
        let (kernel, mut sources) = KernelCapture::start(&config, &[], enabled)?;
        Ok(Setup { kernel, source: sources.pop().context("there is no ring")? })
    }

    /// Runs a case and gives nanoseconds a packet. What is copied is read by another thread at the same time, as the
    /// agent does: bytes that another CPU has read cost more to overwrite.
    fn measure(&mut self, case: &Case) -> Result<Vec<f64>> {
        let Setup { kernel, source } = self;
        let (records, done) = (AtomicU32::new(0), AtomicBool::new(false));
        let before = kernel.counters()?;
        let measured = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    source.discard(&mut |record| {
                        read(record);
                        records.fetch_add(1, Ordering::Release);
                    });
                    std::hint::spin_loop();
                }
            });
            let measured = (1..=RUNS).map(|run| {
                kernel.beat();
                let ran = match case.program {
                    Program::Yardstick(yardstick) => kernel.run_yardstick(yardstick, &case.packet, REPEAT),
                    Program::Ours => kernel.run_packet(TO_SERVER, &case.packet, 0, REPEAT),
                }?;
                // The reader catches up, so that the ring never fills.
                while case.copies() && records.load(Ordering::Acquire) < run * REPEAT {
                    thread::yield_now();
                }
                Ok(ran.duration.as_nanos() as f64)
            });
            let measured = measured.collect::<Result<Vec<_>>>();
            done.store(true, Ordering::Release);
            measured
        })?;
        if let Some(expected) = case.expected {
            let after = kernel.counters()?;
            let count = |counters: &[u64]| counters.get(expected as usize).copied().unwrap_or_default();
            let (decided, all) = (count(&after.packets) - count(&before.packets), u64::from(RUNS * REPEAT));
            ensure!(decided == all, "{}: {decided} of {all} were {expected:?}: {after:?}", case.name);
        }
        Ok(measured)
    }
}

/// Reads a record as whoever parses it would.
fn read(record: &[u8]) {
    std::hint::black_box(record.iter().fold(0_u8, |sum, byte| sum ^ byte));
}

/// Measures everything and returns the table.
///
/// # Errors
/// When the programs cannot be loaded, or decide otherwise than expected.
pub fn run(repeats: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    let networks = Networks { include: vec!["10.9.0.0/16".parse()?], exclude: Vec::new() };
    let plain = Capture::default();
    let configs = [
        (plain.clone(), true),
        (plain.clone(), false),
        (Capture { server: networks, ..plain.clone() }, true),
        (Capture { sample: Share(0.0), ..plain.clone() }, true),
        (Capture { budget: Some(1 << 40), ..plain }, true),
    ];
    let mut setups =
        configs.iter().map(|(config, enabled)| Setup::new(config, *enabled)).collect::<Result<Vec<_>>>()?;
    let cases = cases();
    let mut all: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    for repeat in 1..=repeats {
        tell(&format!("{repeat} of {repeats}: {} cases", cases.len()));
        for _ in 0..ROUNDS {
            for (case, measured) in cases.iter().zip(&mut all) {
                let setup = setups.get_mut(case.setup).context("a case without configuration")?;
                measured.extend(setup.measure(case).with_context(|| case.name)?);
            }
        }
    }
    let bulk = bulk::run(repeats, tell)?;
    table(&cases, &all, &bulk)
}

fn cases() -> Vec<Case> {
    let ours = |name, setup, packet, expected| Case {
        name,
        setup,
        program: Program::Ours,
        packet,
        expected: Some(expected),
    };
    let yardstick = |name, yardstick, packet| Case {
        name,
        setup: 0,
        program: Program::Yardstick(yardstick),
        packet,
        expected: None,
    };
    use PacketResult::{Copied, Filtered, Killed, NoPayload, SampledOut};
    vec![
        yardstick("empty", Yardstick::Empty, packet(PORT, 100)),
        yardstick("reading the clock", Yardstick::Clock, packet(PORT, 100)),
        ours("killed", 1, packet(PORT, 100), Killed),
        ours("port miss", 0, packet(PORT + 1, 100), Filtered),
        ours("port miss, CIDRs configured", 2, packet(PORT + 1, 100), Filtered),
        ours("CIDR miss", 2, packet(PORT, 100), Filtered),
        ours("sampled out", 3, packet(PORT, 100), SampledOut),
        ours("pure ACK", 0, packet(PORT, 0), NoPayload),
        yardstick("floor, 100 B", Yardstick::Floor, packet(PORT, 100)),
        ours("copy, 100 B", 0, packet(PORT, 100), Copied),
        yardstick("floor, 1448 B", Yardstick::Floor, packet(PORT, 1448)),
        ours("copy, 1448 B", 0, packet(PORT, 1448), Copied),
        ours("copy, 1448 B, with a budget", 4, packet(PORT, 1448), Copied),
        yardstick("floor, 3000 B", Yardstick::Floor, packet(PORT, 3000)),
        ours("copy, 3000 B", 0, packet(PORT, 3000), Copied),
    ]
}

fn table(cases: &[Case], all: &[Vec<f64>], bulk: &bulk::Bulk) -> Result<Table> {
    let figure = |name: &str| {
        let measured = cases.iter().zip(all).find(|(case, _)| case.name == name);
        measured.and_then(|(_, measured)| median(measured)).with_context(|| format!("no figure for {name}"))
    };
    let empty = figure("empty")?;
    let mut table = Table { name: "kernel", ..Table::default() };
    table.row("empty program", empty, "ns", None);
    for case in cases.iter().filter(|case| case.name != "empty") {
        let added = figure(case.name)? - empty;
        let floor = case.name.split_once(", ").map(|(_, size)| size.split(',').next().unwrap_or(size));
        let floor = floor.map(|size| format!("floor, {size}")).filter(|floor| *floor != case.name);
        let ratio = floor.and_then(|name| Some((figure(&name).ok()? - empty, name)));
        let ratio = ratio.map(|(floor, name)| (name, added / floor));
        let ratio = ratio.as_ref().map(|(name, ratio)| (name.as_str(), *ratio));
        table.row(&format!("{}, over empty", case.name), added, "ns", ratio);
    }
    table.row("real traffic, bytes a packet", bulk.size, "B", None);
    table.row("floor, real traffic, a packet", bulk.floor, "ns", None);
    let ratio = bulk.ours / bulk.floor;
    table.row("copy, real traffic, a packet", bulk.ours, "ns", Some(("floor, real traffic", ratio)));
    table.goal("killed, ns over empty", figure("killed")? - empty, 12.0, false);
    table.goal("port miss, ns over empty", figure("port miss")? - empty, 12.0, false);
    let cidrs = figure("port miss, CIDRs configured")? - empty;
    table.goal("port miss with CIDRs, ns over empty", cidrs, 30.0, false);
    let copied = (figure("copy, 1448 B")? - empty) / (figure("floor, 1448 B")? - empty);
    table.goal("copy of 1448 B over the floor", copied, 1.5, false);
    table.goal("copy of 64 KiB over the floor", ratio, 1.2, false);
    Ok(table)
}

/// A TCP packet over IPv4 and Ethernet, to the given port, with so much payload.
fn packet(port: u16, payload: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    bytes.extend([0x45, 0]);
    bytes.extend((40 + payload).to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(40_000_u16.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x10, 0xFF, 0xFF, 0, 0, 0, 0]);
    bytes.extend(std::iter::repeat_n(b'x', payload.into()));
    bytes
}
