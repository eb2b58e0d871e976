"""What may be forgotten now: of jobs that have ended, by age and by the size of a team's files. Only reads."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, aliased

from xsam.services.db.clock import db_now
from xsam.services.jobs.models import KIND_STUDY, KIND_TRIAL, Job
from xsam.services.jobs.states import TERMINAL_STATES
from xsam.services.retention.models import StoredFiles
from xsam.services.retention.rules import OF_FILES, Kind, RulesOfTeams
from xsam.services.studies.models import Trial
from xsam.services.studies.verbs import STUDY_LABEL

KEEP_LABEL = "keep"
"""A job with this label, whatever its value, keeps its weights and its rows."""
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Due:
    """Something of an ended job that may go.

    Args:
        job_id: the job.
        team: whose it is.
        kind: what of it.
        num_bytes: of files.
    """

    job_id: str
    team: str
    kind: Kind
    num_bytes: int


def of_jobs(session: Session, rules: RulesOfTeams) -> list[Due]:
    """Return what may go of ended jobs, of those that ended first, first.

    A trial has ended when its study has: as long as that runs, it is rebuilt from its trials.
    """
    now = session.execute(select(db_now())).scalar_one()
    jobs = [_Ended(row, now) for row in session.execute(_ended_jobs(rules))]
    found = [due for job in jobs for due in job.by_age(rules)]
    gone = {(due.job_id, due.kind) for due in found}
    whole = {due.job_id for due in found if due.kind is Kind.ROWS}
    sizes: defaultdict[str, int] = defaultdict(int)
    for job in jobs:
        sizes[job.team] += sum(size for kind, size in job.bytes.items() if (job.id, kind) not in gone)
    for job in jobs:
        limit = rules.of(job.team).max_bytes
        if limit is None or job.id in whole:
            continue
        for due in job.files():
            if sizes[job.team] > limit and (job.id, due.kind) not in gone:
                sizes[job.team] -= due.num_bytes
                found.append(due)
    return found


def count_unmeasured(session: Session) -> int:
    """Return of how many ended jobs nobody knows yet what files they have."""
    return session.scalar(select(func.count()).select_from(_unmeasured().subquery())) or 0


def unmeasured(session: Session, *, limit: int) -> Sequence[str]:
    """Return ended jobs of which nobody knows yet what files they have."""
    return session.scalars(_unmeasured().order_by(Job.state_since).limit(limit)).all()


def _unmeasured() -> Any:
    is_known = select(StoredFiles.job_id).where(
        StoredFiles.job_id == Job.id, StoredFiles.measured_at >= Job.state_since
    )
    has_files = (Job.attempt > 0, Job.kind != KIND_STUDY)
    return select(Job.id).where(Job.state.in_(TERMINAL_STATES), *has_files, ~is_known.exists())


def is_ended(study: Any) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a job has ended, with its study if it is a trial."""
    return Job.state.in_(TERMINAL_STATES), or_(Job.kind != KIND_TRIAL, study.state.in_(TERMINAL_STATES))


def with_studies(query: Any, study: Any) -> Any:
    """Return a query over jobs with the study of each, if it has one."""
    return query.outerjoin(Trial, Trial.job_id == Job.id).outerjoin(study, study.id == Trial.study_id)


def _ended_jobs(rules: RulesOfTeams) -> Any:
    study = aliased(Job)
    ended_at = func.coalesce(study.finished_at, Job.finished_at)
    columns: tuple[Any, ...] = (
        Job.id,
        Job.team,
        Job.kind,
        Job.attempt,
        ended_at.label("ended_at"),
        Job.labels[KEEP_LABEL].as_string().label("keep"),
        Job.labels[STUDY_LABEL].as_string().label("promoted_from"),
        StoredFiles.checkpoint_bytes,
        StoredFiles.weights_bytes,
        StoredFiles.log_bytes,
        StoredFiles.checkpoints_gone_at,
        StoredFiles.metrics_thinned_at,
    )
    query = with_studies(select(*columns), study).outerjoin(StoredFiles, StoredFiles.job_id == Job.id)
    query = query.where(*is_ended(study)).order_by(ended_at, Job.id)
    if rules.has_sizes:
        return query
    days = rules.shortest_days
    return query.where(ended_at < db_now(-days * _DAY_S)) if days != float("inf") else query.where(False)


class _Ended:
    """A job that has ended, and what it has."""

    def __init__(self, row: Any, now: datetime) -> None:
        self.id, self.team, self._kind = row.id, row.team, row.kind
        self._age_days = (now - row.ended_at).total_seconds() / _DAY_S
        self._is_kept = row.keep is not None or row.promoted_from is not None
        self._is_known = row.checkpoint_bytes is not None or row.attempt == 0 or row.kind == KIND_STUDY
        self._is_thinned = row.metrics_thinned_at is not None
        self.bytes = {
            Kind.CHECKPOINTS: row.checkpoint_bytes or 0,
            Kind.WEIGHTS: row.weights_bytes or 0,
            Kind.LOGS: row.log_bytes or 0,
        }

    def by_age(self, rules: RulesOfTeams) -> Iterator[Due]:
        if not self._is_known:  # it is measured first, so that there is a row that says what is gone
            return
        own = rules.of(self.team)
        if own.is_over(Kind.ROWS, self._age_days) and not self._is_kept:
            yield Due(self.id, self.team, Kind.ROWS, sum(self.bytes.values()))
            return
        yield from (due for due in self.files() if own.is_over(due.kind, self._age_days))
        if own.is_over(Kind.METRICS, self._age_days) and not self._is_thinned and self._kind != KIND_STUDY:
            yield Due(self.id, self.team, Kind.METRICS, 0)

    def files(self) -> Iterator[Due]:
        """Yield the files that may go, in the order in which they are missed least."""
        for kind in OF_FILES:
            if self.bytes[kind] and not (kind is Kind.WEIGHTS and self._is_kept):
                yield Due(self.id, self.team, kind, self.bytes[kind])
