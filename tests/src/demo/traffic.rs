//! The demo's clients: several kinds at once, each at its own steady pace. Every response must be what was asked for.

use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use flate2::read::GzDecoder;

use super::SPAN;
use crate::client::{Connection, Reply, chunked_request, request};
use crate::process::check_interrupt;
use crate::service::{digest, filler};

const PIPELINED: u32 = 6;

/// Sends the whole mix and returns the number of requests answered.
pub(super) fn send(v4: SocketAddr, v6: SocketAddr) -> Result<u64> {
    let clients: [fn(SocketAddr, SocketAddr) -> Result<u64>; 5] = [
        |v4, _| shopping(v4),
        |_, v6| shopping(v6),
        |v4, _| pipelining(v4),
        |_, v6| searching(v6),
        |v4, _| transferring(v4),
    ];
    thread::scope(|scope| {
        let running: Vec<_> = clients.iter().map(|client| scope.spawn(move || client(v4, v6))).collect();
        let mut sent = 0;
        for client in running {
            sent += client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(sent)
    })
}

/// Calls `step` with a running number at a steady rate until the time is over; adds up what it returns.
fn paced(per_second: u32, mut step: impl FnMut(u32) -> Result<u64>) -> Result<u64> {
    let begin = Instant::now();
    let interval = Duration::from_secs(1) / per_second;
    let mut sent = 0;
    let mut number = 0;
    while begin.elapsed() < SPAN {
        check_interrupt()?;
        sent += step(number)?;
        number += 1;
        thread::sleep((begin + interval * number).saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}

fn expect(reply: &Reply, status: u16, what: &str) -> Result<()> {
    ensure!(reply.status == status, "production answered {what} with {} instead of {status}", reply.status);
    Ok(())
}

/// One visitor after another on kept connections.
fn shopping(address: SocketAddr) -> Result<u64> {
    let mut connection = Connection::open(address)?;
    paced(80, |number| {
        if number % 40 == 39 {
            connection = Connection::open(address)?;
        }
        let id = number % 97 + 1;
        let (method, target, status) = match number % 10 {
            0 | 1 => ("GET", format!("/products/{id}"), 200),
            2 | 3 => ("GET", format!("/users/{id}"), 200),
            4 => ("GET", format!("/coupons/{id}"), if id % 2 == 0 { 200 } else { 410 }),
            5 => ("GET", "/catalog".to_owned(), 200),
            6 => ("GET", "/cart".to_owned(), 200),
            7 => ("GET", format!("/old/{id}"), 302),
            8 => ("HEAD", "/".to_owned(), 200),
            _ => ("GET", "/missing".to_owned(), 404),
        };
        let reply = connection.exchange(&request(method, &target, &[], b""))?;
        expect(&reply, status, &target)?;
        Ok(1)
    })
}

/// Several requests at once, answered in order.
fn pipelining(address: SocketAddr) -> Result<u64> {
    let mut connection = Connection::open(address)?;
    paced(8, |number| {
        let targets: Vec<String> =
            (0..PIPELINED).map(|at| format!("/products/{}", number * PIPELINED + at)).collect();
        let together: Vec<u8> = targets.iter().flat_map(|target| request("GET", target, &[], b"")).collect();
        connection.send(&together)?;
        for target in &targets {
            expect(&connection.receive(false)?, 200, target)?;
        }
        Ok(u64::from(PIPELINED))
    })
}

/// The endpoint that takes a while.
fn searching(address: SocketAddr) -> Result<u64> {
    let mut connection = Connection::open(address)?;
    paced(20, |number| {
        let target = format!("/search?q=word{}", number % 7);
        expect(&connection.get(&target)?, 200, &target)?;
        Ok(1)
    })
}

/// Compressed and chunked responses, and uploads with a length and in chunks.
fn transferring(address: SocketAddr) -> Result<u64> {
    let mut connection = Connection::open(address)?;
    let body = filler(20_000);
    paced(30, |number| {
        match number % 5 {
            0 => {
                let reply =
                    connection.exchange(&request("GET", "/app.js", &[("Accept-Encoding", "gzip")], b""))?;
                expect(&reply, 200, "/app.js")?;
                let mut text = String::new();
                GzDecoder::new(reply.body.as_slice()).read_to_string(&mut text).context("/app.js")?;
                ensure!(text.starts_with("export"), "/app.js is not what it was");
            }
            1 => expect(&connection.get("/app.js")?, 200, "/app.js")?,
            2 => expect(&connection.get("/export")?, 200, "/export")?,
            3 => {
                let upload = chunked_request("POST", "/echo", &[], &body, &[1, 700, 4096]);
                let reply = connection.exchange(&upload)?;
                expect(&reply, 200, "/echo")?;
                ensure!(reply.text().contains(&digest(&body)), "production received another body");
            }
            _ => expect(&connection.exchange(&request("POST", "/orders", &[], b"{}"))?, 201, "/orders")?,
        }
        Ok(1)
    })
}
