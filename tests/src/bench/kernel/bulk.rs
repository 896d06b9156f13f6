//! Copies of large packets: one connection sends as fast as it can over a veth, and the kernel says how long the program
//! at the receiving end ran. Ours and the floor take turns.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_agent::capture::interfaces::{Device, Layer, Toward};
use shadow_agent::capture::kernel::{KernelCapture, RingSource, Runs, Statistics};
use shadow_agent::config::Capture;

use super::super::median;
use super::{PORT, TO_SERVER, read};
use crate::netns::{Namespace, join};

/// The receiving end.
const DEVICE: &str = "large";
const SERVER: [u8; 4] = [10, 78, 0, 1];
/// Bytes sent in one turn.
const BYTES: usize = 128 << 20;
/// Turns of each in one repeat.
const TURNS: u32 = 3;
/// The size of the ring, in bytes: large enough that a reader which is held up for a moment loses nothing.
const RING: u64 = 64 << 20;

/// Medians.
pub(super) struct Bulk {
    /// Bytes of a packet, on average.
    pub(super) size: f64,
    /// Nanoseconds that the floor took for a packet.
    pub(super) floor: f64,
    /// Nanoseconds that our program took.
    pub(super) ours: f64,
}

/// One turn: packets, their average size, and nanoseconds for each.
struct Turn {
    size: f64,
    nanoseconds: f64,
}

pub(super) fn run(repeats: u32, tell: &dyn Fn(&str)) -> Result<Bulk> {
    let (client, server) = (Namespace::new("sender")?, Namespace::new("receiver")?);
    let ours = format!("{}/24", std::net::Ipv4Addr::from(SERVER));
    join((&server, DEVICE, &[&ours]), (&client, "eth0", &["10.78.0.2/24"]))?;
    let _statistics = Statistics::enable()?;
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for repeat in 1..=repeats {
        tell(&format!("{repeat} of {repeats}: {} MiB of large packets, {TURNS} times each", BYTES >> 20));
        for _ in 0..TURNS {
            floor.push(turn(&client, &server, true)?);
            ours.push(turn(&client, &server, false)?);
        }
    }
    let of = |turns: &[Turn], figure: fn(&Turn) -> f64| {
        median(&turns.iter().map(figure).collect::<Vec<_>>()).context("no turn was measured")
    };
    Ok(Bulk {
        size: of(&ours, |turn| turn.size)?,
        floor: of(&floor, |turn| turn.nanoseconds)?,
        ours: of(&ours, |turn| turn.nanoseconds)?,
    })
}

/// Sends everything once, with one of the two programs at the receiving end.
fn turn(client: &Namespace, server: &Namespace, is_floor: bool) -> Result<Turn> {
    let config =
        Capture { ports: vec![(PORT, PORT)], ring_size: RING, shards: Some(1), ..Capture::default() };
    let device =
        Device { name: DEVICE.into(), index: 0, layer: Layer::Ethernet, toward_server: Toward::Ingress };
    let (kernel, mut sources, floor) = server.run(|| {
        let devices = if is_floor { Vec::new() } else { vec![device] };
        let (kernel, sources) = KernelCapture::start(&config, &devices, true)?;
        let floor = if is_floor { Some(kernel.attach_floor(DEVICE)?) } else { None };
        Ok((kernel, sources, floor))
    })?;
    let source = sources.first_mut().context("there is no ring")?;
    let runs = || if is_floor { kernel.floor_runs() } else { kernel.runs(TO_SERVER) };
    let before = runs()?;
    while_reading(&kernel, source, || send(client, server))?;
    let after = runs()?;
    drop(floor);
    let lost =
        kernel.counters()?.packets.get(shadow_agent::capture::PacketResult::RingFull as usize).copied();
    ensure!(lost == Some(0), "the ring was full: {lost:?}");
    server.run(|| Ok(kernel.detach()?))?;
    Ok(between(before, after))
}

fn between(before: Runs, after: Runs) -> Turn {
    let count = (after.count - before.count).max(1) as f64;
    Turn { size: BYTES as f64 / count, nanoseconds: (after.time - before.time).as_nanos() as f64 / count }
}

/// Does `work` with a living heartbeat, and a thread that reads what is copied.
fn while_reading<T>(
    kernel: &KernelCapture,
    source: &mut RingSource,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                kernel.beat();
                source.discard(&mut read);
                thread::sleep(Duration::from_micros(200));
            }
        });
        kernel.beat();
        let result = work();
        done.store(true, Ordering::Release);
        result
    })
}

fn send(client: &Namespace, server: &Namespace) -> Result<()> {
    let address = SocketAddr::from((SERVER, PORT));
    let listener = server.run(|| Ok(TcpListener::bind(address)?))?;
    thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = vec![0; 1 << 20];
            let mut received = 0;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return anyhow::Ok(received),
                    count => received += count,
                }
            }
        });
        client.run(|| {
            let mut stream = TcpStream::connect(address)?;
            let block = vec![b'x'; 1 << 20];
            for _ in 0..BYTES / block.len() {
                stream.write_all(&block)?;
            }
            Ok(())
        })?;
        let received = receiving.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
        ensure!(received == BYTES, "{received} bytes of {BYTES} arrived");
        Ok(())
    })
}
