"""How long jobs will still run, from the measured pace of comparable runs: what makes backfill work without limits."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.jobs.cost import cost_of, kind_of_work, measured_paces
from xsam.services.jobs.models import Job
from xsam.services.specs.job import JobSpec

PACES_HOLD_S = 30.0
"""The measured paces are read again after so long."""
MAX_NEW_JOBS = 200
"""Specifications that one plan reads at most; jobs further down the queue are estimated in later plans."""


@dataclass(frozen=True, slots=True)
class _Work:
    kind: str
    grad_evals: int | None
    steps: int | None


class RunTimes:
    """Estimates by job, kept from plan to plan by whoever plans.

    A plan costs two bounded queries at most, however long the history: the paces of the last runs, now and then, and
    the specifications of jobs that were not seen before. Not for several threads.
    """

    def __init__(self) -> None:
        self._paces: dict[str, float] = {}
        self._read_at: datetime | None = None
        self._work: dict[str, _Work] = {}

    def look(self, session: Session, job_ids: Sequence[str], now: datetime) -> None:
        """Learn what these jobs are, those that come first before the others, and forget all others."""
        if self._read_at is None or now - self._read_at >= timedelta(seconds=PACES_HOLD_S):
            measured = measured_paces(session)
            self._paces = {kind: statistics.median(paces) for kind, paces in measured.items()}
            self._read_at = now
        if not self._paces:
            return
        self._work = {job_id: self._work[job_id] for job_id in job_ids if job_id in self._work}
        new = [job_id for job_id in job_ids if job_id not in self._work][:MAX_NEW_JOBS]
        if not new:
            return
        for job_id, document in session.execute(select(Job.id, Job.spec).where(Job.id.in_(new))):
            cost = cost_of(JobSpec.model_validate(document))
            self._work[job_id] = _Work(kind_of_work(document), cost.grad_evals, cost.steps)

    def left_s(self, job_id: str, *, share_done: float, step: int = 0) -> float | None:
        """Return how long a job will still train; None where nothing comparable has run.

        Args:
            job_id: the job.
            share_done: finished epochs, as a share of all.
            step: training steps done, where that is known more exactly.
        """
        work = self._work.get(job_id)
        pace = None if work is None else self._paces.get(work.kind)
        if work is None or pace is None or work.grad_evals is None:
            return None
        done = max(share_done, step / work.steps if work.steps else 0.0)
        return pace * work.grad_evals * max(0.0, 1.0 - done)
