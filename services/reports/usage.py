"""What the API calls for usage: who used how much, day by day, and where the teams stand in the fair share."""

import math
from collections import defaultdict
from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.db.session import numbers_of
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs.models import Job, JobAttempt
from xsam.services.jobs.states import JobState
from xsam.services.teams import limits
from xsam.services.usage import ledger
from xsam.services.usage.decay import usage_at
from xsam.services.usage.models import UsageDay
from xsam.services.usage.schemas import ShareRead, UsageItem, UsageRead

DEFAULT_DAYS = 30
MAX_DAYS = 366
_S_PER_HOUR = 3600.0

_Key = tuple[date, str, str]


def usage(
    session: Session, *, since: date | None = None, until: date | None = None, team: str | None = None
) -> UsageRead:
    """Return what was used on the days from `since` to `until`, both included.

    Args:
        session: open for reading.
        since: first day; by default 30 days before the last.
        until: last day; by default today (UTC).
        team: only this team's; shares are shown for it alone, too, but count all.

    Raises:
        InvalidRequestError: the days are in the wrong order, or too many.
    """
    now = session.execute(select(db_now())).scalar_one()
    last = until or now.date()
    first = since or last - min(timedelta(days=DEFAULT_DAYS - 1), last - date.min)
    if not timedelta(0) <= last - first < timedelta(days=MAX_DAYS):
        message = f"since is {first} and until is {last}; allowed are 1 to {MAX_DAYS} days in this order"
        raise InvalidRequestError(message, field="since")
    amounts = _ended(session, first, last, team)
    for key, (gpu_s, cpu_s) in _running(session, now, team).items():
        if first <= key[0] <= last:
            before = amounts.get(key, (0.0, 0.0, 0))
            amounts[key] = (before[0] + gpu_s, before[1] + cpu_s, before[2])
    items = [_item(key, amount) for key, amount in sorted(amounts.items())]
    shares = [share for share in _shares(session, now) if team in (None, share.team)]
    return UsageRead(
        since=first, until=last, as_of=now, half_life_s=numbers_of(session).half_life_s, items=items, shares=shares
    )


def _item(key: _Key, amount: tuple[float, float, int]) -> UsageItem:
    day, team, user = key
    gpu_s, cpu_s, num_attempts = amount
    hours = {"gpu_hours": gpu_s / _S_PER_HOUR, "cpu_hours": cpu_s / _S_PER_HOUR}
    return UsageItem(day=day, team=team, user=user, num_attempts=num_attempts, **hours)


def _ended(session: Session, first: date, last: date, team: str | None) -> dict[_Key, tuple[float, float, int]]:
    query = select(UsageDay).where(UsageDay.day.between(first, last))
    if team is not None:
        query = query.where(UsageDay.team == team)
    rows = session.scalars(query)
    return {(row.day, row.team, row.user_name): (row.gpu_s, row.cpu_s, row.num_attempts) for row in rows}


def _running(session: Session, now: datetime, team: str | None) -> dict[_Key, tuple[float, float]]:
    query = (
        select(Job.team, Job.submitted_by, Job.num_workers, Job.gpus_per_worker, Job.cpus_per_worker)
        .add_columns(JobAttempt.started_at)
        .join(JobAttempt, (JobAttempt.job_id == Job.id) & (JobAttempt.number == Job.attempt))
        .where(Job.state == JobState.RUNNING)
    )
    if team is not None:
        query = query.where(Job.team == team)
    amounts: defaultdict[_Key, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for name, user, num_workers, gpus, cpus, started_at in session.execute(query):
        for day, seconds in ledger.split_by_day(started_at, now):
            gpu_s, cpu_s = amounts[day, name, user]
            held_s = num_workers * seconds
            if gpus or cpus:
                amounts[day, name, user] = (gpu_s + gpus * held_s, cpu_s + cpus * held_s)
    return dict(amounts)


def _shares(session: Session, now: datetime) -> list[ShareRead]:
    shares = ledger.shares(session, limits.weights(session))
    half_life_s = numbers_of(session).half_life_s
    used = {team: usage_at(share.usage, now, half_life_s) for team, share in shares.items()}
    all_used = math.fsum(used.values())
    all_weights = math.fsum(share.weight for share in shares.values())
    return [
        ShareRead(
            team=team,
            weight=share.weight,
            usage_fraction=used[team] / all_used if all_used else 0.0,
            entitled_fraction=share.weight / all_weights,
        )
        for team, share in sorted(shares.items())
    ]
