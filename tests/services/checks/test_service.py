import pytest

from tests.support import jobs
from xsam.services.checks import service as checks
from xsam.services.db.session import Database
from xsam.services.errors import ForbiddenError, InvalidRequestError, NotFoundError
from xsam.services.specs.job import JobSpec

CODE = {"code": {"bundle": "sha256:" + 64 * "0"}, "entrypoint": "train.py"}


def ask(database: Database) -> str:
    with database.unit_of_work() as session:
        return checks.submit(session, JobSpec(), actor=jobs.ALICE).id


def test_check__is_taken_once_and_its_first_answer_stays(database: Database) -> None:
    first, second = ask(database), ask(database)
    with database.unit_of_work() as session:
        assert [check_id for check_id, _ in checks.due(session, limit=5)] == [first, second]
        assert checks.take(session, first)
        assert not checks.take(session, first)
        assert [check_id for check_id, _ in checks.due(session, limit=5)] == [second]
        checks.answer(session, first, {"error": "one"})
        checks.answer(session, first, {"error": "two"})
        assert checks.get(session, first).answer == {"error": "one"}
        assert checks.team_of(session, first) == jobs.ALICE.team


def test_check__of_a_dispatcher_that_died_waits_again(database: Database) -> None:
    check_id = ask(database)
    with database.unit_of_work() as session:
        checks.take(session, check_id)
        checks.take_back(session)
        assert [found for found, _ in checks.due(session, limit=5)] == [check_id]


def test_check__is_refused_as_the_job_would_be(database: Database) -> None:
    with database.unit_of_work() as session, pytest.raises(ForbiddenError, match="XSAM_CODE__UPLOAD"):
        checks.submit(session, JobSpec.model_validate(CODE), actor=jobs.ALICE)
    task = JobSpec.model_validate({"task": {"target": "os:system"}})
    with database.unit_of_work() as session, pytest.raises(InvalidRequestError, match=r"task\.target"):
        checks.submit(session, task, actor=jobs.ALICE)
    with database.read() as session, pytest.raises(NotFoundError):
        checks.get(session, "zzzz")
