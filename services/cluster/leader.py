"""Which one of several dispatchers acts: a lease in SQL, by the database's clock.

A leader that was paused or cut off finds its lease gone when it renews; what it started meanwhile is safe all the same,
because every claim is one conditional UPDATE.
"""

from sqlalchemy import case, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from xsam.services.cluster.models import LeaderLease
from xsam.services.db.clock import db_now

DISPATCH = "dispatch"
"""The lease of the dispatcher that plans and places."""


def acquire(session: Session, name: str, holder: str, *, lease_s: float) -> bool:
    """Take or renew the lease, and return whether `holder` leads now.

    Args:
        session: open in a unit of work.
        name: what is led.
        holder: the caller's own name, unlike that of any other process.
        lease_s: seconds until it lapses unless renewed; a third of it is a good rhythm.
    """
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    now, lapses = db_now(), db_now(lease_s)
    new = dialect.insert(LeaderLease).values(name=name, holder=holder, term=1, since=now, expires_at=lapses)
    is_same = LeaderLease.holder == new.excluded.holder
    taken = new.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "holder": new.excluded.holder,
            "term": LeaderLease.term + case((is_same, 0), else_=1),
            "since": case((is_same, LeaderLease.since), else_=now),
            "expires_at": lapses,
        },
        where=or_(is_same, LeaderLease.expires_at <= now),
    ).returning(LeaderLease.holder)
    return session.execute(taken).scalar_one_or_none() == holder


def release(session: Session, name: str, holder: str) -> None:
    """Give the lease up at once, so that another one need not wait; nothing if it is somebody else's."""
    lapsed = update(LeaderLease).where(LeaderLease.name == name, LeaderLease.holder == holder)
    session.execute(lapsed.values(expires_at=db_now()))


def current(session: Session, name: str) -> str | None:
    """Return who leads; None if nobody does at the moment."""
    query = select(LeaderLease.holder).where(LeaderLease.name == name, LeaderLease.expires_at > db_now())
    return session.scalar(query)
