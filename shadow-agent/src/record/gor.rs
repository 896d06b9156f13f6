//! Recordings as GoReplay reads them: for each exchange a request and a response of one name, one behind the other.
//!
//! A file that is made from such a file is the same byte for byte: names are made of what is written, and of times those
//! are written that a recording has.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;

use memchr::memmem;
use sha2::{Digest, Sha256};

use super::wire;
use crate::exchange::Exchange;

/// What stands behind every message.
const SEPARATOR: &str = "\n🐵🙈🙉\n";

/// All of it but the last byte, with which the next may begin.
const MARK: &str = "\n🐵🙈🙉";

/// Within the mark a body is cut behind so many bytes, so that neither part is one.
const CUT: usize = "\n🐵".len();

/// Bytes of a name; it has two hexadecimal digits for each.
const NAME: usize = 12;

/// Requests remembered, so that equal ones of the same time have different names.
const MAX_EQUALS: usize = 16_384;

/// What is remembered of one file.
#[derive(Debug, Default)]
pub(super) struct Gor {
    /// How often a request of that time was met.
    met: HashMap<[u8; NAME], u64>,
    order: VecDeque<[u8; NAME]>,
}

impl Gor {
    /// The two records of an exchange.
    pub(super) fn record(&mut self, exchange: &Exchange) -> Vec<u8> {
        let Exchange { request, response, times, .. } = exchange;
        let asked = wire::request(request, &cuts(&request.body));
        let answered = wire::response(response, &cuts(&response.body));
        let (start, end) = (times.started, times.response_done);
        let name: String = self.name(start.0, &asked).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut record = Vec::with_capacity(asked.len() + answered.len() + 200);
        // Writing to memory cannot fail.
        let _ = writeln!(record, "1 {name} {} 0", start.0);
        record.extend_from_slice(&asked);
        record.extend_from_slice(SEPARATOR.as_bytes());
        let _ = writeln!(record, "2 {name} {} {}", end.0, end.since(start).as_nanos());
        record.extend_from_slice(&answered);
        record.extend_from_slice(SEPARATOR.as_bytes());
        record
    }

    /// A name made of the time, the request, and how many such requests there were before.
    fn name(&mut self, time: u64, request: &[u8]) -> [u8; NAME] {
        let first = digest(&[&time.to_be_bytes(), request]);
        let met = self.met.entry(first).or_default();
        *met += 1;
        let count = *met;
        if count == 1 {
            self.order.push_back(first);
            if self.order.len() > MAX_EQUALS
                && let Some(oldest) = self.order.pop_front()
            {
                self.met.remove(&oldest);
            }
            return first;
        }
        digest(&[&time.to_be_bytes(), request, &count.to_be_bytes()])
    }
}

fn digest(parts: &[&[u8]]) -> [u8; NAME] {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    let mut name = [0; NAME];
    name.iter_mut().zip(digest.finalize()).for_each(|(to, from)| *to = from);
    name
}

/// Where a body has to be cut, because a separator in it would end the record. Who reads it puts the chunks together.
fn cuts(body: &[u8]) -> Vec<usize> {
    // The line end before the first byte is that of the head.
    let first = body.starts_with(MARK.get(1..).unwrap_or_default().as_bytes()).then_some(CUT - 1);
    first.into_iter().chain(memmem::find_iter(body, MARK).map(|at| at + CUT)).collect()
}
