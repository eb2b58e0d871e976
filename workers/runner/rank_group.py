"""Rank processes on one run: start them together, wait, and say how the run ended."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from xsam.services.jobs.states import FailureKind
from xsam.workers.messages import Assignment, RankResult, explain
from xsam.workers.runner.placement_group import PlacedRank

POLL_S = 0.5
ECHO_GRACE_S = 3.0
"""After one rank failed, the others have this long to fail in their own words before they are killed."""


@dataclass(frozen=True, slots=True)
class GroupEnding:
    """How a run ended: rank 0's result, or the failure that explains the others'."""

    result: RankResult | None
    is_clean: bool
    """Every rank process came back by itself and can take another job."""
    not_placed: str = ""
    """Why there is no result at all."""


class RankGroup:
    """Rank processes that work on one run.

    Args:
        ranks: in rank order; or a single one for several ranks, which then drives a worker group of Ray Train.
    """

    def __init__(self, ranks: Sequence[PlacedRank]) -> None:
        self._ranks = ranks
        self._processes = [rank.process for rank in ranks]

    def run(self, assignment: Assignment, runner: ActorHandle, lost: threading.Event) -> GroupEnding:
        """Run all ranks and return how they ended; when `lost` is set they are killed.

        A rank that fails or dies leaves the others waiting in a collective, so they are killed after a moment.
        """
        try:
            pending = self._start(assignment, runner)
        except RayError as e:
            self._kill(self._processes)
            return GroupEnding(RankResult.died(0, e), is_clean=False)
        results = self._collect(pending, lost)
        self._kill([self._processes[number] for number in pending.values()])
        # A rank that has become a team's user stays it.
        return _ending(results, is_clean=not pending and assignment.team_user is None)

    def _start(self, assignment: Assignment, runner: ActorHandle) -> dict[ray.ObjectRef, int]:
        context = assignment.context
        if context.world_size > len(self._ranks):
            return {self._processes[0].run_group.remote(assignment, runner): 0}
        address = ray.get(self._processes[0].rendezvous_address.remote()) if len(self._ranks) > 1 else ""
        pending = {}
        for number, rank in enumerate(self._ranks):
            own = replace(
                assignment,
                context=replace(context, rank=number),
                master_address=address,
                visible_devices=rank.visible_devices,
            )
            pending[rank.process.run.remote(own, runner)] = number
        return pending

    def _collect(self, pending: dict[ray.ObjectRef, int], lost: threading.Event) -> list[RankResult]:
        """Move finished ranks from `pending` into the result, until all are done or waiting makes no sense."""
        results: list[RankResult] = []
        deadline = float("inf")
        while pending and not lost.is_set() and time.monotonic() < deadline:
            done, _ = ray.wait(list(pending), timeout=POLL_S)
            for ref in done:
                result = _result_of(ref, pending.pop(ref))
                results.append(result)
                if result.failure_kind is not None:
                    deadline = min(deadline, time.monotonic() + ECHO_GRACE_S)
        return results

    def _kill(self, ranks: Sequence[ActorHandle]) -> None:
        for rank in ranks:
            ray.kill(rank)


def _ending(results: Sequence[RankResult], *, is_clean: bool) -> GroupEnding:
    result = explain(results)
    can_go_on = result is not None and result.failure_kind in (None, FailureKind.USER, FailureKind.DIVERGED)
    return GroupEnding(result, is_clean=is_clean and can_go_on)


def _result_of(ref: ray.ObjectRef, rank: int) -> RankResult:
    try:
        return ray.get(ref)
    except RayError as e:
        return RankResult.died(rank, e)
