//! The way of one exchange from the backlog to the report: decide, mask, replay, compare, record.
//!
//! One task an exchange. Whatever happens in it, every target that the ledger was told about gets an ending: the
//! [`Open`] guard enters the missing ones when the task is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::masking;
use crate::backlog::{Admitted, Receiver};
use crate::compare::endpoint::Endpoints;
use crate::compare::{self, BaselineInputs, Comparer, Inputs, Judgement};
use crate::control::Control;
use crate::exchange::{Answer, Exchange, FailReason, Response, Role, SkipReason, UncomparableReason};
use crate::ledger::{Comparison, Ledger, TargetOutcome};
use crate::policy::mask::{Masker, Sendable, request_was_masked, response_was_masked};
use crate::policy::select::Selector;
use crate::replay::{Outcome, Replayer};
use crate::report::{Observation, Report, TargetObservation};

/// Exchanges whose bodies are larger than this together are compared on the blocking pool, so that the runtime's
/// threads stay free to measure answers.
const COMPARE_INLINE: usize = 128 * 1024;

/// A difference that may be noise, because the baseline that would tell did not answer.
const NO_BASELINE: Judgement = Judgement {
    comparison: Comparison::Uncomparable(UncomparableReason::NoBaseline),
    differences: Vec::new(),
};

/// The stages behind the backlog.
pub(super) struct Line {
    pub(super) selector: Selector,
    pub(super) masker: Arc<Masker>,
    pub(super) comparer: Comparer,
    pub(super) endpoints: Endpoints,
    pub(super) replayer: Replayer,
    /// The timeout of each target: what a request that timed out took at least.
    pub(super) timeouts: Vec<Duration>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) report: Arc<Report>,
    pub(super) control: Control,
    pub(super) tasks: TaskTracker,
    /// Whether exchanges come from a file, in which they may stand masked.
    pub(super) recorded: bool,
}

impl Line {
    /// Takes exchanges until the backlog ends.
    pub(super) async fn drive(self: Arc<Line>, mut backlog: Receiver) {
        while let Some(admitted) = backlog.next().await {
            match self.decide(&admitted.exchange) {
                Err(reason) => self.ledger.skipped(reason),
                Ok(sendable) => {
                    let open = Open::new(&self.ledger, self.replayer.targets().len());
                    self.tasks.spawn(Arc::clone(&self).carry(admitted, sendable, open));
                }
            }
        }
    }

    fn has_baseline(&self) -> bool {
        self.replayer.targets().last().is_some_and(|target| target.role == Role::Baseline)
    }

    pub(super) fn decide(&self, exchange: &Exchange) -> Result<Sendable, SkipReason> {
        if !self.control.enabled() {
            return Err(SkipReason::Disabled);
        }
        self.selector.decide(exchange)?;
        let sendable = self.masker.sendable(exchange);
        if sendable.as_ref().is_err_and(|reason| *reason == SkipReason::MaskFailed) {
            masking::tell_failures(&self.masker);
        }
        sendable
    }

    pub(super) async fn carry(self: Arc<Line>, admitted: Admitted, sendable: Sendable, mut open: Open) {
        let sendable = Arc::new(sendable);
        let outcomes = self.replayer.replay(Arc::clone(&sendable)).await;
        let large = body_bytes(&outcomes) > COMPARE_INLINE;
        let judge = {
            let line = Arc::clone(&self);
            move || {
                let observation = match line.recorded {
                    true => line.judge_recorded(&admitted.exchange, sendable.altered(), &outcomes),
                    false => line.judge(&admitted.exchange, sendable.altered(), &outcomes),
                };
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
        masking::tell_failures(&self.masker);
        self.report.record(observation);
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
            endpoint: self
                .endpoints
                .endpoint(&exchange.request.method, &self.masker.path_to_name(exchange.request.path())),
            exchange: exchange.id,
            connection: exchange.connection,
            time: exchange.times.response_done,
            target: self.masker.keep_target(&exchange.request),
            production_status: compare::http_status(&exchange.response),
            production_first_byte: exchange.times.response_started.since(exchange.times.request_done),
            targets: ends.collect(),
        }
    }
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
    next: usize,
    targets: usize,
}

impl Open {
    pub(super) fn new(ledger: &Arc<Ledger>, targets: usize) -> Open {
        ledger.selected();
        Open { ledger: Arc::clone(ledger), next: 0, targets }
    }

    fn end(&mut self, outcome: TargetOutcome) {
        self.ledger.ended(self.next, outcome);
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
