//! How long it takes from the moment at which the kill switch is thrown to the last byte of a request at the shadow, under
//! load. The shadow is a server of our own, because only the moment of each byte is of interest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::agent::Agent;
use crate::bed::Bed;
use crate::load::{self, Plan};
use crate::process::{pause, wait_until};

/// Requests per second while the switch is thrown.
pub const RATE: u32 = 2000;

const CONNECTIONS: usize = 32;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// How long a thread waits for bytes before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(200);

/// How the switch is thrown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By `PUT /api/v1/capture`, which is what `ctl disable` sends.
    Api,
    /// By SIGUSR1.
    Signal,
}

impl How {
    /// All of them.
    pub const ALL: [How; 2] = [How::Api, How::Signal];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            How::Api => "API",
            How::Signal => "SIGUSR1",
        }
    }
}

/// A server that answers every request, and knows when bytes came last.
#[derive(Debug)]
pub struct Listener {
    heard: Arc<Heard>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Heard {
    since: Instant,
    /// Nanoseconds since then; 0 before the first byte.
    last: AtomicU64,
    requests: AtomicU64,
    stop: AtomicBool,
}

impl Heard {
    fn bytes(&self) {
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }
}

impl Listener {
    /// Listens at that address of the shadows' namespace.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(bed: &Bed, address: SocketAddr) -> Result<Listener> {
        let listener = bed.shadow.run(|| Ok(TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let heard = Arc::new(Heard {
            since: Instant::now(),
            last: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let hearing = Arc::clone(&heard);
        let accepting = thread::spawn(move || {
            let mut connections = Vec::new();
            while !hearing.stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let heard = Arc::clone(&hearing);
                        connections.push(thread::spawn(move || serve(stream, &heard)));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
            connections.into_iter().for_each(|one| drop(one.join()));
        });
        Ok(Listener { heard, accepting: Some(accepting) })
    }

    /// Requests that came whole.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.heard.requests.load(Ordering::Relaxed)
    }

    /// When bytes came last.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        match self.heard.last.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.heard.since + Duration::from_nanos(nanos)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.heard.stop.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

/// Answers what comes on one connection; requests have no bodies.
fn serve(mut stream: TcpStream, heard: &Heard) {
    const END: &[u8] = b"\r\n\r\n";
    let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
    let (mut bytes, mut held) = ([0; 16 * 1024], Vec::new());
    while ready.is_ok() && !heard.stop.load(Ordering::Relaxed) {
        let length = match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => continue,
            Err(_) => return,
        };
        heard.bytes();
        held.extend_from_slice(bytes.get(..length).unwrap_or_default());
        while let Some(end) = held.windows(END.len()).position(|window| window == END) {
            held.drain(..end + END.len());
            heard.requests.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// Throws the switch of an enabled agent under load, which production must answer in full, and gives how long after that the last
/// byte of a request came to the shadow; zero if none came any more. The agent is enabled again.
///
/// # Errors
/// When nothing was replayed before, production did not answer, or the agent cannot be asked.
pub fn measure(bed: &Bed, agent: &Agent<'_>, shadow: &Listener, how: How) -> Result<Duration> {
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /large?size=1024&n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan = Plan {
        address: bed.production_address(),
        rate: RATE,
        count: u64::from(RATE) * 3,
        connections: CONNECTIONS,
        request: &request,
    };
    let before = shadow.requests();
    let thrown = thread::scope(|scope| {
        let traffic = scope.spawn(|| bed.client.run(|| load::run(&plan)));
        wait_until("requests at the shadow", Duration::from_secs(10), || {
            ensure!(shadow.requests() >= before + u64::from(RATE) / 2, "{} came", shadow.requests() - before);
            Ok(())
        })?;
        let thrown = Instant::now();
        match how {
            How::Api => {
                let reply = agent.ask("PUT", "/api/v1/capture", "{\"enabled\": false}")?;
                ensure!(reply.status == 200, "{}", reply.text());
            }
            How::Signal => agent.process.signal(Signal::SIGUSR1)?,
        }
        let outcome = traffic.join().ok().context("the load panicked")??;
        ensure!(outcome.ok == plan.count, "production answered {} of {}", outcome.ok, plan.count);
        anyhow::Ok(thrown)
    })?;
    pause(Duration::from_millis(200))?;
    let last = shadow.last().context("nothing came")?;
    let reply = agent.ask("PUT", "/api/v1/capture", "{\"enabled\": true}")?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(last.saturating_duration_since(thrown))
}
