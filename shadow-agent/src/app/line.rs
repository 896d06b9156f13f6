//! The way of one exchange from the backlog to the report: decide, mask, replay, compare, record.
//!
//! One task an exchange. Whatever happens in it, every target that the ledger was told about gets an ending: the
//! [`Open`] guard enters the missing ones when the task is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use super::build::Sending;
use super::keeping::Keeping;
use super::masking;
use crate::backlog::Admitted;
use crate::compare::endpoint::Endpoints;
use crate::compare::{self, BaselineInputs, Comparer, Inputs, Judgement};
use crate::control::Control;
use crate::exchange::{
    Answer, Exchange, FailReason, Response, Role, SessionId, SkipReason, Timestamp, UncomparableReason,
};
use crate::guard::Vitals;
use crate::ledger::{Comparison, Ledger, TargetOutcome};
use crate::policy::adaptive::Adaptive;
use crate::policy::mask::{Masker, Sendable, request_was_masked, response_was_masked};
use crate::policy::select::{Mode, Plan, Selector};
use crate::policy::session::Sessions;
use crate::policy::tokens::Tokens;
use crate::ramp;
use crate::replay::{Outcome, Replayer};
use crate::report::{Observation, TargetObservation};
use crate::runs::Run;
use crate::traces::{Contexts, Exporter, Side, Told};

/// Exchanges whose bodies are larger than this together are compared on the blocking pool, so that the runtime's
/// threads stay free to measure answers.
const COMPARE_INLINE: usize = 128 * 1024;

/// A difference that may be noise, because the baseline that would tell did not answer.
const NO_BASELINE: Judgement = Judgement {
    comparison: Comparison::Uncomparable(UncomparableReason::NoBaseline),
    differences: Vec::new(),
};

/// What becomes of an exchange that was selected.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and nearly all of them are sent")]
pub(super) enum Decision {
    /// Its request is sent.
    Send(Chosen),
    /// It is kept in a file.
    Keep,
}

/// A request that is to be replayed, and how many of its kind it stands for.
#[derive(Debug)]
pub(super) struct Chosen {
    sendable: Sendable,
    weight: f64,
}

impl Chosen {
    /// The session that the request belongs to, if order matters.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.sendable.session()
    }
}

/// The stages behind the backlog. It never changes: what replaces it (`current`) shares with it what stays the same.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) selector: Arc<Selector>,
    pub(super) masker: Arc<Masker>,
    pub(super) comparer: Arc<Comparer>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) replayer: Arc<Replayer>,
    /// The timeout of each target: what a request that timed out took at least.
    pub(super) timeouts: Vec<Duration>,
    pub(super) ledger: Arc<Ledger>,
    /// The run that exchanges selected here belong to.
    pub(super) run: Arc<Run>,
    pub(super) control: Control,
    pub(super) tasks: TaskTracker,
    /// What guards look at.
    pub(super) vitals: Arc<Vitals>,
    /// How the replays of a second are spread over the endpoints, if they have a budget.
    pub(super) budget: Option<Arc<Mutex<Adaptive>>>,
    /// The moment from which the budget counts.
    pub(super) begun: Instant,
    /// Where exchanges go that are recorded only.
    pub(super) keeping: Arc<Keeping>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) tokens: Option<Arc<Tokens>>,
    /// Whether exchanges come from a file, in which they may stand masked.
    pub(super) recorded: bool,
    /// The contexts that replayed requests carry.
    pub(super) traces: Contexts,
    /// Who is told the spans of every exchange.
    pub(super) spans: Option<Arc<Exporter>>,
}

impl Line {
    /// Decides about an exchange, and sends it on its way.
    pub(super) fn take(self: &Arc<Line>, admitted: Admitted) {
        let decided = self.decide(&admitted.exchange);
        if !matches!(decided, Err(SkipReason::Marked)) {
            let Exchange { response, times, .. } = &admitted.exchange;
            let first_byte = times.response_started.since(times.request_done);
            self.vitals.answered(compare::http_status(response), first_byte);
        }
        match decided {
            Err(reason) => self.ledger.skipped(reason),
            Ok(Decision::Keep) => self.keep(admitted),
            Ok(Decision::Send(chosen)) => {
                let open = Open::new(self);
                self.tasks.spawn(Arc::clone(self).carry(admitted, chosen, open));
            }
        }
    }

    fn has_baseline(&self) -> bool {
        self.replayer.targets().last().is_some_and(|target| target.role == Role::Baseline)
    }

    /// What sends, for the line that replaces this one.
    pub(super) fn sending(&self) -> Sending {
        Sending {
            replayer: Arc::clone(&self.replayer),
            sessions: Arc::clone(&self.sessions),
            tokens: self.tokens.clone(),
        }
    }

    pub(super) fn decide(&self, exchange: &Exchange) -> Result<Decision, SkipReason> {
        if !self.control.enabled() {
            return Err(SkipReason::Disabled);
        }
        let decision = self.decide_enabled(exchange);
        if let (Some(tokens), Err(_) | Ok(Decision::Keep)) = (&self.tokens, &decision) {
            // No target will issue anything in their place, and none shall be sent them later.
            self.replayer.expect(&tokens.issued(&exchange.response));
        }
        decision
    }

    fn decide_enabled(&self, exchange: &Exchange) -> Result<Decision, SkipReason> {
        let Plan { mode, share } = self.selector.decide(exchange)?;
        if mode == Mode::RecordOnly {
            return Ok(Decision::Keep);
        }
        let portion = self.control.replaying().share();
        if !ramp::holds(portion, exchange.connection) {
            return Err(SkipReason::Ramp);
        }
        let weight = 1.0 / (share.0 * portion.0);
        let weight = match &self.budget {
            Some(budget) => {
                let endpoint = self.endpoint(exchange);
                let chosen = locked(budget).choose(&endpoint, exchange.id, self.begun.elapsed());
                weight * chosen.ok_or(SkipReason::Sampled)?
            }
            None => weight,
        };
        let sendable = self.sendable(exchange)?;
        let sendable = if mode == Mode::DryRun { sendable.as_dry_run() } else { sendable };
        Ok(Decision::Send(Chosen { sendable, weight }))
    }

    fn sendable(&self, exchange: &Exchange) -> Result<Sendable, SkipReason> {
        let sendable = self.masker.sendable(exchange);
        if sendable.as_ref().is_err_and(|reason| *reason == SkipReason::MaskFailed) {
            self.tell_mask_failures();
        }
        let sendable = sendable?;
        let sendable = sendable.in_session(self.sessions.of(exchange));
        Ok(match &self.tokens {
            Some(tokens) => sendable.issuing(tokens.issued(&exchange.response)),
            None => sendable,
        })
    }

    /// Says what the self-check of masking found, to people and to the guards.
    fn tell_mask_failures(&self) {
        self.vitals.mask_failed(masking::tell_failures(&self.masker));
    }

    /// Has an exchange kept in a file.
    pub(super) fn keep(&self, admitted: Admitted) {
        self.tell_mask_failures();
        if let Err(reason) = self.keeping.take(admitted, &self.masker) {
            self.ledger.skipped(reason);
        }
    }

    /// The endpoint, by the name that people may see.
    fn endpoint(&self, exchange: &Exchange) -> Arc<str> {
        let path = self.masker.path_to_name(exchange.request.path());
        self.endpoints.endpoint(&exchange.request.method, &path)
    }

    /// Lets the budget know where replays find something.
    fn learn(&self, seen: &Observation) {
        let Some(budget) = &self.budget else { return };
        let excused = seen.production_status >= 500;
        let targets = self.replayer.targets().iter().zip(&seen.targets);
        let mut candidates = targets.filter(|(info, _)| info.role == Role::Candidate);
        let bad = candidates.any(|(_, target)| match target.outcome {
            TargetOutcome::Answered(Comparison::Mismatch) | TargetOutcome::Failed(_) => true,
            TargetOutcome::Answered(_) => !excused && target.status.is_some_and(|status| status >= 500),
            TargetOutcome::Dropped(_) => false,
        });
        locked(budget).learn(&seen.endpoint, bad);
    }

    pub(super) async fn carry(self: Arc<Line>, admitted: Admitted, chosen: Chosen, mut open: Open) {
        let Chosen { sendable, weight } = chosen;
        let sendable = Arc::new(sendable);
        let began = Timestamp::now();
        let outcomes = self.replayer.replay(Arc::clone(&sendable)).await;
        let told = self.spans.as_ref().map(|_| {
            let sides = outcomes.iter().map(|outcome| Side::of(outcome, began));
            Told::new(&admitted.exchange, sides.collect())
        });
        let large = body_bytes(&outcomes) > COMPARE_INLINE;
        let judge = {
            let line = Arc::clone(&self);
            move || {
                let mut observation = match line.recorded {
                    true => line.judge_recorded(&admitted.exchange, sendable.altered(), &outcomes),
                    false => line.judge(&admitted.exchange, sendable.altered(), &outcomes),
                };
                observation.weight = weight;
                (admitted, observation)
            }
        };
        let (admitted, observation) = match large {
            false => judge(),
            // A panic in the comparison is already reported by the pool; the guard closes the books.
            true => match self.tasks.spawn_blocking(judge).await {
                Ok(judged) => judged,
                Err(_) => return,
            },
        };
        for target in &observation.targets {
            open.end(target.outcome);
        }
        if let (Some(spans), Some(told)) = (&self.spans, told) {
            spans.offer(told.spans(&self.traces, self.replayer.targets(), &observation));
        }
        self.tell_mask_failures();
        self.vitals.ended(&observation);
        self.learn(&observation);
        self.run.report().record(observation);
        drop(admitted);
    }

    /// Judges answers to an exchange that may have been masked when it was recorded. A masked request is not the one that
    /// production answered; where production's response is masked, the answers are masked likewise before they are compared.
    fn judge_recorded(&self, exchange: &Exchange, altered: bool, outcomes: &[Outcome]) -> Observation {
        let altered = altered || request_was_masked(&exchange.request);
        if !response_was_masked(&exchange.response) {
            return self.judge(exchange, altered, outcomes);
        }
        if let Ok((exchange, outcomes)) = self.masked_alike(exchange, outcomes) {
            return self.judge(&exchange, altered, &outcomes);
        }
        let mut observation = self.judge(exchange, altered, outcomes);
        for target in &mut observation.targets {
            if let TargetOutcome::Answered(comparison) = &mut target.outcome {
                *comparison = Comparison::Uncomparable(UncomparableReason::MaskedResponse);
                target.differences.clear();
            }
        }
        observation
    }

    /// Production's response and the answers, masked by the rules of now: those of the recording may have been others.
    fn masked_alike(
        &self,
        exchange: &Exchange,
        outcomes: &[Outcome],
    ) -> Result<(Exchange, Vec<Outcome>), SkipReason> {
        let response = self.masker.as_recorded(&exchange.response)?;
        let outcomes = outcomes.iter().map(|outcome| match outcome {
            Outcome::Answered(answer) => {
                let response = self.masker.as_recorded(&answer.response)?;
                Ok(Outcome::Answered(Answer { response, ..answer.clone() }))
            }
            outcome => Ok(outcome.clone()),
        });
        Ok((Exchange { response, ..exchange.clone() }, outcomes.collect::<Result<_, _>>()?))
    }

    fn judge(&self, exchange: &Exchange, altered: bool, outcomes: &[Outcome]) -> Observation {
        let targets = self.replayer.targets();
        let answer = |role: Role| {
            targets.iter().zip(outcomes).find_map(|(target, outcome)| match outcome {
                Outcome::Answered(answer) if target.role == role => Some(&answer.response),
                _ => None,
            })
        };
        let baseline = answer(Role::Baseline);
        let (request, production) = (&exchange.request, &exchange.response);
        let judged = |role: Role, response: &Response| match role {
            Role::Candidate => {
                let (candidate, request_altered) = (response, altered);
                let inputs = Inputs { request, request_altered, production, candidate, baseline };
                let judgement = self.comparer.judge(&inputs);
                let noise_unknown = self.has_baseline() && baseline.is_none();
                match judgement.comparison {
                    Comparison::Mismatch if noise_unknown => NO_BASELINE,
                    _ => judgement,
                }
            }
            Role::Baseline => self.comparer.judge_baseline(&BaselineInputs {
                request,
                request_altered: altered,
                production,
                baseline: response,
                candidate: answer(Role::Candidate),
            }),
        };
        let ends = targets.iter().zip(outcomes).zip(&self.timeouts);
        let ends = ends.map(|((target, outcome), &timeout)| match outcome {
            Outcome::Answered(answered) => {
                let Judgement { comparison, differences } = judged(target.role, &answered.response);
                TargetObservation {
                    outcome: TargetOutcome::Answered(comparison),
                    status: Some(compare::http_status(&answered.response)),
                    first_byte: answered.first_byte,
                    differences,
                }
            }
            Outcome::Failed(reason) => TargetObservation {
                outcome: TargetOutcome::Failed(*reason),
                status: None,
                first_byte: (*reason == FailReason::Timeout).then_some(timeout),
                differences: Vec::new(),
            },
            Outcome::Dropped(reason) => TargetObservation {
                outcome: TargetOutcome::Dropped(*reason),
                status: None,
                first_byte: None,
                differences: Vec::new(),
            },
        });
        Observation {
            endpoint: self.endpoint(exchange),
            exchange: exchange.id,
            connection: exchange.connection,
            time: exchange.times.response_done,
            target: self.masker.keep_target(&exchange.request),
            production_status: compare::http_status(&exchange.response),
            production_first_byte: exchange.times.response_started.since(exchange.times.request_done),
            targets: ends.collect(),
            weight: 1.0,
        }
    }
}

fn locked(budget: &Mutex<Adaptive>) -> MutexGuard<'_, Adaptive> {
    // A panic elsewhere while the lock was held leaves figures that are still figures.
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

fn body_bytes(outcomes: &[Outcome]) -> usize {
    let bodies = outcomes.iter().map(|outcome| match outcome {
        Outcome::Answered(answer) => answer.response.body.len(),
        Outcome::Failed(_) | Outcome::Dropped(_) => 0,
    });
    bodies.sum()
}

/// What the ledger still waits for from one exchange, target by target.
pub(super) struct Open {
    ledger: Arc<Ledger>,
    run: Arc<Run>,
    next: usize,
    targets: usize,
}

impl Open {
    pub(super) fn new(line: &Line) -> Open {
        line.ledger.selected();
        line.run.selected();
        Open {
            ledger: Arc::clone(&line.ledger),
            run: Arc::clone(&line.run),
            next: 0,
            targets: line.replayer.targets().len(),
        }
    }

    fn end(&mut self, outcome: TargetOutcome) {
        self.ledger.ended(self.next, outcome);
        self.run.replayed(self.next, outcome);
        self.next += 1;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        while self.next < self.targets {
            self.end(TargetOutcome::Failed(FailReason::Shutdown));
        }
    }
}
