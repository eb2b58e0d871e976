import pytest
from sqlalchemy import update

from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import ForbiddenError, InvalidRequestError
from xsam.services.requirements import service as requirements
from xsam.services.requirements.models import RequirementsLock
from xsam.services.settings import NO_CODE, AllowedCode
from xsam.services.teams.roles import Actor

ANN, BOB = Actor("ann", "red"), Actor("bob", "blue")
ANY = AllowedCode(takes_bundles=True)
LOCK = f"einops==0.8.1 --hash=sha256:{64 * 'a'}\n"


def test_lock__is_made_once_and_named_by_its_text(database: Database) -> None:
    with database.unit_of_work() as session:
        asked = requirements.submit(session, "einops", actor=ANN, allowed=ANY).id
        assert requirements.submit(session, "einops", actor=ANN, allowed=ANY).id == asked
        assert requirements.due(session, limit=5) == [(asked, "einops")]
        assert requirements.take(session, asked)
        assert not requirements.take(session, asked), "one dispatcher has it"
        requirements.answer(session, asked, lock=LOCK, error=None)
        requirements.answer(session, asked, lock=None, error="too late")
    with database.read() as session:
        row = requirements.get(session, asked)
        assert (row.state, row.lock, row.error) == ("done", LOCK, None)
        assert row.lock_id is not None
        assert requirements.lock_of(session, row.lock_id) == LOCK
        requirements.check(session, row.lock_id, team="red", allowed=ANY)
        with pytest.raises(InvalidRequestError, match="which team blue has not made"):
            requirements.check(session, row.lock_id, team="blue", allowed=ANY)
        none = AllowedCode(takes_bundles=True, dependencies="none")
        with pytest.raises(ForbiddenError, match="ALLOW_DEPENDENCIES=none"):
            requirements.check(session, row.lock_id, team="red", allowed=none)


def test_lock__of_yesterday_or_of_another_team_is_made_anew_and_failures_are_forgotten(database: Database) -> None:
    with database.unit_of_work() as session:
        first = requirements.submit(session, "einops", actor=ANN, allowed=ANY).id
        assert requirements.submit(session, "einops", actor=BOB, allowed=ANY).id != first
        failed = requirements.submit(session, "nowhere", actor=ANN, allowed=ANY).id
        requirements.answer(session, failed, lock=None, error="not found")
        assert requirements.submit(session, "nowhere", actor=ANN, allowed=ANY).id != failed
        requirements.answer(session, first, lock=LOCK, error=None)
        session.execute(update(RequirementsLock).values(created_at=db_now(-requirements.REUSED_S - 60)))
    with database.unit_of_work() as session:
        assert requirements.submit(session, "einops", actor=ANN, allowed=ANY).id != first
        requirements.forget_failed(session)
        assert requirements.team_of(session, failed) is None
        assert requirements.team_of(session, first) == "red"


def test_lock__is_refused_by_what_the_operator_allows(database: Database) -> None:
    with database.unit_of_work() as session:
        with pytest.raises(ForbiddenError, match="runs no code of its users"):
            requirements.submit(session, "einops", actor=ANN, allowed=NO_CODE)
        none = AllowedCode(takes_bundles=True, dependencies="none")
        with pytest.raises(ForbiddenError, match="installs no packages"):
            requirements.submit(session, "einops", actor=ANN, allowed=none)
        locked = AllowedCode(takes_bundles=True, dependencies="locked")
        with pytest.raises(InvalidRequestError, match="einops is not locked"):
            requirements.submit(session, "einops", actor=ANN, allowed=locked)
        requirements.submit(session, LOCK, actor=ANN, allowed=locked)
