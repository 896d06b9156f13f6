//! How many requests are under way at one target, and how many may wait for their turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::gate::Gate;
use crate::exchange::DropReason;

/// Requests that wait for one target at most.
pub(super) const QUEUE_REQUESTS: usize = 1024;
/// Bytes of all requests that wait for one target at most; a single larger one may still wait alone.
pub(super) const QUEUE_BYTES: usize = 32 << 20;

/// The slots of one target, given in the order asked.
#[derive(Debug)]
pub(super) struct Slots {
    free: Semaphore,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
}

/// A place in the queue, given back when dropped.
struct Place<'a> {
    slots: &'a Slots,
    bytes: usize,
}

impl Slots {
    pub(super) fn new(concurrency: usize) -> Slots {
        Slots {
            free: Semaphore::new(concurrency),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
        }
    }

    /// The number of requests waiting now.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A slot for a request of so many bytes, at once or by `deadline`.
    ///
    /// # Errors
    /// The reason why there is none: the queue is full, no slot became free in time, or `gate` closed meanwhile.
    pub(super) async fn take(
        &self,
        bytes: usize,
        deadline: Instant,
        gate: &Gate,
    ) -> Result<SemaphorePermit<'_>, DropReason> {
        // While others wait, a slot that becomes free is theirs before it can be seen here.
        if let Ok(slot) = self.free.try_acquire() {
            return Ok(slot);
        }
        let _place = self.queue(bytes).ok_or(DropReason::Queue)?;
        // Boxed, because the future of every request would be large enough to wait otherwise.
        Box::pin(self.wait(deadline, gate)).await
    }

    async fn wait(&self, deadline: Instant, gate: &Gate) -> Result<SemaphorePermit<'_>, DropReason> {
        tokio::select! {
            biased;
            reason = gate.closed() => Err(reason),
            slot = self.free.acquire() => slot.map_err(|_| DropReason::Shutdown),
            () = sleep_until(deadline) => Err(DropReason::Concurrency),
        }
    }

    fn queue(&self, bytes: usize) -> Option<Place<'_>> {
        let requests_before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Place { slots: self, bytes };
        let fits = requests_before < QUEUE_REQUESTS
            && (requests_before == 0 || bytes_before.saturating_add(bytes) <= QUEUE_BYTES);
        fits.then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.slots.waiting.fetch_sub(1, Ordering::Relaxed);
        self.slots.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::Control;

    #[test]
    fn the_queue_is_bounded_in_requests() {
        let slots = Slots::new(1);
        let mut places: Vec<_> = (0..QUEUE_REQUESTS).map(|_| slots.queue(1).expect("room")).collect();
        assert!(slots.queue(1).is_none());
        assert_eq!(slots.waiting(), QUEUE_REQUESTS, "a refused request leaves no trace");
        places.pop();
        assert!(slots.queue(1).is_some());
        drop(places);
        assert_eq!((slots.waiting(), slots.waiting_bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn the_queue_is_bounded_in_bytes() {
        // (bytes waiting already, bytes of the next, whether it fits)
        let cases = [
            (None, QUEUE_BYTES + 1, true),
            (Some(1), QUEUE_BYTES - 1, true),
            (Some(1), QUEUE_BYTES, false),
            (Some(QUEUE_BYTES), 0, true),
            (Some(1), usize::MAX, false),
        ];
        for (before, next, fits) in cases {
            let slots = Slots::new(1);
            let _place = before.map(|bytes| slots.queue(bytes).expect("alone"));
            assert_eq!(slots.queue(next).is_some(), fits, "{before:?} bytes waiting, then {next}");
        }
    }

    #[tokio::test]
    async fn a_slot_is_waited_for_until_the_deadline_or_the_end() {
        let control = Control::new(true);
        let gate = Gate::new(control.clone());
        let slots = Slots::new(1);
        let now = Instant::now();
        let later = now + Duration::from_secs(3600);
        let held = slots.take(1, now, &gate).await.expect("a free slot needs no time");
        assert_eq!(slots.take(1, now, &gate).await.err(), Some(DropReason::Concurrency));

        let (given, ()) = tokio::join!(slots.take(1, later, &gate), async { drop(held) });
        let held = given.expect("given in time");
        let (given, _) = tokio::join!(slots.take(1, later, &gate), async { control.set_enabled(false) });
        assert_eq!(given.err(), Some(DropReason::Disabled));
        control.set_enabled(true);
        let (given, ()) = tokio::join!(slots.take(1, later, &gate), async { gate.close() });
        assert_eq!(given.err(), Some(DropReason::Shutdown));
        assert_eq!(slots.waiting(), 0);
        drop(held);
    }

    #[tokio::test]
    async fn slots_are_given_in_the_order_asked() {
        let gate = Gate::new(Control::new(true));
        let slots = Slots::new(1);
        let later = Instant::now() + Duration::from_secs(3600);
        let held = slots.take(1, later, &gate).await.unwrap();
        let order = std::cell::RefCell::new(Vec::new());
        let turn = async |number: u8| {
            let slot = slots.take(1, later, &gate).await.unwrap();
            order.borrow_mut().push(number);
            drop(slot);
        };
        let barge = async {
            drop(held);
            turn(3).await;
        };
        tokio::join!(biased; turn(1), turn(2), barge);
        assert_eq!(*order.borrow(), [1, 2, 3]);
    }
}
