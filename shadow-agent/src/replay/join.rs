//! Polls the sending to all targets side by side, in random order, in one task. It knows nothing of targets.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// The outputs of all futures, in the order given; each is first polled in another place of a random order.
///
/// A future that panics counts as `on_panic`, and disturbs no other.
pub(super) async fn join<F: Future>(
    futures: impl Iterator<Item = F>,
    on_panic: impl Fn() -> F::Output,
) -> Vec<F::Output> {
    let mut pending: Vec<(usize, Pin<Box<F>>)> = futures.map(Box::pin).enumerate().collect();
    let mut ended: Vec<(usize, F::Output)> = Vec::with_capacity(pending.len());
    fastrand::shuffle(&mut pending);
    poll_fn(|cx| {
        pending.retain_mut(|(position, future)| {
            // The future is dropped when it has panicked, so nobody sees it in a broken state.
            let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
            match polled.unwrap_or_else(|_| Poll::Ready(on_panic())) {
                Poll::Ready(output) => {
                    ended.push((*position, output));
                    false
                }
                Poll::Pending => true,
            }
        });
        if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ended.sort_unstable_by_key(|(position, _)| *position);
    ended.into_iter().map(|(_, output)| output).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn outputs_come_in_the_order_given_and_a_panic_disturbs_no_other() {
        let futures = (0..4).map(|number| async move {
            for _ in 0..(4 - number) {
                tokio::task::yield_now().await;
            }
            assert_ne!(number, 2, "planted");
            Some(number)
        });
        assert_eq!(join(futures, || None).await, [Some(0), Some(1), None, Some(3)]);
    }

    #[tokio::test]
    async fn every_order_of_beginning_occurs() {
        let mut orders = HashSet::new();
        for _ in 0..1000 {
            let order = RefCell::new(Vec::new());
            let order_ref = &order;
            join((0..3).map(|number| async move { order_ref.borrow_mut().push(number) }), || ()).await;
            orders.insert(order.into_inner());
        }
        assert_eq!(orders.len(), 6);
    }
}
