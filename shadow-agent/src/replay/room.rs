//! The bound on the bodies of answers that are held until the other targets have answered too and all are compared.
//!
//! A target that answers at once would otherwise fill the memory while another one keeps everybody waiting. Bodies still
//! being read are not counted here: every target's concurrency bounds their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Room for the answers of all targets together; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Room {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn new(limit: usize) -> Room {
        Room { held: Arc::default(), limit }
    }

    /// Whether no further answer should be asked for.
    pub(super) fn is_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= self.limit
    }

    /// The same bytes, which take up room until nobody refers to them any more.
    pub(super) fn hold(&self, body: Bytes) -> Bytes {
        if body.is_empty() {
            return body;
        }
        self.held.fetch_add(body.len(), Ordering::Relaxed);
        Bytes::from_owner(Held { body, room: Arc::clone(&self.held) })
    }
}

struct Held {
    body: Bytes,
    room: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_until_the_last_reference_goes() {
        let room = Room::new(4);
        let first = room.hold(Bytes::from_static(b"abc"));
        assert!(!room.is_full());
        let second = room.clone().hold(Bytes::from_static(b"d"));
        assert!(room.is_full());
        let part = first.slice(1..2);
        drop(first);
        assert!(room.is_full());
        drop(part);
        assert!(!room.is_full());
        assert_eq!(second, "d");
    }
}
