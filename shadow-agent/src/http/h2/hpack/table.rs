//! The tables of one direction: the static one, and what is known of the dynamic one (RFC 7541, section 2.3).
//!
//! What is given for an index is right or unknown, never wrong: entries are numbered from the newest on, so whoever
//! knows all that came last knows their indices, whatever there was before, and whatever the peer has evicted since.

use std::collections::VecDeque;

use bytes::Bytes;

use super::static_table::ENTRIES;
use super::{HpackError, MAX_TABLE};

/// What an entry counts beside its name and value (RFC 7541, section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// An entry, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Its name and value.
    Known(Bytes, Bytes),
    /// Its name was never seen; name and value have at least so many bytes.
    Unknown { least: usize },
}

impl Entry {
    fn size(&self) -> usize {
        ENTRY_OVERHEAD
            + match self {
                Entry::Known(name, value) => name.len() + value.len(),
                Entry::Unknown { least } => *least,
            }
    }
}

#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// Whether the peer's table has just that maximum; if not, it may be any.
    is_exact: bool,
    /// Whether the peer's table may hold older entries than these.
    has_older: bool,
}

impl Table {
    /// An empty table with that maximum.
    pub(super) fn new(max: usize) -> Table {
        Table { entries: VecDeque::new(), size: 0, max, is_exact: true, has_older: false }
    }

    /// From here on neither what the peer's table holds nor its maximum is known.
    pub(super) fn forget(&mut self) {
        *self = Table { is_exact: false, has_older: true, ..Table::new(MAX_TABLE) };
    }

    /// Bytes allocated, about.
    pub(super) fn buffered(&self) -> usize {
        self.size + self.entries.capacity() * size_of::<Entry>()
    }

    /// The entry with that index, in the address space of both tables.
    pub(super) fn get(&self, index: usize) -> Result<Entry, HpackError> {
        let at = index.checked_sub(1).ok_or(HpackError::Index)?;
        if let Some((name, value)) = ENTRIES.get(at) {
            return Ok(Entry::Known(
                Bytes::from_static(name.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            ));
        }
        match self.entries.get(at - ENTRIES.len()) {
            Some(entry) => Ok(entry.clone()),
            None if self.has_older => Ok(Entry::Unknown { least: 0 }),
            None => Err(HpackError::Index),
        }
    }

    /// The peer changes the maximum (RFC 7541, section 6.3).
    pub(super) fn resize(&mut self, max: usize) {
        self.is_exact = max <= MAX_TABLE;
        self.max = max.min(MAX_TABLE);
        self.evict(0);
        if max < ENTRY_OVERHEAD {
            self.has_older = false;
        }
    }

    /// The peer inserts an entry (RFC 7541, section 4.4).
    pub(super) fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict(size);
        if size <= self.max {
            self.size += size;
            self.entries.push_front(entry);
        } else if !self.is_exact {
            // It has a place in the peer's table, perhaps, but none here.
            let entry = Entry::Unknown { least: 0 };
            self.size += entry.size();
            self.entries.push_front(entry);
        }
    }

    /// Makes room for so many bytes. What the peer's table has no room for either is gone, and all that is older.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            self.has_older = !self.is_exact;
            let Some(entry) = self.entries.pop_back() else { break };
            self.size -= entry.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &'static str, value: usize) -> Entry {
        Entry::Known(Bytes::from_static(name.as_bytes()), vec![b'v'; value].into())
    }

    fn names(table: &Table) -> Vec<String> {
        let name = |entry: &Entry| match entry {
            Entry::Known(name, _) => String::from_utf8(name.to_vec()).unwrap(),
            Entry::Unknown { .. } => "?".to_owned(),
        };
        table.entries.iter().map(name).collect()
    }

    #[test]
    fn entries_are_evicted_at_the_maximum_and_not_before() {
        let mut table = Table::new(100);
        table.insert(entry("a", 17));
        table.insert(entry("b", 17));
        assert_eq!((names(&table), table.size), (vec!["b".into(), "a".into()], 100));
        table.insert(entry("c", 0));
        assert_eq!(names(&table), ["c", "b"]);
        table.insert(entry("d", 67));
        assert_eq!(names(&table), ["d"], "as large as the table");
        table.insert(entry("e", 68));
        assert_eq!((names(&table), table.size), (vec![], 0), "larger than the table, which empties it");
        assert_eq!(table.get(62), Err(HpackError::Index));
    }

    #[test]
    fn a_smaller_maximum_evicts_at_once() {
        let mut table = Table::new(4096);
        for name in ["a", "b", "c"] {
            table.insert(entry(name, 17));
        }
        table.resize(149);
        assert_eq!(names(&table), ["c", "b"]);
        table.resize(0);
        assert!(names(&table).is_empty());
        table.resize(100);
        assert_eq!(table.get(62), Err(HpackError::Index));
    }

    #[test]
    fn what_is_older_than_the_start_is_unknown_until_it_must_be_gone() {
        let mut table = Table::new(4096);
        table.insert(entry("a", 17));
        table.forget();
        table.insert(entry("b", 17));
        assert_eq!(table.get(62), Ok(entry("b", 17)));
        assert_eq!(table.get(63), Ok(Entry::Unknown { least: 0 }));
        table.resize(100);
        assert_eq!(table.get(63), Ok(Entry::Unknown { least: 0 }), "there is room for one");
        table.insert(entry("c", 17));
        table.insert(entry("d", 17));
        assert_eq!(names(&table), ["d", "c"]);
        assert_eq!(table.get(64), Err(HpackError::Index), "the table is full of what is known");
        table.forget();
        table.resize(0);
        assert_eq!(table.get(62), Err(HpackError::Index), "nothing has room");
    }

    #[test]
    fn a_table_of_any_size_may_hold_more_than_is_kept() {
        let mut table = Table::new(4096);
        table.forget();
        for name in ["a", "b", "c"] {
            table.insert(entry(name, MAX_TABLE / 2 - ENTRY_OVERHEAD - 1));
        }
        assert_eq!(names(&table), ["c", "b"]);
        assert_eq!(table.get(64), Ok(Entry::Unknown { least: 0 }));
        table.insert(entry("d", MAX_TABLE));
        table.insert(entry("e", 0));
        assert_eq!(
            (names(&table), table.get(64)),
            (vec!["e".into(), "?".into()], Ok(Entry::Unknown { least: 0 }))
        );
    }

    #[test]
    fn tables_beyond_the_bound_are_known_as_far_as_the_bound() {
        for (max, kept) in [(MAX_TABLE, true), (MAX_TABLE + 1, false)] {
            let mut table = Table::new(4096);
            table.resize(max);
            table.insert(entry("a", 17));
            table.insert(entry("b", max - ENTRY_OVERHEAD - 1));
            let newest = table.get(62).unwrap();
            assert_eq!(matches!(newest, Entry::Known(..)), kept, "an entry of {max}");
            assert_eq!(table.get(63).is_ok(), !kept, "older ones in a table of {max}");
            assert!(table.size <= MAX_TABLE);
        }
    }
}
