import time
from pathlib import Path

import pytest

from tests.support.wheels import wheel
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.requirements import service as requirements
from xsam.services.requirements.models import RequirementsLock
from xsam.services.settings import AllowedCode, CodeSettings, Settings
from xsam.services.teams.roles import Actor
from xsam.workers.dispatch.requirements_locks import RequirementsLocks

ANY = AllowedCode(takes_bundles=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    wheel(tmp_path / "wheels", "tinyloss")
    return Settings(data_dir=tmp_path, code=CodeSettings(index=str(tmp_path / "wheels")))


def test_locks__are_made_without_waiting_and_failures_are_told(settings: Settings) -> None:
    database = Database(settings.database_url)
    migrate.upgrade(database)
    with database.unit_of_work() as session:
        asked = [
            requirements.submit(session, text, actor=Actor("ann", "red"), allowed=ANY).id
            for text in ("tinyloss", "tinyloss==2", "numpy")
        ]
        assert requirements.take(session, asked[0])  # by a dispatcher that has died since
    locks = RequirementsLocks(settings, database)

    def rows() -> list[RequirementsLock]:
        with database.read() as session:
            return [requirements.get(session, one) for one in asked]

    deadline = time.monotonic() + 60
    while any(row.state != "done" for row in rows()):
        assert time.monotonic() < deadline
        locks.turn()
        time.sleep(0.05)
    good, wrong, nothing = rows()
    assert (good.lock or "").startswith("tinyloss==1.0 --hash=sha256:")
    assert wrong.lock_id is None
    assert "tinyloss==2" in (wrong.error or "")
    assert (nothing.lock, nothing.error) == ("", None)
    database.dispose()
