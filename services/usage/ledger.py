"""Booking what an attempt used, in the transaction that ends it, and the fair shares that follow from the books."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.db.session import numbers_of
from xsam.services.db.upsert import add_up, insert_missing
from xsam.services.usage import decay
from xsam.services.usage.decay import DecayedUsage, TeamShare
from xsam.services.usage.models import OutcomeCount, UsageDay, UsageShare


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who held how much."""

    team: str
    user: str
    gpus: float
    cpus: float


def book(session: Session, held: Allocation, *, started_at: datetime, ended_at: datetime) -> None:
    """Add an ended attempt to its day or days and to its user's share.

    The share's row is read and written under its lock. A transaction that ends several attempts takes them in the
    order of team and user, so that two such transactions can't wait for each other.
    """
    if not (held.gpus or held.cpus):
        return
    last = ended_at.astimezone(UTC).date()
    rows = [
        {
            "day": day,
            "team": held.team,
            "user_name": held.user,
            "gpu_s": held.gpus * seconds,
            "cpu_s": held.cpus * seconds,
            "num_attempts": int(day == last),
        }
        for day, seconds in split_by_day(started_at, ended_at)
    ]
    _add_to_share(session, held, started_at, ended_at)
    add_up(session, UsageDay, rows, keys=("day", "team", "user_name"))


def count_outcome(session: Session, team: str, user: str, outcome: str) -> None:
    """Count an ended attempt by how it ended.

    A row for each user, not for each team: whoever books an attempt holds the lock on its user's share already, so two
    transactions can't wait for each other here.
    """
    row = {"team": team, "user_name": user, "outcome": outcome, "num_attempts": 1}
    add_up(session, OutcomeCount, [row], keys=("team", "user_name", "outcome"))


def outcomes(session: Session) -> list[tuple[str, str, int]]:
    """Return team, outcome and number of all attempts counted so far."""
    by = (OutcomeCount.team, OutcomeCount.outcome)
    query = select(*by, func.sum(OutcomeCount.num_attempts)).group_by(*by).order_by(*by)
    return [(team, outcome, int(number)) for team, outcome, number in session.execute(query)]


def split_by_day(started_at: datetime, ended_at: datetime) -> Iterator[tuple[date, float]]:
    """Yield each UTC day that the interval touches with the seconds of it on that day; the last day always."""
    start, end = started_at.astimezone(UTC), max(started_at, ended_at).astimezone(UTC)
    while start.date() < end.date():
        midnight = datetime.combine(start.date() + timedelta(days=1), time(), UTC)
        yield start.date(), (midnight - start).total_seconds()
        start = midnight
    yield end.date(), (end - start).total_seconds()


def shares(session: Session, weights: Mapping[str, float]) -> dict[str, TeamShare]:
    """Return the share of every team that has a weight or has used anything, as the scheduler reads it.

    Decay is linear, so a team's usage is the sum of its users', taken at one instant.
    """
    half_life_s = numbers_of(session).half_life_s
    users: dict[str, dict[str, DecayedUsage]] = {team: {} for team in weights}
    for row in session.scalars(select(UsageShare).order_by(UsageShare.team, UsageShare.user_name)):
        users.setdefault(row.team, {})[row.user_name] = DecayedUsage(row.value_resource_s, row.as_of)
    return {
        team: TeamShare(weight=weights.get(team, 1.0), usage=_sum(by_user, half_life_s), users=by_user)
        for team, by_user in users.items()
    }


def _sum(by_user: Mapping[str, DecayedUsage], half_life_s: float) -> DecayedUsage | None:
    if not by_user:
        return None
    as_of = max(usage.as_of for usage in by_user.values())
    return DecayedUsage(sum(decay.usage_at(usage, as_of, half_life_s) for usage in by_user.values()), as_of)


def _add_to_share(session: Session, held: Allocation, started_at: datetime, ended_at: datetime) -> None:
    key = {"team": held.team, "user_name": held.user}
    new = {**key, "value_resource_s": 0.0, "as_of": ended_at}
    insert_missing(session, UsageShare, [new], keys=("team", "user_name"))
    query = select(UsageShare).filter_by(**key).with_for_update().execution_options(populate_existing=True)
    row = session.scalars(query).one()
    numbers = numbers_of(session)
    usage = decay.add_attempt(
        DecayedUsage(row.value_resource_s, row.as_of),
        rate=decay.resource_rate(held.gpus, held.cpus, numbers),
        started_at=started_at,
        ended_at=ended_at,
        half_life_s=numbers.half_life_s,
    )
    row.value_resource_s, row.as_of = usage.value_resource_s, usage.as_of
    session.flush()
