"""How full the cluster was over time: a sample a minute, kept exactly for a month, and as means of hours for a year."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from xsam.services.cluster.models import ClusterSample
from xsam.services.db.upsert import upsert

MINUTE_S = 60
HOUR_S = 3600
MINUTES_KEPT = timedelta(days=30)
HOURS_KEPT = timedelta(days=366)
_HOURS_AT_ONCE = 24


@dataclass(frozen=True, slots=True)
class Sample:
    """How full the cluster is.

    Args:
        teams: GPUs and CPUs that each team holds.
    """

    num_nodes: float
    num_gpus: float
    num_cpus: float
    used_gpus: float
    used_cpus: float
    num_running: float
    num_queued: float
    teams: Mapping[str, tuple[float, float]]


def write(session: Session, at: datetime, sample: Sample) -> None:
    """Store the sample of a minute; a second one of the same minute replaces it."""
    _store(session, MINUTE_S, at.replace(second=0, microsecond=0), sample)


def thin_out(session: Session, now: datetime) -> None:
    """Turn some hours of old minutes into means, and forget hours that are older than a year."""
    session.execute(delete(ClusterSample).where(ClusterSample.span_s == HOUR_S, ClusterSample.at < now - HOURS_KEPT))
    is_old = (ClusterSample.span_s == MINUTE_S, ClusterSample.at < _hour(now - MINUTES_KEPT))
    oldest = session.scalar(select(ClusterSample.at).where(*is_old).order_by(ClusterSample.at).limit(1))
    if oldest is None:
        return
    until = min(_hour(oldest) + timedelta(hours=_HOURS_AT_ONCE), _hour(now - MINUTES_KEPT))
    by_hour: defaultdict[datetime, list[ClusterSample]] = defaultdict(list)
    part = (ClusterSample.span_s == MINUTE_S, ClusterSample.at < until)
    for row in session.scalars(select(ClusterSample).where(*part)):
        by_hour[_hour(row.at)].append(row)
    for hour, rows in by_hour.items():
        _store(session, HOUR_S, hour, _mean(rows))
    session.execute(delete(ClusterSample).where(*part))


def list_samples(session: Session, *, since: datetime, until: datetime, most: int) -> Sequence[ClusterSample]:
    """Return at most so many samples of a time, oldest first, evenly left out where there are more."""
    query = select(ClusterSample).where(ClusterSample.at >= since, ClusterSample.at < until)
    rows = session.scalars(query.order_by(ClusterSample.at, ClusterSample.span_s)).all()
    step = -(-len(rows) // most) if rows else 1
    return rows[::-1][::step][::-1]


def _store(session: Session, span_s: int, at: datetime, sample: Sample) -> None:
    values = {**asdict(sample), "teams": {team: list(held) for team, held in sample.teams.items()}}
    upsert(session, ClusterSample, [{"span_s": span_s, "at": at, **values}], keys=("span_s", "at"))


def _mean(rows: Sequence[ClusterSample]) -> Sample:
    names = ("num_nodes", "num_gpus", "num_cpus", "used_gpus", "used_cpus", "num_running", "num_queued")
    means = {name: statistics.fmean(getattr(row, name) for row in rows) for name in names}
    teams = {team for row in rows for team in row.teams}
    held = {
        team: (
            sum(row.teams.get(team, (0, 0))[0] for row in rows) / len(rows),
            sum(row.teams.get(team, (0, 0))[1] for row in rows) / len(rows),
        )
        for team in sorted(teams)
    }
    return Sample(**means, teams=held)


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
