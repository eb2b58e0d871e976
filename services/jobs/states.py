"""The states of a job and the transitions between them: `attempts` and `queue.claim` change states, by this table."""

from enum import StrEnum

from xsam.services.errors import InvalidTransitionError


class JobState(StrEnum):
    """Where a job stands. A wish (cancel, pause, preempt) is a column, not a state."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Wish(StrEnum):
    """What somebody wants of a running job; its runner honours it cooperatively."""

    CANCEL = "cancel"
    PAUSE = "pause"
    PREEMPT = "preempt"


class FailureKind(StrEnum):
    """Why an attempt ended without success."""

    USER = "user"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    INFRASTRUCTURE = "infrastructure"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INFEASIBLE = "infeasible"
    OTHER = "other"
    """Written by a release that knows more kinds than this one."""

    @classmethod
    def of(cls, text: str) -> "FailureKind":
        """Return the kind that a row names, OTHER where this release does not know it."""
        return next((kind for kind in cls if kind == text), cls.OTHER)


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}

STUDY_TRANSITIONS = {**TRANSITIONS, JobState.SUCCEEDED: frozenset({JobState.QUEUED})}
"""Of a study, whose success is an answer so far: when it is extended, it is taken up again."""

TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""Where a job comes to rest: the service itself never leaves them, only a person's retry or extension does."""


def check_transition(old: JobState, new: JobState, *, is_study: bool = False) -> None:
    """Refuse what the table does not list.

    Raises:
        InvalidTransitionError: there is no way from `old` to `new`.
    """
    allowed = (STUDY_TRANSITIONS if is_study else TRANSITIONS)[old]
    if new not in allowed:
        ways = ", ".join(sorted(allowed)) or "no other state"
        raise InvalidTransitionError(f"the state can't go from {old} to {new}; allowed is: {ways}")


def is_terminal(state: JobState) -> bool:
    """Return whether a job rests in `state` until a person retries it."""
    return state in TERMINAL_STATES
