"""What has changed of jobs, studies and trials: small facts for whoever keeps a view of them true.

A position in the changes holds at every replica: the id of an event below which all are known, and the second it was
taken at. Ids are given before their transactions are committed, so an event may turn up below a newer one; therefore
what is a few seconds old only counts as known, and a reader may be told something twice. A change says how things
stand, so that does no harm.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from pydantic import Field
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs.models import KIND_TRIAL, Job, JobEvent
from xsam.services.jobs.states import JobState, Wish
from xsam.services.schemas import Read
from xsam.services.studies.models import Trial

SETTLES_S = 10.0
"""No transaction that writes an event is open so long."""
KEPT_S = 300.0
"""Whoever comes back later reads its view anew."""
MOST = 2_000
"""Changes in one answer; whoever missed more reads its view anew."""
_PROGRESS_OVERLAP_S = 2.0
_POSITION = re.compile(r"(\d{1,18})\.(\d{1,11})")
_NO_EVENTS: Mapping[str, Sequence[str]] = {}


class JobChange(Read):
    """How a job, a study or a trial stands now."""

    job_id: str
    kind: str
    """`training`, `study` or `trial`."""
    team: str
    name: str | None
    study_id: str | None = None
    """Of a trial: whose."""
    trial: int | None = None
    """Of a trial: its number."""
    state: JobState
    state_since: datetime
    wish: Wish | None
    attempt: int
    epochs_done: int
    num_epochs: int
    step: int | None = None
    steps_per_epoch: int | None = None
    loss: float | None = None
    """Loss of a recent training step."""
    failure_kind: str | None = None
    events: list[str] = Field(default_factory=list)
    """Kinds of the events that came, oldest first; empty where only progress was made."""


class ChangesRead(Read):
    """What has changed since a position."""

    items: list[JobChange]
    cursor: str
    """Pass it as `after`, or as `Last-Event-ID`, to any replica, to go on from here."""
    reload: bool = False
    """Too much, or too long ago: read your view anew, and go on from the cursor."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the changes.

    Args:
        event_id: all events up to this one are known.
        at: by the database's clock.
    """

    event_id: int
    at: datetime

    def __str__(self) -> str:
        return f"{self.event_id}.{int(self.at.timestamp())}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `str` made a text of.

        Raises:
            InvalidRequestError: it made no such text.
        """
        found = _POSITION.fullmatch(text)
        if found is None:
            raise InvalidRequestError(f"after is {text[:80]!r}; allowed is the cursor of an earlier answer", "after")
        try:
            return cls(int(found[1]), datetime.fromtimestamp(int(found[2]), UTC))
        except (ValueError, OverflowError, OSError):  # a year that no calendar has
            return cls(int(found[1]), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that may be new to a reader."""

    id: int
    job_id: str
    kind: str
    is_settled: bool
    """Old enough for all events before it to be there."""


def present(session: Session) -> Position:
    """Return the position from which nothing is missed that happens from now on."""
    newest_settled = select(JobEvent.id).where(JobEvent.at <= db_now(-SETTLES_S)).order_by(JobEvent.id.desc()).limit(1)
    now = session.execute(select(db_now())).scalar_one()
    return Position(session.scalar(newest_settled) or 0, now)


def new_events(session: Session, after: int, *, limit: int = 10 * MOST) -> tuple[datetime, Sequence[NewEvent]]:
    """Return the database's time and the events of all jobs above an id, oldest first."""
    now = session.execute(select(db_now())).scalar_one()
    is_settled = JobEvent.at <= db_now(-SETTLES_S)
    query = select(JobEvent.id, JobEvent.job_id, JobEvent.kind, is_settled).where(JobEvent.id > after)
    return now, [NewEvent(*row) for row in session.execute(query.order_by(JobEvent.id).limit(limit))]


def running(session: Session) -> dict[str, JobChange]:
    """Return how every running job stands."""
    return _read(session, Job.state == JobState.RUNNING)


def standing(
    session: Session, job_ids: Collection[str], kinds: Mapping[str, Sequence[str]] = _NO_EVENTS
) -> dict[str, JobChange]:
    """Return how these jobs stand, with the kinds of their new events."""
    if not job_ids:
        return {}
    return _read(session, Job.id.in_(job_ids), kinds)


def since(session: Session, after: Position, *, visible_team: str | None = None) -> ChangesRead:
    """Return what has changed after a position.

    Args:
        session: open for reading.
        after: where the reader is.
        visible_team: the only team whose jobs the reader may know of; None for all.
    """
    now = present(session)
    age = now.at - after.at
    reload = ChangesRead(items=[], cursor=str(now), reload=True)
    if not timedelta(seconds=-60) < age < timedelta(seconds=KEPT_S):
        return reload
    query = select(JobEvent.job_id, JobEvent.kind).where(JobEvent.id > after.event_id)
    if visible_team is not None:
        query = query.join(Job, Job.id == JobEvent.job_id).where(Job.team == visible_team)
    rows = session.execute(query.order_by(JobEvent.id).limit(10 * MOST + 1)).all()
    kinds = by_job(rows)
    reported = Job.reported_at > after.at - timedelta(seconds=_PROGRESS_OVERLAP_S)
    moved = (Job.state == JobState.RUNNING) & reported
    found = _read(session, moved if visible_team is None else moved & (Job.team == visible_team))
    found |= standing(session, kinds.keys(), kinds)
    if len(rows) > 10 * MOST or len(found) > MOST:
        return reload
    return ChangesRead(items=list(found.values()), cursor=str(now))


def by_job(events: Iterable[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    """Return the kinds of events by job, from pairs of a job and a kind."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for job_id, kind in events:
        kinds[job_id].append(kind)
    return kinds


_COLUMNS = (
    Job.id,
    Job.kind,
    Job.team,
    Job.name,
    Job.state,
    Job.state_since,
    Job.wish,
    Job.attempt,
    Job.epochs_done,
    Job.num_epochs,
    Job.failure_kind,
    Job.progress,
)


def _read(
    session: Session, where: ColumnElement[bool], kinds: Mapping[str, Sequence[str]] = _NO_EVENTS
) -> dict[str, JobChange]:
    rows = session.execute(select(*_COLUMNS).where(where)).all()
    trial_ids = [row.id for row in rows if row.kind == KIND_TRIAL]
    places: dict[str, Any] = {}
    if trial_ids:
        trials = select(Trial.job_id, Trial.study_id, Trial.number).where(Trial.job_id.in_(trial_ids))
        places = {row.job_id: {"study_id": row.study_id, "trial": row.number} for row in session.execute(trials)}
    return {row.id: _change(row, places.get(row.id, {}), kinds.get(row.id, ())) for row in rows}


def _change(row: Any, place: dict[str, Any], kinds: Sequence[str]) -> JobChange:
    progress: dict[str, Any] = row.progress or {}
    return JobChange(
        job_id=row.id,
        kind=row.kind,
        team=row.team,
        name=row.name,
        state=row.state,
        state_since=row.state_since,
        wish=row.wish,
        attempt=row.attempt,
        epochs_done=row.epochs_done,
        num_epochs=row.num_epochs,
        step=progress.get("step"),
        steps_per_epoch=progress.get("steps_per_epoch"),
        loss=progress.get("loss"),
        failure_kind=row.failure_kind,
        events=list(kinds),
        **place,
    )
