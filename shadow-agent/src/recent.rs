//! A map that remembers only what was used last: the rest is forgotten, so that it never grows.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;

/// A map of so many entries at most, of which the one that was used longest ago goes first. `Debug` shows no entry.
pub(crate) struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// The keys by when they were used.
    order: BTreeMap<u64, K>,
    clock: u64,
    most: usize,
}

impl<K, V> fmt::Debug for Recent<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recent({} entries)", self.entries.len())
    }
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    pub(crate) fn new(most: usize) -> Recent<K, V> {
        Recent { entries: HashMap::new(), order: BTreeMap::new(), clock: 0, most }
    }

    /// The entry of `key`, which counts as a use.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        let (used, value) = self.entries.get_mut(key)?;
        self.order.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.order.insert(self.clock, *key);
        Some(value)
    }

    /// Remembers an entry, and forgets the one that was used longest ago if there are too many.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.entries.insert(key, (self.clock, value));
        if self.entries.len() > self.most {
            self.forget();
        }
    }

    /// Forgets the entry that was used longest ago; gives it.
    pub(crate) fn forget(&mut self) -> Option<V> {
        let (_, key) = self.order.pop_first()?;
        self.entries.remove(&key).map(|(_, value)| value)
    }

    /// The entry that was used longest ago.
    pub(crate) fn oldest(&self) -> Option<&V> {
        let key = self.order.values().next()?;
        self.entries.get(key).map(|(_, value)| value)
    }

    /// Forgets an entry; gives it.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (used, value) = self.entries.remove(key)?;
        self.order.remove(&used);
        Some(value)
    }

    /// Whether the next entry has another one forgotten.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.most
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_is_forgotten_at_the_bound() {
        let mut recent = Recent::new(3);
        (0..3).for_each(|number| recent.insert(number, number));
        assert_eq!(recent.get(&0), Some(&mut 0), "all fit");
        recent.insert(3, 3);
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.len(), 3);
        assert_eq!(recent.oldest(), Some(&2));
        recent.insert(0, 7);
        assert_eq!(recent.get(&0), Some(&mut 7), "replaced");
        assert_eq!(recent.len(), 3);
        assert_eq!((recent.remove(&3), recent.forget(), recent.len()), (Some(3), Some(2), 1));
    }
}
