//! An open-loop load generator: requests leave at a fixed rate whatever the answers do, and latency counts from when
//! a request was due, not from when a slow server let it go. One thread, so that it leaves the machine to others.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::process::check_interrupt;

/// The epoll token of the timer; connections have their index.
const TIMER: u64 = u64::MAX;
/// How long to wait for answers after the last request.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 32;
/// Longer latencies count as this, in ns.
const MAX_LATENCY: u64 = 60_000_000_000;
/// More requests that wait for a connection than this end the run.
const MAX_WAITING: usize = 100_000;

/// What to send.
pub struct Plan<'a> {
    /// The server.
    pub address: SocketAddr,
    /// Requests per second.
    pub rate: u32,
    /// Requests in all.
    pub count: u64,
    /// Connections, opened before the first request and kept.
    pub connections: usize,
    /// Writes the request of that number; its response must have a content-length.
    pub request: &'a (dyn Fn(u64, &mut Vec<u8>) + Sync),
}

/// What came back.
#[derive(Debug)]
pub struct Outcome {
    /// Requests sent.
    pub sent: u64,
    /// Responses with status 200.
    pub ok: u64,
    /// Other responses, and requests without one.
    pub failed: u64,
    /// From when a request was due (or sent, if a connection was free then) to the end of its response, in ns.
    pub latency: Histogram<u64>,
    /// From the first request to the last response.
    pub elapsed: Duration,
}

impl Outcome {
    /// A percentile of the latency, in microseconds.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> f64 {
        self.latency.value_at_percentile(percent) as f64 / 1000.0
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// When the request under way counts from.
    since: Option<Instant>,
}

struct Generator<'a> {
    plan: &'a Plan<'a>,
    connections: Vec<Connection>,
    /// Used in turn, so that load is on all of them.
    free: VecDeque<usize>,
    waiting: VecDeque<Instant>,
    scratch: Vec<u8>,
    outcome: Outcome,
}

/// Sends what the plan says from the calling thread, in its network namespace.
///
/// # Errors
/// When connections cannot be made, a server closes one, a response is not HTTP, or the server is hopelessly behind.
pub fn run(plan: &Plan<'_>) -> Result<Outcome> {
    ensure!(plan.rate > 0 && plan.connections > 0, "a plan needs a rate and connections");
    let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut connections = Vec::with_capacity(plan.connections);
    for index in 0..plan.connections {
        let stream =
            TcpStream::connect(plan.address).with_context(|| format!("connecting to {}", plan.address))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        poll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, u64::try_from(index)?))?;
        connections.push(Connection { stream, buffer: Vec::with_capacity(8192), since: None });
    }
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    poll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
    let mut generator = Generator {
        plan,
        free: (0..connections.len()).collect(),
        connections,
        waiting: VecDeque::new(),
        scratch: Vec::new(),
        outcome: Outcome {
            sent: 0,
            ok: 0,
            failed: 0,
            latency: Histogram::new_with_bounds(1, MAX_LATENCY, 3)?,
            elapsed: Duration::ZERO,
        },
    };
    let interval = Duration::from_secs(1) / plan.rate;
    timer.set(Expiration::Interval(TimeSpec::from(interval)), TimerSetTimeFlags::empty())?;
    generator.drive(&poll, &timer, interval)?;
    Ok(generator.outcome)
}

impl Generator<'_> {
    fn drive(&mut self, poll: &Epoll, timer: &TimerFd, interval: Duration) -> Result<()> {
        let begin = Instant::now();
        let mut due = 0_u64;
        let mut last_progress = Instant::now();
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            let answered = self.outcome.ok + self.outcome.failed;
            if answered >= self.plan.count {
                self.outcome.elapsed = begin.elapsed();
                return Ok(());
            }
            if last_progress.elapsed() > PATIENCE {
                self.outcome.failed += self.plan.count - answered;
                self.outcome.elapsed = begin.elapsed();
                return Ok(());
            }
            check_interrupt()?;
            let ready = poll.wait(&mut events, EpollTimeout::from(200_u16))?;
            for event in events.iter().take(ready) {
                if event.data() != TIMER {
                    if self.receive(usize::try_from(event.data())?)? {
                        last_progress = Instant::now();
                    }
                    continue;
                }
                // Reading also arms it for the next interval.
                timer.wait()?;
                let passed = begin.elapsed().as_nanos() / interval.as_nanos();
                let until = u64::try_from(passed)?.min(self.plan.count);
                while due < until {
                    due += 1;
                    let multiple = u32::try_from(due).context("too many requests")?;
                    self.waiting.push_back(begin + interval * multiple);
                }
                ensure!(self.waiting.len() <= MAX_WAITING, "the server is {MAX_WAITING} requests behind");
                // The timer's own lateness is not the server's: what finds a free connection counts from now.
                let now = Instant::now();
                while !self.waiting.is_empty() {
                    let Some(index) = self.free.pop_front() else { break };
                    self.waiting.pop_front();
                    self.send(index, now)?;
                }
            }
        }
    }

    fn send(&mut self, index: usize, since: Instant) -> Result<()> {
        self.scratch.clear();
        (self.plan.request)(self.outcome.sent, &mut self.scratch);
        self.outcome.sent += 1;
        let connection = self.connections.get_mut(index).context("connection")?;
        connection.since = Some(since);
        // Requests are far smaller than the socket's buffer, which is empty: this does not block.
        connection.stream.write_all(&self.scratch).context("sending a request")
    }

    /// Reads what is there; returns whether a response ended.
    fn receive(&mut self, index: usize) -> Result<bool> {
        let connection = self.connections.get_mut(index).context("connection")?;
        let mut bytes = [0; 16 * 1024];
        match connection.stream.read(&mut bytes) {
            Ok(0) => bail!("the server closed a kept connection"),
            Ok(length) => connection.buffer.extend_from_slice(bytes.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("reading a response"),
        }
        let Some((status, length)) = response_length(&connection.buffer)? else { return Ok(false) };
        ensure!(connection.buffer.len() == length, "the server sent more than it was asked for");
        connection.buffer.clear();
        let since = connection.since.take().context("a response without a request")?;
        let now = Instant::now();
        self.outcome.latency.saturating_record(u64::try_from((now - since).as_nanos())?);
        if status == 200 {
            self.outcome.ok += 1;
        } else {
            self.outcome.failed += 1;
        }
        match self.waiting.pop_front() {
            Some(due) => self.send(index, due)?,
            None => self.free.push_back(index),
        }
        Ok(true)
    }
}

/// Status and whole length of the response that the bytes begin with; `None` when it is not whole yet.
fn response_length(bytes: &[u8]) -> Result<Option<(u16, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let value = field.and_then(|field| std::str::from_utf8(field.value).ok()).context("no content-length")?;
    let length = head + value.trim().parse::<usize>()?;
    Ok((bytes.len() >= length).then_some((response.code.unwrap_or_default(), length)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn every_request_is_sent_once_and_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                thread::spawn(move || {
                    let mut bytes = [0; 1024];
                    while stream.read(&mut bytes).is_ok_and(|length| length > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").unwrap();
                    }
                });
            }
        });
        let request = |number: u64, bytes: &mut Vec<u8>| {
            write!(bytes, "GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        };
        let plan = Plan { address, rate: 2000, count: 200, connections: 4, request: &request };
        let outcome = run(&plan).unwrap();
        assert_eq!((outcome.sent, outcome.ok, outcome.failed), (200, 200, 0));
        assert_eq!(outcome.latency.len(), 200);
    }

    #[test]
    fn a_response_is_whole_only_with_its_last_byte() {
        let bytes = b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nab";
        for length in 0..bytes.len() {
            assert_eq!(response_length(&bytes[..length]).unwrap(), None, "of {length} bytes");
        }
        assert_eq!(response_length(bytes).unwrap(), Some((404, bytes.len())));
    }
}
