//! Writes frames and header blocks, for tests.

use std::collections::VecDeque;

use crate::http::h2::hpack::huffman_for_tests;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(super) fn settings_ack() -> Vec<u8> {
    frame(SETTINGS, ACK, 0, &[])
}

pub(super) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(super) fn goaway(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 4], b"debug"].concat())
}

/// Encodes header blocks with a dynamic table of the usual size. Entries of the static table that matter here only.
#[derive(Clone)]
pub(super) struct Encoder {
    dynamic: VecDeque<(String, String)>,
    size: usize,
    pub(super) is_huffman: bool,
}

const STATIC: [(&str, &str, u8); 7] = [
    (":method", "GET", 2),
    (":method", "POST", 3),
    (":path", "/", 4),
    (":scheme", "http", 6),
    (":status", "200", 8),
    (":status", "204", 9),
    (":status", "304", 11),
];

impl Encoder {
    pub(super) fn new() -> Encoder {
        Encoder { dynamic: VecDeque::new(), size: 0, is_huffman: true }
    }

    /// A block in which every field is an index, or a literal that becomes an entry.
    pub(super) fn encode(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for &(name, value) in fields {
            let known = STATIC.iter().find(|entry| (entry.0, entry.1) == (name, value));
            let entry = self.dynamic.iter().position(|entry| (&entry.0[..], &entry.1[..]) == (name, value));
            if let Some((_, _, index)) = known {
                integer(&mut block, 0x80, 7, usize::from(*index));
            } else if let Some(at) = entry {
                integer(&mut block, 0x80, 7, 62 + at);
            } else {
                let of_name = self.dynamic.iter().position(|entry| entry.0 == name);
                integer(&mut block, 0x40, 6, of_name.map_or(0, |at| 62 + at));
                if of_name.is_none() {
                    self.string(&mut block, name);
                }
                self.string(&mut block, value);
                self.insert(name, value);
            }
        }
        block
    }

    fn string(&self, block: &mut Vec<u8>, text: &str) {
        let (mark, bytes) = if self.is_huffman {
            (0x80, huffman_for_tests::encode(text.as_bytes()))
        } else {
            (0, text.as_bytes().to_vec())
        };
        integer(block, mark, 7, bytes.len());
        block.extend(bytes);
    }

    fn insert(&mut self, name: &str, value: &str) {
        self.dynamic.push_front((name.to_owned(), value.to_owned()));
        self.size += 32 + name.len() + value.len();
        while self.size > 4096 {
            let (name, value) = self.dynamic.pop_back().unwrap();
            self.size -= 32 + name.len() + value.len();
        }
    }
}

/// A field that is spelt out and becomes no entry.
pub(super) fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x10];
    for text in [name, value] {
        integer(&mut block, 0, 7, text.len());
        block.extend(text.bytes());
    }
    block
}

fn integer(block: &mut Vec<u8>, mark: u8, prefix: u32, value: usize) {
    let mask = (1 << prefix) - 1;
    if value < mask {
        return block.push(mark | value as u8);
    }
    block.push(mark | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}
