//! Plays conversations in HTTP/2 to a connection. Frames are written by a small encoder of our own (`encoder`); what a
//! connection makes of them is tested in the other submodules, rule by rule.

use super::*;
use crate::capture::Direction::{ToClient, ToServer};
use crate::exchange::Timestamp;
use crate::http::tests::Step::{Down, End, Gap, Over, Up, Wait};
use crate::http::tests::{LIMIT, Peer, Step, brief, check, check_cut, down, get, ok, up};
use crate::tcp::{Ending, Load};

mod any;
mod bounds;
mod broken;
mod encoder;
mod joined;
mod whole;

use encoder::{DATA, END_HEADERS, END_STREAM, Encoder, HEADERS, PADDED, PRIORITY, frame};

/// Two sides that speak HTTP/2, each with its own header table.
#[derive(Clone)]
struct Talk {
    client: Encoder,
    server: Encoder,
}

impl Talk {
    fn new() -> Talk {
        Talk { client: Encoder::new(), server: Encoder::new() }
    }

    /// Head of a request.
    fn head(&mut self, stream: u32, method: &str, path: &str, flags: u8) -> Vec<u8> {
        let fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "host")];
        let block = self.client.encode(&fields);
        frame(HEADERS, END_HEADERS | flags, stream, &block)
    }

    /// Head of a response.
    fn status(&mut self, stream: u32, status: &str, more: &[(&str, &str)], flags: u8) -> Vec<u8> {
        let block = self.server.encode(&[&[(":status", status)], more].concat());
        frame(HEADERS, END_HEADERS | flags, stream, &block)
    }

    fn get(&mut self, stream: u32, path: &str) -> Step {
        Up(self.head(stream, "GET", path, END_STREAM))
    }

    fn post(&mut self, stream: u32, path: &str, body: &str) -> Step {
        Up([self.head(stream, "POST", path, 0), frame(DATA, END_STREAM, stream, body.as_bytes())].concat())
    }

    fn ok(&mut self, stream: u32, body: &str) -> Step {
        let head = self.status(stream, "200", &[("server", "test")], 0);
        Down([head, frame(DATA, END_STREAM, stream, body.as_bytes())].concat())
    }
}

/// What both sides send first.
fn hello() -> Vec<Step> {
    vec![
        Up([PREFACE, &encoder::settings(&[])].concat()),
        Down([encoder::settings(&[]), encoder::settings_ack()].concat()),
        Up(encoder::settings_ack()),
    ]
}

fn data(stream: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, 0, stream, bytes.as_ref())
}

fn last_data(stream: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes.as_ref())
}

/// Plays a conversation behind the first words of both sides, whole and in pieces, and compares what came of it.
#[track_caller]
fn check_talk(name: &str, expected: &[&str], steps: impl FnOnce(&mut Talk) -> Vec<Step>) {
    let steps = [hello(), steps(&mut Talk::new())].concat();
    check(name, &steps, expected);
}

/// The same, whole only: where frames have to be found, it matters where segments begin.
#[track_caller]
fn check_whole(name: &str, expected: &[&str], steps: impl FnOnce(&mut Talk) -> Vec<Step>) {
    let steps = [hello(), steps(&mut Talk::new())].concat();
    check_cut(name, false, &[usize::MAX], &steps, expected);
}

/// The steps of a conversation that is met in the middle.
#[track_caller]
fn check_joined(name: &str, expected: &[&str], steps: &[Step]) {
    check_cut(name, true, &[usize::MAX], steps, expected);
}
