"""When a job may start again after an attempt ended: a pure decision, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from xsam.services.jobs.states import FailureKind
from xsam.services.specs.job import RetryPolicy


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """Whether to queue the job again, after how long, and why."""

    is_retry: bool
    delay_s: float
    reason: str


def decide(policy: RetryPolicy, kind: FailureKind, past: Sequence[str | None]) -> RetryDecision:
    """Decide what follows an attempt that ended with `kind`.

    The delay doubles with each failure of the same kind and has no jitter: the queue starts jobs one by one as there
    is room, so simultaneous retries can't stampede, and people can tell when theirs is due.

    Args:
        policy: the job's own budgets.
        kind: why the attempt ended.
        past: outcomes of the attempts that count, the one that just ended included.
    """
    budget = _budget(policy, kind)
    used = sum(1 for outcome in past if outcome == kind)
    if used > budget:
        return RetryDecision(False, 0.0, f"{kind}: {used - 1} of {budget} allowed retries used")
    delay_s = min(policy.first_delay_s * 2.0 ** (used - 1), policy.max_delay_s)
    return RetryDecision(True, delay_s, f"{kind}: retry {used} of {budget} in {delay_s:g} s")


def _budget(policy: RetryPolicy, kind: FailureKind) -> int:
    budgets = {
        FailureKind.INFRASTRUCTURE: policy.infrastructure,
        FailureKind.OUT_OF_MEMORY: policy.out_of_memory,
        FailureKind.DIVERGED: policy.diverged,
        FailureKind.USER: policy.user,
        FailureKind.TIMED_OUT: policy.timed_out,
    }
    return budgets.get(kind, 0)
