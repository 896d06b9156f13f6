//! A shadow whose mood is changed while it serves: fine, slow, or dead. It answers every request with the same body.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

/// How long an answer takes while it is slow.
pub const SLOW: Duration = Duration::from_millis(1500);
/// How often threads look whether the mood is another one.
const TURN: Duration = Duration::from_millis(5);
/// More connections at once end the benchmark: no target is allowed so many.
const MAX_CONNECTIONS: u64 = 512;
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// How it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// At once.
    Fine,
    /// After [`SLOW`].
    Slow,
    /// Not at all: new connections are refused, those that are there are reset.
    Dead,
}

impl Mood {
    /// Every mood.
    pub const ALL: [Mood; 3] = [Mood::Fine, Mood::Slow, Mood::Dead];

    /// Its name in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mood::Fine => "fine",
            Mood::Slow => "slow",
            Mood::Dead => "dead",
        }
    }
}

/// What whoever changes the mood shares with the server.
#[derive(Debug, Default)]
pub struct Moody {
    mood: AtomicU8,
    stop: AtomicBool,
    connections: AtomicU64,
    answered: AtomicU64,
}

impl Moody {
    /// Puts it in that mood.
    pub fn put(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::Release);
    }

    /// Has it end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Requests answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn is(&self, mood: Mood) -> bool {
        self.mood.load(Ordering::Acquire) == mood as u8
    }

    fn serves(&self) -> bool {
        !self.stop.load(Ordering::Acquire) && !self.is(Mood::Dead)
    }

    /// Serves `body` on that port, in the network namespace of the calling thread, until it is to stop.
    ///
    /// # Errors
    /// When the port is taken, or there are far too many connections.
    pub fn serve(&self, port: u16, body: &[u8]) -> Result<()> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = [head.as_bytes(), body].concat();
        thread::scope(|scope| {
            let mut listener = None;
            while !self.stop.load(Ordering::Acquire) {
                if self.is(Mood::Dead) {
                    listener = None;
                    thread::sleep(TURN);
                    continue;
                }
                let socket = match listener.take() {
                    Some(socket) => socket,
                    None => listen(port)?,
                };
                match socket.accept() {
                    Ok((stream, _)) => {
                        let now = self.connections.fetch_add(1, Ordering::Relaxed);
                        ensure!(now < MAX_CONNECTIONS, "the agent made {MAX_CONNECTIONS} connections");
                        let answer = &answer;
                        scope.spawn(move || {
                            // A connection that breaks is the other side's business.
                            let _ = self.talk(&stream, answer);
                            self.connections.fetch_sub(1, Ordering::Relaxed);
                        });
                    }
                    Err(_) => thread::sleep(TURN),
                }
                listener = Some(socket);
            }
            Ok(())
        })
    }

    /// One connection, until it is closed, or reset because the mood is bad.
    fn talk(&self, mut stream: &TcpStream, answer: &[u8]) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TURN))?;
        // Whichever way it ends, it ends with a reset.
        SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        let mut head = Vec::new();
        let mut bytes = [0; 4096];
        while self.serves() {
            match stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(length) => head.extend_from_slice(bytes.get(..length).unwrap_or_default()),
                Err(_) => continue,
            }
            ensure!(head.len() <= MAX_HEAD, "a head of more than {MAX_HEAD} bytes");
            let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
            head.drain(..end + 4);
            if self.is(Mood::Slow) {
                self.doze();
            }
            if !self.serves() {
                break;
            }
            stream.write_all(answer).context("answering")?;
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn doze(&self) {
        for _ in 0..SLOW.as_millis() / TURN.as_millis() {
            if !self.serves() {
                return;
            }
            thread::sleep(TURN);
        }
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind(("0.0.0.0", port)).context("the shadow's port")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::*;

    fn ask(address: SocketAddr) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut bytes = [0; 1024];
        let length = stream.read(&mut bytes)?;
        Ok(bytes.get(..length).unwrap_or_default().to_vec())
    }

    #[test]
    fn it_serves_as_its_mood_says() {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let moody = Moody::default();
        let until = |wanted: bool| {
            let started = Instant::now();
            while ask(address).is_ok_and(|bytes| bytes.ends_with(b"abc")) != wanted {
                assert!(started.elapsed() < Duration::from_secs(10), "it does not become {wanted}");
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| moody.serve(address.port(), b"abc").unwrap());
            until(true);
            moody.put(Mood::Slow);
            let started = Instant::now();
            assert!(ask(address).unwrap().ends_with(b"abc"));
            assert!(started.elapsed() >= SLOW / 2, "slow is slow");
            moody.put(Mood::Dead);
            until(false);
            moody.put(Mood::Fine);
            until(true);
            moody.stop();
        });
        assert!(moody.answered() >= 3);
    }
}
