//! Whether requests may be sent at all: the kill switch, and the end of the agent. It knows no target.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::exchange::DropReason;

/// Shared by all targets of one replayer.
#[derive(Debug)]
pub(super) struct Gate {
    control: Control,
    /// Nothing new is sent.
    closing: CancellationToken,
    /// What is under way ends now.
    aborting: CancellationToken,
}

impl Gate {
    pub(super) fn new(control: Control) -> Gate {
        Gate { control, closing: CancellationToken::new(), aborting: CancellationToken::new() }
    }

    /// Whether a request may be sent at this instant.
    ///
    /// # Errors
    /// The reason why not.
    pub(super) fn check(&self) -> Result<(), DropReason> {
        if self.closing.is_cancelled() { Err(DropReason::Shutdown) } else { self.check_switch() }
    }

    /// Whether the kill switch lets a request that was admitted be sent at this instant.
    ///
    /// # Errors
    /// [`DropReason::Disabled`] when it does not.
    pub(super) fn check_switch(&self) -> Result<(), DropReason> {
        if self.control.enabled() { Ok(()) } else { Err(DropReason::Disabled) }
    }

    /// Whether the agent itself stood still since then.
    pub(super) fn stood_still_since(&self, began: Instant) -> bool {
        self.control.standstill().since(began.into_std(), Instant::now().into_std())
    }

    /// Waits until nothing may be sent any more; gives the reason.
    pub(super) async fn closed(&self) -> DropReason {
        let mut state = self.control.subscribe();
        tokio::select! {
            biased;
            () = self.closing.cancelled() => DropReason::Shutdown,
            _ = state.wait_for(|state| !state.enabled) => DropReason::Disabled,
        }
    }

    /// Waits until the kill switch leaves that position.
    pub(super) async fn thrown_from(&self, enabled: bool) {
        let mut state = self.control.subscribe();
        if state.wait_for(|state| state.enabled != enabled).await.is_err() {
            // Nobody can throw it any more.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the agent is ending.
    pub(super) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Waits until what is under way must end.
    pub(super) async fn aborting(&self) {
        self.aborting.cancelled().await;
    }

    /// From now on nothing new is sent.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// From now on nothing is under way.
    pub(super) fn abort(&self) {
        self.closing.cancel();
        self.aborting.cancel();
    }
}
