import pytest

from xsam.services.jobs.retry import decide
from xsam.services.jobs.states import FailureKind
from xsam.services.specs.job import RetryPolicy

POLICY = RetryPolicy(infrastructure=3, user=1, out_of_memory=2, timed_out=1)


@pytest.mark.parametrize(
    ("kind", "num_failures", "is_retry"),
    [
        (FailureKind.INFRASTRUCTURE, 1, True),
        (FailureKind.INFRASTRUCTURE, 3, True),
        (FailureKind.INFRASTRUCTURE, 4, False),
        (FailureKind.USER, 1, True),
        (FailureKind.USER, 2, False),
        (FailureKind.DIVERGED, 1, False),
        (FailureKind.OUT_OF_MEMORY, 2, True),
        (FailureKind.OUT_OF_MEMORY, 3, False),
        (FailureKind.TIMED_OUT, 1, True),
        (FailureKind.TIMED_OUT, 2, False),
        (FailureKind.INFEASIBLE, 1, False),
    ],
)
def test_decide__retries_until_the_budget_of_the_kind_is_used(
    kind: FailureKind, num_failures: int, is_retry: bool
) -> None:
    assert decide(POLICY, kind, [kind] * num_failures).is_retry is is_retry


def test_decide__counts_only_failures_of_the_same_kind() -> None:
    past = ["infrastructure", "preempted", "not_placed", "infrastructure", "infrastructure", "user"]
    assert decide(POLICY, FailureKind.USER, past).is_retry


def test_decide__doubles_the_delay_up_to_the_longest() -> None:
    policy = RetryPolicy(infrastructure=100)
    kind = FailureKind.INFRASTRUCTURE
    delays = [decide(policy, kind, [kind] * number).delay_s for number in range(1, 15)]
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == policy.max_delay_s == 300.0


def test_decide__says_why() -> None:
    kind = FailureKind.INFRASTRUCTURE
    assert decide(POLICY, kind, [kind]).reason == "infrastructure: retry 1 of 3 in 1 s"
    assert decide(POLICY, kind, [kind] * 4).reason == "infrastructure: 3 of 3 allowed retries used"


def test_decide__waits_as_long_as_the_job_says() -> None:
    policy = RetryPolicy(user=5, first_delay_s=10, max_delay_s=25)
    delays = [decide(policy, FailureKind.USER, ["user"] * number).delay_s for number in (1, 2, 3, 4)]
    assert delays == [10, 20, 25, 25]
