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
    INFEASIBLE = "infeasible"


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

TERMINAL_STATES = frozenset(state for state, following in TRANSITIONS.items() if not following)


def is_terminal(state: JobState) -> bool:
    """Return whether no transition leaves `state`."""
    return state in TERMINAL_STATES
