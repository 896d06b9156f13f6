//! The order in which flows were last used, as a list threaded through slot numbers. Holds no flow itself.

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
}

/// Slot numbers from the most recently to the least recently used.
#[derive(Debug)]
pub(super) struct Lru {
    links: Vec<Link>,
    newest: u32,
    oldest: u32,
}

impl Lru {
    pub(super) fn new() -> Lru {
        Lru { links: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// The least recently used slot.
    pub(super) fn oldest(&self) -> Option<usize> {
        (self.oldest != NONE).then_some(self.oldest as usize)
    }

    /// Makes a slot that is not in the list the most recently used one.
    pub(super) fn insert(&mut self, slot: usize) {
        if self.links.len() <= slot {
            self.links.resize(slot + 1, Link { newer: NONE, older: NONE });
        }
        let slot = slot as u32;
        let next = self.newest;
        self.set(slot, Link { newer: NONE, older: next });
        match self.links.get_mut(next as usize) {
            Some(link) => link.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }

    /// Takes a slot out of the list.
    pub(super) fn remove(&mut self, slot: usize) {
        let Some(&Link { newer, older }) = self.links.get(slot) else { return };
        match self.links.get_mut(newer as usize) {
            Some(link) => link.older = older,
            None => self.newest = older,
        }
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Makes a slot in the list the most recently used one.
    pub(super) fn touch(&mut self, slot: usize) {
        if self.newest as usize != slot {
            self.remove(slot);
            self.insert(slot);
        }
    }

    /// Makes a slot in the list the first to be evicted.
    pub(super) fn demote(&mut self, slot: usize) {
        if self.oldest as usize == slot {
            return;
        }
        self.remove(slot);
        let last = self.oldest;
        self.set(slot as u32, Link { newer: last, older: NONE });
        match self.links.get_mut(last as usize) {
            Some(link) => link.older = slot as u32,
            None => self.newest = slot as u32,
        }
        self.oldest = slot as u32;
    }

    fn set(&mut self, slot: u32, link: Link) {
        if let Some(place) = self.links.get_mut(slot as usize) {
            *place = link;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn drain(mut lru: Lru) -> Vec<usize> {
        std::iter::from_fn(|| {
            let slot = lru.oldest()?;
            lru.remove(slot);
            Some(slot)
        })
        .collect()
    }

    proptest! {
        #[test]
        fn it_orders_as_a_plain_queue_does(steps in prop::collection::vec((0usize..6, 0u8..3), 0..60)) {
            let mut lru = Lru::new();
            let mut model: VecDeque<usize> = VecDeque::new();
            for (slot, step) in steps {
                let known = model.iter().position(|&other| other == slot);
                if let Some(at) = known {
                    model.remove(at);
                }
                match (known, step) {
                    (None, _) => { lru.insert(slot); model.push_back(slot); }
                    (Some(_), 0) => { lru.touch(slot); model.push_back(slot); }
                    (Some(_), 1) => { lru.demote(slot); model.push_front(slot); }
                    (Some(_), _) => lru.remove(slot),
                }
                prop_assert_eq!(lru.oldest(), model.front().copied());
            }
            prop_assert_eq!(drain(lru), Vec::from(model));
        }
    }
}
