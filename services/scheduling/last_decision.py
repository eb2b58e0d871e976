"""The last decision, kept for those who ask why: written now and then by the dispatcher, read by the API.

Readers would otherwise have to plan themselves, which takes as long as the queue is long and misses what the dispatcher
alone knows (promises made in earlier plans). One row is enough: jobs of one team that ask for the same resources wait
for the same reason, so only the head of the queue is kept job by job.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from xsam.services.cluster.traits import NodeNeeds
from xsam.services.db.base import Base
from xsam.services.db.upsert import upsert
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.states import JobState
from xsam.services.scheduling.policy.explain import OUT_OF_LINE
from xsam.services.scheduling.policy.plan import Plan
from xsam.services.scheduling.policy.reasons import Reason, ReasonCode
from xsam.services.scheduling.policy.types import PendingJob, Promise, Snapshot

THE_ROW = 1
LINE_LENGTH = 1000
"""So many jobs are shown in order."""
NUM_EXACT = 100
"""So many have a reason of their own."""
MAX_KINDS = 500
"""So many pairs of team and request have a reason; in a longer queue than that, the rarest are left out."""

_reason = TypeAdapter(Reason)
_promises = TypeAdapter(tuple[Promise, ...])


class QueueView(Base):
    """What the last decision said about the jobs it did not start. One row."""

    __tablename__ = "queue_views"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    planned_at: Mapped[datetime]
    num_queued: Mapped[int]
    line: Mapped[list[dict[str, Any]]]
    """The head of the queue: `id` and reason `code`, in order."""
    positions: Mapped[dict[str, Any]]
    """The same line by job id, from 1: a reader takes one number out of it in SQL, not the whole line."""
    reasons: Mapped[dict[str, Any]]
    """By job id, for the very first jobs."""
    kinds: Mapped[dict[str, Any]]
    """By team and request, for all others: jobs of one team that ask for the same wait for the same reason."""
    waiting: Mapped[dict[str, Any] | None]
    """How many of the jobs that the decision looked at wait for what: by team, by reason `code`."""
    promises: Mapped[list[dict[str, Any]] | None]
    """What is kept for whom: `Promise` as documents."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What the last decision said about one job.

    Args:
        planned_at: when it was made.
        reason: why the job waits; None if it was not looked at.
        num_queued: jobs in the queue then.
    """

    planned_at: datetime
    reason: Reason | None
    num_queued: int


@dataclass(frozen=True, slots=True)
class Line:
    """A part of the head of the queue, as of the last decision.

    Args:
        planned_at: when it was made.
        num_queued: jobs in the queue then.
        entries: position, job id and reason code.
        has_more: whether positions follow that are kept in order.
    """

    planned_at: datetime
    num_queued: int
    entries: Sequence[tuple[int, str, str]]
    has_more: bool


def publish(session: Session, snapshot: Snapshot, decision: Plan) -> None:
    """Keep a decision for readers, in place of the one before."""
    reasons = decision.reasons
    line = list(reasons.line[:LINE_LENGTH])
    exact = line[:NUM_EXACT]
    waiting: defaultdict[str, Counter[str]] = defaultdict(Counter)
    # The last job of each kind: the first ones may have promises that the others do not have.
    samples: dict[str, str] = {}
    for job in snapshot.pending:
        if job.job_id in reasons:
            waiting[job.team][reasons.code(job.job_id)] += 1
            samples[_kind(job)] = job.job_id
    kinds = {
        kind: job_id for kind, job_id in samples.items() if reasons.code(job_id) is not ReasonCode.NOT_YET_ELIGIBLE
    }
    row = {
        "id": THE_ROW,
        "planned_at": snapshot.now,
        "num_queued": count_queued(session),
        "line": [{"id": job_id, "code": reasons.code(job_id)} for job_id in line],
        "positions": {job_id: position for position, job_id in enumerate(line, start=1)},
        "reasons": {job_id: _dump(reasons[job_id]) for job_id in exact},
        "promises": _promises.dump_python(decision.promises, mode="json"),
        "kinds": {kind: _dump(reasons[job_id]) for kind, job_id in list(kinds.items())[:MAX_KINDS]},
        "waiting": waiting,
    }
    upsert(session, QueueView, [row], keys=("id",))


def read_line(session: Session, *, after: int, limit: int) -> Line | None:
    """Return a part of the head of the queue; None before the first decision."""
    columns = (QueueView.planned_at, QueueView.num_queued, QueueView.line)
    row = session.execute(select(*columns).where(QueueView.id == THE_ROW)).one_or_none()
    if row is None:
        return None
    part = row.line[after : after + limit]
    entries = [(after + number, entry["id"], entry["code"]) for number, entry in enumerate(part, start=1)]
    return Line(row.planned_at, row.num_queued, entries, has_more=after + limit < len(row.line))


def waiting(session: Session) -> tuple[datetime, dict[str, dict[str, int]]] | None:
    """Return when the last decision was made and how many jobs wait, by team and reason; None before the first."""
    row = session.execute(select(QueueView.planned_at, QueueView.waiting).where(QueueView.id == THE_ROW)).one_or_none()
    return None if row is None else (row.planned_at, row.waiting or {})


def read_promises(session: Session) -> Sequence[Promise]:
    """Return what the last decision keeps for whom."""
    stored = session.scalar(select(QueueView.promises).where(QueueView.id == THE_ROW))
    return _promises.validate_python(stored or ())


def decided_about(session: Session, job: Job) -> Decided | None:
    """Return what the last decision said about a queued job; None if none was ever made."""
    kind = _kind(job)
    columns = (
        QueueView.planned_at,
        QueueView.num_queued,
        QueueView.positions[job.id].label("position"),
        QueueView.reasons[job.id].label("own"),
        QueueView.kinds[kind].label("like"),
    )
    row = session.execute(select(*columns).where(QueueView.id == THE_ROW)).one_or_none()
    if row is None:
        return None
    return _decided(job, row.planned_at, row.num_queued, row.own, row.like, row.position)


def decided_about_all(session: Session, jobs: Sequence[Job]) -> dict[str, Decided | None]:
    """Return by id what the last decision said about queued jobs, from one look at it."""
    columns = (
        QueueView.planned_at,
        QueueView.num_queued,
        QueueView.positions,
        QueueView.reasons,
        QueueView.kinds,
    )
    row = session.execute(select(*columns).where(QueueView.id == THE_ROW)).one_or_none()
    if row is None:
        return dict.fromkeys(job.id for job in jobs)
    return {
        job.id: _decided(
            job,
            row.planned_at,
            row.num_queued,
            row.reasons.get(job.id),
            row.kinds.get(_kind(job)),
            row.positions.get(job.id),
        )
        for job in jobs
    }


def _decided(job: Job, planned_at: datetime, num_queued: int, own: Any, like: Any, position: int | None) -> Decided:
    if own is not None:
        reason = _reason.validate_python(own)
    elif like is not None and job.state_since <= planned_at:
        reason = _for(job, _reason.validate_python(like), position)
    else:
        reason = None
    return Decided(planned_at, reason, num_queued)


def _for(job: Job, alike: Reason, position: int | None) -> Reason:
    """Return another job's reason as this one's."""
    position = None if alike.code in OUT_OF_LINE else position
    return replace(alike, job_id=job.id, user=job.submitted_by, attempt=job.attempt + 1, position=position)


def _kind(job: Job | PendingJob) -> str:
    if isinstance(job, PendingJob):
        needs = job.needs
    else:
        needs = NodeNeeds.of(job.gpu_kind, job.min_gpu_memory_gb, job.node_labels)
    each = f"{job.gpus_per_worker:g} GPUs {job.cpus_per_worker:g} CPUs"
    return " ".join((f"{job.team} {job.num_workers} x {each}", *(needs.words if needs else ())))


def count_queued(session: Session) -> int:
    """Return how many jobs wait now."""
    query = select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED, Job.kind != KIND_STUDY)
    return session.scalar(query) or 0


def _dump(reason: Reason) -> dict[str, Any]:
    document: dict[str, Any] = _reason.dump_python(reason, mode="json")
    return document
