//! `bench xdp`: what each mode costs production, in bytes a second one way and in round trips a second.
//!
//! Production is one TCP connection over a veth pair between two namespaces, sender and receiver on CPUs of their own
//! where there are two. Only what the kernel does is measured: programs without a match, or copying into a ring that is
//! emptied; nothing is rebuilt or replayed. All variants interleaved.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use shadow_agent::capture::interfaces::{Device, Layer, Toward};
use shadow_agent::capture::kernel::{KernelCapture, RingSource};
use shadow_agent::config::{Capture, Mode, XdpMode};

use super::median;
use super::table::Table;
use crate::netns::{self, Namespace};

const DEVICE: &str = "front";
const SERVER: ([u8; 4], u16) = ([10, 77, 1, 1], 8080);
const OFF: &str = "without";
/// What goes to and fro in a round trip, in bytes.
const PING: usize = 100;
/// What is written at once one way, in bytes.
const WRITE: usize = 128 * 1024;

/// By name; with nothing attached, there is no mode.
const MODES: [(&str, Option<Mode>); 4] = [
    (OFF, None),
    ("tc", Some(Mode::Tc)),
    ("xdp generic", Some(Mode::Xdp(XdpMode::Generic))),
    ("xdp native", Some(Mode::Xdp(XdpMode::Native))),
];

/// What production does, and whether it is on a captured port.
const WORK: [(&str, Traffic, bool); 3] = [
    ("one way, no match", Traffic::OneWay, false),
    ("one way, copied", Traffic::OneWay, true),
    ("round trips, no match", Traffic::RoundTrips, false),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    OneWay,
    RoundTrips,
}

impl Traffic {
    const fn unit(self) -> &'static str {
        match self {
            Traffic::OneWay => "Gbit/s",
            Traffic::RoundTrips => "1000/s",
        }
    }
}

/// Measures everything and returns the table.
///
/// # Errors
/// When namespaces cannot be made, or the programs not be attached.
pub fn run(repeats: u32, seconds: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    let (client, production) = (Namespace::new("client")?, Namespace::new("production")?);
    netns::join((&client, "eth0", &["10.77.1.2/24"]), (&production, DEVICE, &["10.77.1.1/24"]))?;
    let length = Duration::from_secs(u64::from(seconds));
    let mut all = vec![vec![Vec::new(); WORK.len()]; MODES.len()];
    for repeat in 1..=repeats {
        for ((name, mode), measured) in MODES.into_iter().zip(&mut all) {
            tell(&format!("{repeat} of {repeats}: {name}"));
            for ((_, traffic, captured), figures) in WORK.into_iter().zip(measured) {
                let work = || measure(&client, &production, traffic, length);
                figures.push(match mode {
                    None => work(),
                    Some(mode) => captured_from(&production, mode, captured, work),
                }?);
            }
        }
    }
    table(&all)
}

/// Does `work` while programs are attached in production's namespace and their ring is emptied.
fn captured_from<T>(
    production: &Namespace,
    mode: Mode,
    captured: bool,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let port = if captured { SERVER.1 } else { SERVER.1 + 1 };
    let config = Capture {
        mode,
        ports: vec![(port, port)],
        ring_size: 64 << 20,
        shards: Some(1),
        ..Capture::default()
    };
    let device =
        Device { name: DEVICE.to_owned(), index: 0, layer: Layer::Ethernet, toward_server: Toward::Ingress };
    let (capture, sources) = production.run(|| Ok(KernelCapture::start(&config, &[device], true)?))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| empty(&capture, sources, &done));
        let result = work();
        done.store(true, Ordering::Release);
        result
    })
}

/// What an agent that rebuilds nothing does.
fn empty(capture: &KernelCapture, mut sources: Vec<RingSource>, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        capture.beat();
        for source in &mut sources {
            source.discard(&mut |_| ());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn measure(client: &Namespace, production: &Namespace, traffic: Traffic, length: Duration) -> Result<f64> {
    let listener = production.run(|| Ok(TcpListener::bind(SocketAddr::from(SERVER))?))?;
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            pin(1);
            let (stream, _) = listener.accept()?;
            match traffic {
                Traffic::OneWay => swallow(stream),
                Traffic::RoundTrips => echo(stream),
            }
        });
        let asked = client.run(|| {
            pin(0);
            let stream = TcpStream::connect(SocketAddr::from(SERVER))?;
            stream.set_nodelay(true)?;
            match traffic {
                Traffic::OneWay => pour(stream, length),
                Traffic::RoundTrips => ask(stream, length),
            }
        });
        let served = serving.join().map_err(|_| anyhow!("the server panicked"))?;
        let (asked, served) = (asked?, served?);
        Ok(if traffic == Traffic::OneWay { served } else { asked })
    })
}

/// Keeps the calling thread on one CPU, if there are two.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    // On one CPU everything is where it must be.
    let _ = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
}

/// Sends for so long.
fn pour(mut stream: TcpStream, length: Duration) -> Result<f64> {
    let (block, start) = (vec![b'x'; WRITE], Instant::now());
    while start.elapsed() < length {
        stream.write_all(&block)?;
    }
    Ok(0.0)
}

/// Receives to the end; gigabits a second.
fn swallow(mut stream: TcpStream) -> Result<f64> {
    let (mut block, mut bytes, start) = (vec![0; 2 * WRITE], 0_usize, Instant::now());
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(bytes as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64()),
            count => bytes += count,
        }
    }
}

/// Asks again and again for so long; thousands of round trips a second.
fn ask(mut stream: TcpStream, length: Duration) -> Result<f64> {
    let (mut ping, mut count, start) = ([b'x'; PING], 0_u64, Instant::now());
    while start.elapsed() < length {
        stream.write_all(&ping)?;
        stream.read_exact(&mut ping)?;
        count += 1;
    }
    Ok(count as f64 / 1000.0 / start.elapsed().as_secs_f64())
}

fn echo(mut stream: TcpStream) -> Result<f64> {
    stream.set_nodelay(true)?;
    let mut ping = [0; PING];
    while stream.read_exact(&mut ping).is_ok() {
        stream.write_all(&ping)?;
    }
    Ok(0.0)
}

fn table(all: &[Vec<Vec<f64>>]) -> Result<Table> {
    let mut table = Table { name: "xdp", ..Table::default() };
    for (index, (work, traffic, _)) in WORK.into_iter().enumerate() {
        let figure = |measured: &Vec<Vec<f64>>| {
            measured.get(index).and_then(|figures| median(figures)).context("nothing was measured")
        };
        let off = figure(all.first().context("nothing was measured")?)?;
        for ((name, mode), measured) in MODES.into_iter().zip(all) {
            let value = figure(measured)?;
            let ratio = mode.map(|_| (OFF, value / off));
            table.row(&format!("{work}: {name}"), value, traffic.unit(), ratio);
        }
    }
    Ok(table)
}
