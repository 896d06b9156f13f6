//! Sends selected requests to shadow hosts and reads their answers.
//!
//! A request is replayed by the protocol version that production was asked by. It takes no task of its own: whoever
//! awaits [`Replayer::replay`] drives its connections, save those of HTTP/2, which many requests share and which have a
//! task each. Every target has its own limits, queue and connections, and none waits for another. Nothing here sees an
//! `Exchange`, decides what may be sent, or compares.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::task::TaskTracker;

use crate::config;
use crate::control::{Control, Replaying};
use crate::exchange::{Answer, DropReason, FailReason, Role, TargetInfo};
use crate::policy::mask::Sendable;
use crate::policy::tokens::{Issued, Tokens};
use crate::traces::Contexts;
use connector::Means;
use gate::Gate;
use mapping::Mapping;
use room::Room;
use target::Target;

mod breaker;
mod connection;
mod connector;
mod courier;
mod credentials;
mod gate;
mod http2;
mod idempotency;
mod join;
mod key;
mod mapping;
mod marks;
mod names;
mod order;
mod own;
mod pool;
mod rate;
mod request;
mod room;
mod slots;
mod socket;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod unsendable;

pub use courier::Courier;
pub use credentials::CredentialsError;
pub use key::Key;
pub use names::Lookup;
pub use own::{Registrar, Registration};
pub use tls::TlsError;
pub(crate) use tls::is_server_name;

/// How often idle connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What replaying needs to know beside `config.replay`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `capture.mark`: the `SO_MARK` of our own sockets; 0 turns it off.
    pub mark: u32,
    /// `limits.body`: the largest body of an answer, in bytes.
    pub body_limit: usize,
    /// The bytes of answers, of all targets together, that may wait to be compared; beyond, requests are dropped.
    pub held_limit: usize,
    /// Where our own sockets are registered, each before its first byte.
    pub own: Registrar,
    /// The trace contexts that requests carry.
    pub traces: Contexts,
    /// How long a request of a session waits for others of it that began earlier and are seen later.
    pub settle: Duration,
    /// Where tokens are, if targets issue their own.
    pub tokens: Option<Arc<Tokens>>,
    /// How the targets' names become addresses.
    pub lookup: Lookup,
}

/// How one request ended at one target.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was sent and answered.
    Answered(Answer),
    /// It has no usable answer.
    Failed(FailReason),
    /// It was not sent.
    Dropped(DropReason),
}

/// Why replaying cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A target's URL has another scheme than `http` and `https`, no host, credentials, or a query.
    #[error(
        "the url `{url}` of replay target `{target}` cannot be replayed to; give it as http://HOST[:PORT][/PREFIX] or https://…"
    )]
    Url {
        /// The target's name.
        target: String,
        /// What was configured, without credentials.
        url: String,
    },
    /// A header that is to be set or removed is not valid, or belongs to the connection.
    #[error(
        "the header `{name}` of replay target `{target}` is not valid or not for an operator to set; \
         correct it or take it out of `headers`"
    )]
    Header {
        /// The target's name.
        target: String,
        /// The header's name.
        name: String,
    },
    /// A concurrency limit of zero, or one too large to count.
    #[error(
        "the concurrency {value} of replay target `{target}` is out of range; give 1 to {max}, such as 64",
        max = target::MAX_CONCURRENCY
    )]
    Concurrency {
        /// The target's name.
        target: String,
        /// What was configured.
        value: usize,
    },
    /// A rate that is not a number above zero.
    #[error(
        "the rate {value}/s of replay target `{target}` is out of range; give more than 0, such as 500/s"
    )]
    Rate {
        /// The target's name.
        target: String,
        /// What was configured, in requests per second.
        value: f64,
    },
    /// A timeout of zero.
    #[error("the timeout of replay target `{target}` is 0; give how long an answer may take, such as 5s")]
    Timeout {
        /// The target's name.
        target: String,
    },
    /// TLS cannot be configured.
    #[error("the TLS settings of replay target `{target}` are of no use: {error}")]
    Tls {
        /// The target's name.
        target: String,
        /// What is wrong, and the remedy.
        error: TlsError,
    },
    /// A credential of the target's own cannot be read.
    #[error("the credentials of replay target `{target}` are of no use: {error}")]
    Credentials {
        /// The target's name.
        target: String,
        /// What is wrong, and the remedy; never the value.
        error: CredentialsError,
    },
    /// There is no asynchronous runtime on this thread.
    #[error("replay was started outside of a tokio runtime; start it from within one")]
    NoRuntime,
}

/// Checks what TLS to a target needs: files, names, authorities.
///
/// # Errors
/// What is of no use, and the remedy.
pub fn check_tls(target: &config::Target) -> Result<(), TlsError> {
    if target.is_tls() { tls::Tls::new(target).map(drop) } else { Ok(()) }
}

/// Checks that a target's own credentials can be read.
///
/// # Errors
/// What cannot, and the remedy; never a value.
pub fn check_credentials(target: &config::Target) -> Result<(), CredentialsError> {
    credentials::Credentials::new(target).map(drop)
}

/// How many connections there can be at once to a target with this concurrency limit, idle ones included.
#[must_use]
pub fn most_connections(concurrency: usize) -> usize {
    concurrency + pool::max_idle(concurrency) + http2::MAX_IDLE
}

impl ReplayError {
    fn url(target: &config::Target) -> ReplayError {
        let url = target.url.to_string();
        let credentials = target.url.authority().and_then(|authority| authority.as_str().rsplit_once('@'));
        let url =
            credentials.map_or_else(|| url.clone(), |(credentials, _)| url.replacen(credentials, "…", 1));
        ReplayError::Url { target: target.name.clone(), url }
    }
}

/// Replays requests to every configured target.
///
/// Dropping it ends what is under way.
#[derive(Debug)]
pub struct Replayer {
    targets: Arc<[Target]>,
    infos: Vec<TargetInfo>,
    mapping: Option<Arc<Mapping>>,
    gate: Arc<Gate>,
    under_way: TaskTracker,
    replaying: Replaying,
}

impl Replayer {
    /// Gets ready to send to the targets of `config`; no connection is made yet.
    ///
    /// Where the privilege for `settings.mark` is missing, it warns once and goes on without the mark.
    ///
    /// # Errors
    /// A configured value that makes no sense, or no tokio runtime on this thread.
    pub fn start(
        config: &config::Replay,
        settings: &Settings,
        control: Control,
    ) -> Result<Replayer, ReplayError> {
        let runtime = Handle::try_current().map_err(|_| ReplayError::NoRuntime)?;
        let mark = connector::usable_mark(settings.mark);
        let replaying = control.replaying().clone();
        let gate = Arc::new(Gate::new(control));
        let under_way = TaskTracker::new();
        let room = Room::new(settings.held_limit);
        let count = config.all().count();
        let mapping = settings.tokens.clone().map(|tokens| Arc::new(Mapping::new(tokens, count)));
        let candidates = config.targets.iter().map(|target| (target, Role::Candidate));
        let all = candidates.chain(config.baseline.iter().map(|target| (target, Role::Baseline)));
        let (targets, infos): (Vec<_>, Vec<_>) = all
            .enumerate()
            .map(|(position, (target, role))| {
                let info = TargetInfo { name: target.name.clone(), role };
                let means = Means {
                    mark,
                    own: settings.own.clone(),
                    lookup: settings.lookup.clone(),
                    tasks: under_way.clone(),
                    gate: Arc::clone(&gate),
                };
                let dry_run = target.dry_run.then_some(&config.dry_run);
                let mut target = Target::new(target, means, settings, room.clone())?;
                target.understand_dry_runs(dry_run)?;
                target.keep_order(settings.settle);
                target.map_tokens(mapping.as_ref(), position);
                Ok((target, info))
            })
            .collect::<Result<Vec<_>, ReplayError>>()?
            .into_iter()
            .unzip();
        let targets: Arc<[Target]> = targets.into();
        under_way.spawn_on(sweep(Arc::clone(&targets), Arc::clone(&gate)), &runtime);
        if targets.iter().any(Target::has_credentials) {
            under_way.spawn_on(reread(Arc::clone(&targets), Arc::clone(&gate)), &runtime);
        }
        Ok(Replayer { targets, infos, mapping, gate, under_way, replaying })
    }

    /// The targets in the order of every list here: candidates as configured, the baseline last.
    #[must_use]
    pub fn targets(&self) -> &[TargetInfo] {
        &self.infos
    }

    /// Sends a request to every target at the same time, in random order, and gives how it ended at each, in the order
    /// of [`Replayer::targets`].
    ///
    /// At each target requests of one session go one after the other, in the order in which production's began. One whose
    /// turn does not come within the target's timeout is dropped, so what is sent is in order whatever happens.
    ///
    /// It always completes: within twice the largest timeout, thrice that in a session, or soon after [`Replayer::shutdown`]. Dropping the future
    /// closes the connections that it used alone, resets its streams on others, and frees its places. A panic at one target counts there as
    /// [`FailReason::Closed`].
    pub async fn replay(&self, request: Arc<Sendable>) -> Vec<Outcome> {
        let _under_way = self.under_way.token();
        self.expect(request.issued());
        let sendings = self.targets.iter().enumerate().map(async |(position, target)| {
            match self.replaying.takes(position) {
                true => target.send_in_turn(&request).await,
                false => Outcome::Dropped(DropReason::Paused),
            }
        });
        join::join(sendings, || {
            tracing::error!(exchange = %request.id(), "replaying panicked; the connection was dropped");
            Outcome::Failed(FailReason::Closed)
        })
        .await
    }

    /// Notes that production issued these values, so that requests that carry them go only to targets that issued others in
    /// their place.
    pub fn expect(&self, issued: &[Issued]) {
        if let Some(mapping) = &self.mapping {
            mapping.expect(issued, Instant::now());
        }
    }

    /// Requests waiting for their turn, by target.
    #[must_use]
    pub fn queue_lengths(&self) -> Vec<usize> {
        self.targets.iter().map(Target::queue_length).collect()
    }

    /// Whether the circuit breaker holds requests back, by target.
    #[must_use]
    pub fn breakers_open(&self) -> Vec<bool> {
        self.targets.iter().map(Target::breaker_open).collect()
    }

    /// Ends: what is queued is dropped at once, what is under way gets until `deadline` from now and then fails, both
    /// with reason `shutdown`.
    ///
    /// Returns when nothing is under way any more, or what is has been told to end. Requests replayed from now on are
    /// dropped.
    pub async fn shutdown(&self, deadline: Duration) {
        let deadline = Instant::now() + deadline;
        self.gate.close();
        self.under_way.close();
        // Whether they ended by themselves or not, the answer is the same.
        let _ = timeout_at(deadline, self.under_way.wait()).await;
        self.gate.abort();
    }
}

impl Drop for Replayer {
    fn drop(&mut self) {
        self.gate.abort();
    }
}

/// Looks after idle connections until the agent ends.
async fn sweep(targets: Arc<[Target]>, gate: Arc<Gate>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = gate.closing() => break,
            _ = ticks.tick() => targets.iter().for_each(Target::sweep),
        }
    }
    targets.iter().for_each(Target::close);
}

/// Reads the targets' own credentials again when they change, until the agent ends; apart from the rest, because files
/// may be slow.
async fn reread(targets: Arc<[Target]>, gate: Arc<Gate>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = gate.closing() => return,
            _ = ticks.tick() => {}
        }
        let targets = Arc::clone(&targets);
        let reading = tokio::task::spawn_blocking(move || targets.iter().for_each(Target::reread));
        tokio::select! {
            biased;
            () = gate.closing() => return,
            // A panic in there leaves the values of before.
            _ = reading => {}
        }
    }
}
