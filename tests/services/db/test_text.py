"""Text that no database stores: lone surrogates and NUL, wherever they come from."""

import pytest
from sqlalchemy import select

from tests.support import jobs
from xsam.services.db.session import Database
from xsam.services.db.text import MAX_FREE_CHARS, storable
from xsam.services.jobs import events, queue
from xsam.services.jobs.models import Job, JobEvent
from xsam.services.jobs.states import FailureKind, JobState


@pytest.mark.parametrize(
    ("text", "stored"),
    [("plain", "plain"), ("ü 🙂", "ü 🙂"), ("boom \udcff", "boom \\udcff"), ("a\0b", "a\\x00b"), ("", "")],
)
def test_storable__spells_out_what_no_database_takes(text: str, stored: str) -> None:
    assert storable(text) == stored


def test_failure_whose_message_no_database_stores__is_the_job_s_failure(database: Database) -> None:
    lease = jobs.submit_and_claim(database, retry={"user": 0})
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=FailureKind.USER, message="boom \udcff\0", traceback="line\0\n" * 3)
    job = jobs.read(database, lease.job_id)
    assert (job.state, job.failure_message) == (JobState.FAILED, "boom \\udcff\\x00")


def test_document__has_its_texts_and_keys_spelled_out(database: Database) -> None:
    job_id = jobs.submit(database)
    with database.unit_of_work() as session:
        events.record(session, job_id, "test", "x", data={"na\0me": ["\udcff", {"emoji": "🙂"}], "n": 1})
    with database.read() as session:
        (data,) = session.scalars(select(JobEvent.data).where(JobEvent.kind == "test"))
    assert data == {"na\\x00me": ["\\udcff", {"emoji": "🙂"}], "n": 1}


def test_comparison_with_such_text__finds_nothing(database: Database) -> None:
    jobs.submit(database)
    with database.read() as session:
        assert session.scalars(select(Job.id).where(Job.name.in_(["\udcff", "\0"]))).all() == []


def test_endless_message__loses_its_middle(database: Database) -> None:
    lease = jobs.submit_and_claim(database, retry={"user": 0})
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=FailureKind.USER, message="<" + "x" * 10_000_000 + ">")
    message = jobs.read(database, lease.job_id).failure_message or ""
    assert len(message) <= MAX_FREE_CHARS
    assert message[0] + message[-1] == "<>"
    assert "characters left out" in message


def test_several_rows_in_one_statement__are_stored_as_they_are(database: Database) -> None:
    job_id = jobs.submit(database)
    with database.unit_of_work() as session:
        session.add_all([JobEvent(job_id=job_id, kind="test", actor=f"x{i}\0", message="", data={}) for i in range(3)])
    with database.read() as session:
        assert set(session.scalars(select(JobEvent.actor).where(JobEvent.kind == "test"))) == {
            f"x{i}\\x00" for i in range(3)
        }
