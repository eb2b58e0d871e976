"""The states of a job and the transitions between them; everything else reads this table."""

from enum import StrEnum


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

TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""Where a job comes to rest: the service itself never leaves them, only a person's retry does."""


def is_terminal(state: JobState) -> bool:
    """Return whether a job rests in `state` until a person retries it."""
    return state in TERMINAL_STATES
