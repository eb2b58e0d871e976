"""When a job may start again after an attempt ended: a pure decision, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.jobs.states import FailureKind
from services.specs.job import RetryPolicy

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """Whether to queue the job again, after how long, and why."""

    is_retry: bool
    delay_s: float
    reason: str


def decide(policy: RetryPolicy, kind: FailureKind, past: Sequence[str | None]) -> RetryDecision:
    """Decide what follows an attempt that ended with `kind`.

    Args:
        policy: the job's own budgets.
        kind: why the attempt ended.
        past: outcomes of all attempts, the one that just ended included.
    """
    budget = {FailureKind.INFRASTRUCTURE: policy.infrastructure, FailureKind.USER: policy.user}.get(kind, 0)
    used = sum(1 for outcome in past if outcome == kind)
    if used > budget:
        return RetryDecision(False, 0.0, f"{kind}: {used} of {budget} allowed retries used" if budget else str(kind))
    delay_s = min(FIRST_DELAY_S * 2.0 ** (used - 1), LONGEST_DELAY_S)
    return RetryDecision(True, delay_s, f"{kind}: retry {used} of {budget} in {delay_s:g} s")
