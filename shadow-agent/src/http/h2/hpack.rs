//! Decoding of HPACK (RFC 7541) as a passive observer has to do it: with a table that may be known in part only.
//!
//! A decoder that was there from the first block on knows all of the table. One that joined later, or that missed a
//! block, knows what was inserted since; whatever refers to an older entry is said to be unknown, and decoding goes on.

use bytes::Bytes;

mod huffman;
#[cfg(test)]
pub(super) use huffman::tests as huffman_for_tests;
mod integer;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

use integer::integer;
use table::{Entry, Table};

/// The largest dynamic table followed, in bytes as RFC 7541, section 4.1, counts them. What a peer keeps beyond is
/// unknown here.
pub const MAX_TABLE: usize = 64 << 10;

/// A value of at most so many bytes shares an allocation with its name, and a string may leave as many of its own unused.
/// More would outlive the entry uncounted, because other fields take their names from it.
const MAX_UNCOUNTED: usize = 128;

/// The size of a dynamic table until somebody changes it (RFC 9113, section 6.5.2).
const DEFAULT_TABLE: usize = 4096;

/// Why a block cannot be decoded. The table is unknown from there on (RFC 9113, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The block ends within a representation.
    #[error("the header block ends too early")]
    Truncated,
    /// An integer beyond 32 bits, or one with more octets than that takes.
    #[error("an integer in the header block is too large")]
    Integer,
    /// An index that no entry has.
    #[error("the header block refers to an entry that does not exist")]
    Index,
    /// Bits that are no Huffman code, or padding that is not the start of EOS.
    #[error("a string in the header block is not Huffman-coded as it says")]
    Huffman,
    /// The table's size changes behind the first field.
    #[error("the header block changes the size of the table behind its start")]
    SizeUpdate,
}

/// A field as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Its name and value.
    Known(Bytes, Bytes),
    /// It refers to an entry of the table that was never seen.
    Unknown,
}

/// Decodes the header blocks of one direction, in order.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

impl Decoder {
    /// A decoder that is there from the first block on.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder { table: Table::new(DEFAULT_TABLE) }
    }

    /// A decoder that joins: blocks came before.
    #[must_use]
    pub fn joined() -> Decoder {
        let mut decoder = Decoder::new();
        decoder.forget();
        decoder
    }

    /// Some block was not seen: from here on nothing older is known.
    pub fn forget(&mut self) {
        self.table.forget();
    }

    /// Bytes allocated, about.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.table.buffered()
    }

    /// Decodes one whole block, and gives its fields in order.
    ///
    /// # Errors
    /// [`HpackError`] when the block is not HPACK. Fields before the fault have been given, and the table is unknown.
    pub fn decode(&mut self, block: &[u8], give: &mut dyn FnMut(Field)) -> Result<(), HpackError> {
        let decoded = self.fields(block, give);
        if decoded.is_err() {
            self.forget();
        }
        decoded
    }

    fn fields(&mut self, block: &[u8], give: &mut dyn FnMut(Field)) -> Result<(), HpackError> {
        let mut rest = block;
        let mut at_start = true;
        while let Some(&first) = rest.first() {
            if first & 0b1110_0000 == 0b0010_0000 {
                if !at_start {
                    return Err(HpackError::SizeUpdate);
                }
                let size = integer(&mut rest, 5)?;
                self.table.resize(size);
                continue;
            }
            at_start = false;
            if first & 0b1000_0000 != 0 {
                let index = integer(&mut rest, 7)?;
                give(match self.table.get(index)? {
                    Entry::Known(name, value) => Field::Known(name, value),
                    Entry::Unknown { .. } => Field::Unknown,
                });
                continue;
            }
            // With indexing, without, or never indexed: who only watches treats the last two alike.
            let indexed = first & 0b0100_0000 != 0;
            let entry = self.literal(&mut rest, if indexed { 6 } else { 4 })?;
            give(match &entry {
                Entry::Known(name, value) => Field::Known(name.clone(), value.clone()),
                Entry::Unknown { .. } => Field::Unknown,
            });
            if indexed {
                self.table.insert(entry);
            }
        }
        Ok(())
    }

    /// A field whose value, and perhaps whose name, is spelt out (RFC 7541, section 6.2).
    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Result<Entry, HpackError> {
        let index = integer(rest, prefix)?;
        if index == 0 {
            let mut text = Vec::new();
            string(rest, &mut text)?;
            let name = text.len();
            string(rest, &mut text)?;
            if text.len() - name > MAX_UNCOUNTED {
                let value = text.split_off(name);
                return Ok(Entry::Known(kept(text), kept(value)));
            }
            // Name and value share one allocation.
            let mut value = kept(text);
            let name = value.split_to(name.min(value.len()));
            return Ok(Entry::Known(name, value));
        }
        let entry = self.table.get(index)?;
        let mut value = Vec::new();
        string(rest, &mut value)?;
        Ok(match entry {
            Entry::Known(name, _) => Entry::Known(name, kept(value)),
            Entry::Unknown { .. } => Entry::Unknown { least: value.len() },
        })
    }
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

/// Text that stays.
fn kept(mut text: Vec<u8>) -> Bytes {
    if text.capacity() - text.len() > MAX_UNCOUNTED {
        text.shrink_to_fit();
    }
    text.into()
}

/// Reads a string literal (RFC 7541, section 5.2), and appends it to `text`.
fn string(rest: &mut &[u8], text: &mut Vec<u8>) -> Result<(), HpackError> {
    let coded = rest.first().is_some_and(|first| first & 0b1000_0000 != 0);
    let length = integer(rest, 7)?;
    let (string, behind) = rest.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *rest = behind;
    if coded {
        huffman::decode(string, text)
    } else {
        text.extend_from_slice(string);
        Ok(())
    }
}
