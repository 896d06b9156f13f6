//! `bench xdp`: what each mode costs production, in bytes a second one way and in round trips a second.
//!
//! Production is one TCP connection over a veth pair between two namespaces, sender and receiver on CPUs of their own
//! where there are two. Only what the kernel does is measured: programs without a match, or copying into a ring that is
//! emptied; nothing is rebuilt or replayed. Each measurement of a mode stands between two without any, and is compared
//! with their mean.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use shadow_agent::capture::SegmentSource as _;
use shadow_agent::capture::interfaces::{Device, Layer, Toward};
use shadow_agent::capture::kernel::{KernelCapture, RingSource};
use shadow_agent::config::{Capture, Mode, XdpMode};

use super::median;
use super::table::Table;
use crate::netns::{self, Namespace};

const DEVICE: &str = "front";
const SERVER: ([u8; 4], u16) = ([10, 77, 1, 1], 8080);
/// As the agent does.
const BEAT: Duration = Duration::from_millis(250);
/// What goes to and fro in a round trip, in bytes.
const PING: usize = 100;
/// What is written at once one way, in bytes.
const WRITE: usize = 128 * 1024;

const MODES: [(&str, Mode); 3] = [
    ("tc", Mode::Tc),
    ("xdp generic", Mode::Xdp(XdpMode::Generic)),
    ("xdp native", Mode::Xdp(XdpMode::Native)),
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

/// A measurement, and the mean of those with nothing attached right before and right after it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    one: f64,
    beside: f64,
}

/// By work and mode.
type All = [[Vec<Sample>; MODES.len()]; WORK.len()];

/// Measures everything and returns the table.
///
/// # Errors
/// When namespaces cannot be made, or the programs not be attached.
pub fn run(repeats: u32, seconds: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    let (client, production) = (Namespace::new("client")?, Namespace::new("production")?);
    netns::join((&client, "eth0", &["10.77.1.2/24"]), (&production, DEVICE, &["10.77.1.1/24"]))?;
    let length = Duration::from_secs(u64::from(seconds));
    let mut all: All = Default::default();
    for repeat in 1..=repeats {
        for ((name, traffic, captured), measured) in WORK.into_iter().zip(&mut all) {
            tell(&format!("{repeat} of {repeats}: {name}"));
            let work = || measure(&client, &production, traffic, length);
            let mut before = work()?;
            // Another one begins each time, so that none always follows the same.
            let mut modes: Vec<_> = MODES.into_iter().zip(measured).collect();
            modes.rotate_left(repeat as usize % MODES.len());
            for ((_, mode), samples) in modes {
                let one = captured_from(&production, mode, captured, work)?;
                let after = work()?;
                samples.push(Sample { one, beside: f64::midpoint(before, after) });
                before = after;
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
    let source = sources.into_iter().next().context("there is no ring")?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let emptying = scope.spawn(|| empty(&capture, source, &done));
        let result = work();
        done.store(true, Ordering::Release);
        emptying.join().map_err(|_| anyhow!("the consumer panicked"))??;
        result
    })
}

/// What an agent that rebuilds nothing does.
fn empty(capture: &KernelCapture, mut source: RingSource, done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Acquire) {
        capture.beat();
        source.poll(BEAT, &mut |_| ())?;
    }
    Ok(())
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

fn table(all: &All) -> Result<Table> {
    let mut table = Table { name: "xdp", ..Table::default() };
    let middle = |samples: &mut dyn Iterator<Item = f64>| {
        median(&samples.collect::<Vec<_>>()).context("nothing was measured")
    };
    for ((work, traffic, _), measured) in WORK.into_iter().zip(all) {
        let off = middle(&mut measured.iter().flatten().map(|sample| sample.beside))?;
        table.row(&format!("{work}: without"), off, traffic.unit(), None);
        for ((name, _), samples) in MODES.into_iter().zip(measured) {
            let value = middle(&mut samples.iter().map(|sample| sample.one))?;
            let ratio = middle(&mut samples.iter().map(|sample| sample.one / sample.beside))?;
            table.row(&format!("{work}: {name}"), value, traffic.unit(), Some(("without", ratio)));
        }
    }
    Ok(table)
}
