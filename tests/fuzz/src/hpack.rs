//! Header blocks: those of an encoder that does what it likes come out as they went in, whoever joins late is told what
//! is right or nothing, and any bytes at all are survived.

use std::collections::VecDeque;

use shadow_agent::http::hpack::{Decoder, Field, MAX_TABLE};

/// What any two sides do with the tables cannot make a decoder hold more than this: entries, and what they are kept in.
const MOST_HELD: usize = MAX_TABLE + 4096 * 128;

/// Each first byte of a step says what is done; see [`Encoder::step`]. Blocks end with a step of 0xFF. The same bytes
/// are then a block as they are.
pub fn check(bytes: &[u8]) {
    let mut encoder = Encoder { table: VecDeque::new(), size: 0, max: 4096 };
    let (mut decoder, mut late) = (Decoder::new(), Decoder::joined());
    let mut rest = bytes;
    let mut number = 0;
    while !rest.is_empty() {
        let (block, fields) = encoder.block(&mut rest);
        let mut found = Vec::new();
        decoder
            .decode(&block, &mut |field| found.push(field))
            .expect("what the encoder wrote can be decoded");
        let expected: Vec<Field> = fields.iter().map(known).collect();
        assert_eq!(found, expected, "block {number}: {block:02x?}");
        // Whoever comes late knows less, and nothing else.
        if number > 0 {
            let mut position = 0;
            let decoded = late.decode(&block, &mut |field| {
                assert!(field == Field::Unknown || Some(&field) == expected.get(position), "block {number}");
                position += 1;
            });
            assert!(decoded.is_ok() && position == expected.len(), "{decoded:?} in block {number}");
        }
        assert!(decoder.buffered() <= MOST_HELD && late.buffered() <= MOST_HELD);
        number += 1;
    }
    for mut decoder in [Decoder::new(), decoder, late] {
        for block in [bytes, bytes.get(1..).unwrap_or_default()] {
            // An error is an answer.
            let _ = decoder.decode(block, &mut |_| {});
            assert!(decoder.buffered() <= MOST_HELD);
        }
    }
}

fn known((name, value): &(Vec<u8>, Vec<u8>)) -> Field {
    Field::Known(name.clone().into(), value.clone().into())
}

type Pair = (Vec<u8>, Vec<u8>);

/// An encoder without Huffman codes, and its table.
struct Encoder {
    table: VecDeque<Pair>,
    size: usize,
    max: usize,
}

impl Encoder {
    /// The next block, and the fields that are in it.
    fn block(&mut self, rest: &mut &[u8]) -> (Vec<u8>, Vec<Pair>) {
        let (mut block, mut fields) = (Vec::new(), Vec::new());
        while let Some((&step, behind)) = rest.split_first() {
            *rest = behind;
            if step == 0xFF {
                break;
            }
            self.step(step, rest, &mut block, &mut fields);
        }
        (block, fields)
    }

    /// Does one of: a new size of the table (only in front), an index, a literal with a name from the table, and one with
    /// a name of its own, both with or without an entry made of them.
    fn step(&mut self, step: u8, rest: &mut &[u8], block: &mut Vec<u8>, fields: &mut Vec<Pair>) {
        let chosen = usize::from(step >> 3);
        let entry = self.table.get(chosen % self.table.len().max(1)).cloned();
        let index = 62 + chosen % self.table.len().max(1);
        match (step % 8, entry) {
            (0, _) if fields.is_empty() => {
                self.max = chosen * 40;
                self.evict(0);
                integer(block, 0x20, 5, self.max);
            }
            (1 | 2, Some(entry)) => {
                integer(block, 0x80, 7, index);
                fields.push(entry);
            }
            (kind @ (3 | 4), Some((name, _))) => {
                let value = text(rest);
                integer(block, if kind == 3 { 0x40 } else { 0x10 }, if kind == 3 { 6 } else { 4 }, index);
                string(block, &value);
                self.add((name, value), kind == 3, fields);
            }
            (kind, _) => {
                let (name, value) = (text(rest), text(rest));
                block.push(if kind == 7 { 0 } else { 0x40 });
                string(block, &name);
                string(block, &value);
                self.add((name, value), kind != 7, fields);
            }
        }
    }

    fn add(&mut self, pair: Pair, is_entry: bool, fields: &mut Vec<Pair>) {
        fields.push(pair.clone());
        if is_entry {
            let size = pair.0.len() + pair.1.len() + 32;
            self.evict(size);
            if size <= self.max {
                self.size += size;
                self.table.push_front(pair);
            }
        }
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            let Some((name, value)) = self.table.pop_back() else { return };
            self.size -= name.len() + value.len() + 32;
        }
    }
}

/// A text of up to 63 bytes: its length, and what of it is there.
fn text(rest: &mut &[u8]) -> Vec<u8> {
    let Some((&length, behind)) = rest.split_first() else { return Vec::new() };
    let (text, behind) = behind.split_at(behind.len().min(usize::from(length % 64)));
    *rest = behind;
    text.to_vec()
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    integer(block, 0, 7, text.len());
    block.extend(text);
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

/// Steps of every kind, and blocks of RFC 7541, appendix C.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x05\x01a\x02bc\x05\x01d\x00\xff\x01\x09\x03\x01x\x04\x01y\x07\x01a\x01b\xff\xf8\x01\x01".to_vec(),
        b"\x50\x05\x08longname\x20a value of more bytes than fit it\x01\xff\x01\x00\x05\x01a\x01b\xff\x01"
            .to_vec(),
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff".to_vec(),
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"
            .to_vec(),
    ]
}
