"""How a study ends or makes room: what is decided from its state and its wishes, and how that is stored."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from sqlalchemy.orm import Session

from xsam.services.jobs import queue
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.retry import RetryDecision
from xsam.services.jobs.states import FailureKind, Wish
from xsam.services.studies import trials
from xsam.services.studies.analysis import best_trial
from xsam.services.studies.service import get
from xsam.workers.studies.state import StudyState

_MAX_NUMBERS = 5


class How(Enum):
    """What becomes of the study."""

    SUCCEEDED = auto()
    FAILED = auto()
    CANCELLED = auto()
    QUEUED = auto()
    """It goes on later, with another runner."""
    PAUSED = auto()


@dataclass(frozen=True, slots=True)
class End:
    """A decision; it is carried out once the trials that stand in its way have left."""

    how: How
    message: str
    stops: Wish | None = None
    """What running trials are asked to do meanwhile."""
    summary: dict[str, Any] | None = None

    @property
    def waits_for_all(self) -> bool:
        """Whether no trial may be left, not even a waiting one."""
        return self.stops is Wish.CANCEL


def decide(state: StudyState, wish: Wish | None) -> End | None:
    """Return how the study ends now, None while it goes on."""
    if wish is Wish.CANCEL:
        return End(How.CANCELLED, "cancelled", Wish.CANCEL)
    if state.space_error is not None or state.has_failed:
        limit = f"the limit is {state.spec.max_failures}"
        return End(How.FAILED, str(state.space_error or _failures(state, limit)), Wish.CANCEL)
    if wish is not None:
        how = How.PAUSED if wish is Wish.PAUSE else How.QUEUED
        return End(how, f"asked to {wish}", Wish.PREEMPT)
    if state.orders.hold == trials.PAUSE:
        return End(How.PAUSED, "paused: its running trials have finished")
    return _over(state) if state.is_over else None


def _over(state: StudyState) -> End:
    summary = _summary(state)
    if state.failures and summary["best_trial_id"] is None:
        return End(How.FAILED, _failures(state, "and no other has a value"))
    return End(How.SUCCEEDED, "", summary=summary)


def stop_trials(session: Session, study_lease: Lease, end: End) -> None:
    """Ask the study's trials to make way for its end; calling it again changes nothing.

    Raises:
        LeaseLostError: the study is somebody else's.
    """
    queue.touch(session, study_lease)
    if end.stops is Wish.PREEMPT:
        # Trials that come back to the queue must not be placed here again.
        get(session, study_lease.job_id)[1].runner_name = None
    trials.ask_to_stop(session, study_lease.job_id, is_cancelled=end.stops is Wish.CANCEL, why=end.message)


def write(session: Session, lease: Lease, end: End) -> None:
    """Store a study's end.

    Raises:
        LeaseLostError: the study is somebody else's.
    """
    match end.how:
        case How.SUCCEEDED:
            queue.complete(session, lease, summary=end.summary or {})
        case How.CANCELLED:
            queue.finish_cancelled(session, lease)
        case How.FAILED:
            decision = RetryDecision(False, 0.0, "a study does not fail by chance")
            queue.fail(session, lease, kind=FailureKind.USER, message=end.message, decision=decision)
        case How.QUEUED:
            queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=end.message)
        case How.PAUSED:
            queue.touch(session, lease, wish=Wish.PAUSE)
            queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=end.message)
    get(session, lease.job_id)[1].runner_name = None


def _failures(state: StudyState, and_so: str) -> str:
    failures = state.failures
    reasons = Counter((trial.failure_kind, trial.failure_message) for trial in failures)
    (kind, message), num = reasons.most_common(1)[0]
    same = [trial for trial in failures if (trial.failure_kind, trial.failure_message) == (kind, message)]
    numbers = ", ".join(str(trial.number) for trial in same[:_MAX_NUMBERS]) + (", ..." if num > _MAX_NUMBERS else "")
    return f"{len(failures)} trials failed, {and_so}; {num} of them (trials {numbers}): {kind}: {message}"


def _summary(state: StudyState) -> dict[str, Any]:
    ended_by = "finished"
    if state.orders.hold == trials.STOP:
        ended_by = "stop"
    elif state.is_budget_spent:
        ended_by = "budget"
    found = state.trials
    best = best_trial((trial for trial in found if trial.phase == trials.SEARCH), state.spec.objective.mode)
    return {
        "ended_by": ended_by,
        "num_trials": len(found),
        "best_trial_id": None if best is None else best.job_id,
        "best_value": None if best is None else best.value,
    }
