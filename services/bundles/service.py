"""Bundles of teams: stored once by content in the artifact store, read by the teams that uploaded them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from xsam.services.bundles import archive
from xsam.services.bundles.archive import Limits
from xsam.services.bundles.models import BundleRow
from xsam.services.db.clock import db_now, utc_now
from xsam.services.db.upsert import insert_missing
from xsam.services.errors import ForbiddenError, InvalidRequestError, NotFoundError
from xsam.services.stores.store import ArtifactStore
from xsam.services.teams.roles import Actor

FOLDER, SUFFIX = "bundles", ".tar.gz"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an uploaded folder stood."""

    commit: str | None = None
    is_dirty: bool = False


def file_of(bundle_id: str) -> str:
    """Return the name of a bundle's file in the artifact store, whether or not it is there."""
    digest = archive.digest_of(bundle_id)
    return f"{FOLDER}/{digest[:2]}/{digest}{SUFFIX}"


def get(session: Session, bundle_id: str, *, team: str | None) -> BundleRow:
    """Return a team's bundle, any team's if None.

    Raises:
        NotFoundError: no such bundle has been uploaded there.
    """
    query = select(BundleRow).where(BundleRow.id == bundle_id)
    if team is not None:
        query = query.where(BundleRow.team == team)
    row = session.scalars(query.order_by(BundleRow.created_at).limit(1)).first()
    if row is None:
        raise NotFoundError("no such bundle; upload it with PUT", field="bundle_id")
    return row


def add(  # noqa: PLR0913 - what, where, and whose
    session: Session,
    store: ArtifactStore,
    bundle_id: str,
    packed: bytes,
    *,
    actor: Actor,
    limits: Limits,
    origin: Origin,
) -> BundleRow:
    """Store a bundle for the caller's team, once; calling it again changes nothing.

    Raises:
        InvalidRequestError: the content is not what the id says, too large, or holds what no bundle may.
    """
    entries = archive.inspect(packed, limits)
    found = archive.id_of(entries)
    if found != bundle_id:
        raise InvalidRequestError(f"the content is bundle {found}, not {bundle_id}", field="bundle_id")
    # Also one that is there: wanted again, so a sweep that sees it now lets it stay.
    store.put_bytes(file_of(bundle_id), packed)
    row = {
        "team": actor.team,
        "id": bundle_id,
        "packed_bytes": len(packed),
        "unpacked_bytes": sum(entry.size_bytes for entry in entries),
        "num_files": len(entries),
        "commit": origin.commit,
        "is_dirty": origin.is_dirty,
        "made_by": actor.user,
        "created_at": utc_now(),
    }
    insert_missing(session, BundleRow, [row], keys=("team", "id"))
    return get(session, bundle_id, team=actor.team)


def known(session: Session) -> Sequence[str]:
    """Return all bundles that a team has."""
    return session.scalars(select(BundleRow.id).distinct()).all()


def find_old(session: Session, *, days: float) -> Sequence[BundleRow]:
    """Return bundles that were sent more than so many days ago."""
    old = BundleRow.created_at < db_now(-days * 86_400.0)
    return session.scalars(select(BundleRow).where(old).order_by(BundleRow.created_at)).all()


def lock(session: Session, team: str, bundle_id: str) -> bool:
    """Keep jobs from naming a bundle until the caller's transaction ends; False if it is not there any more."""
    return session.get(BundleRow, (team, bundle_id), with_for_update=True, populate_existing=True) is not None


def forget(session: Session, team: str, bundle_id: str) -> None:
    """Delete a team's right to a bundle that no job names; its file goes once no team has any."""
    session.execute(delete(BundleRow).where(BundleRow.team == team, BundleRow.id == bundle_id))


def check(session: Session, bundle_id: str, *, team: str, is_on: bool) -> None:
    """Refuse a job whose code its team may not run.

    Raises:
        ForbiddenError: the service takes no code.
        InvalidRequestError: the team has uploaded no such bundle.
    """
    check_is_on(is_on=is_on)
    # Held until the caller's transaction ends, so that retention does not delete it while a job is added that names it.
    if session.get(BundleRow, (team, bundle_id), with_for_update={"read": True}) is None:
        raise InvalidRequestError(f"code.bundle is {bundle_id}, which team {team} has not uploaded", "code.bundle")


def check_is_on(*, is_on: bool) -> None:
    """Refuse code where the service takes none.

    Raises:
        ForbiddenError: it takes none.
    """
    if not is_on:
        raise ForbiddenError(
            "this service runs no code of its users: the operator has not set XSAM_CODE__UPLOAD=on", field="code"
        )
