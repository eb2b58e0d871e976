"""the one way to a new state: it lets through what the table lists, and nothing else."""

import pytest

from tests.support import jobs
from xsam.services.db.session import Database
from xsam.services.errors import InvalidTransitionError
from xsam.services.jobs import attempts
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.states import TRANSITIONS, JobState

IDLE = tuple(state for state in JobState if state is not JobState.RUNNING)


def _job_in(database: Database, state: JobState) -> str:
    job_id = jobs.submit(database)
    if state is JobState.RUNNING:
        jobs.claim(database, job_id)
    else:
        jobs.set_columns(database, job_id, state=state)
    return job_id


def _move(database: Database, job_id: str, to: JobState) -> None:
    with database.unit_of_work() as session:
        attempts.move(session, session.get_one(Job, job_id), to)


@pytest.mark.parametrize("to", IDLE)
@pytest.mark.parametrize("old", JobState)
def test_move__goes_only_where_the_table_says(sqlite_database: Database, old: JobState, to: JobState) -> None:
    job_id = _job_in(sqlite_database, old)
    if to in TRANSITIONS[old]:
        _move(sqlite_database, job_id, to)
        assert jobs.state(sqlite_database, job_id) is to
        return
    with pytest.raises(InvalidTransitionError, match=f"from {old} to {to}"):
        _move(sqlite_database, job_id, to)
    assert jobs.state(sqlite_database, job_id) is old


def test_move__takes_up_a_study_that_succeeded(sqlite_database: Database) -> None:
    job_id = _job_in(sqlite_database, JobState.SUCCEEDED)
    jobs.set_columns(sqlite_database, job_id, kind=KIND_STUDY)
    _move(sqlite_database, job_id, JobState.QUEUED)
    with sqlite_database.read() as session:
        assert session.get_one(Job, job_id).state == JobState.QUEUED


def test_move_all__moves_those_in_the_old_state_and_refuses_what_the_table_does_not_list(
    sqlite_database: Database,
) -> None:
    queued, paused = _job_in(sqlite_database, JobState.QUEUED), _job_in(sqlite_database, JobState.PAUSED)
    either = Job.id.in_([queued, paused])
    with sqlite_database.unit_of_work() as session:
        assert attempts.move_all(session, either, (JobState.PAUSED,), JobState.CANCELLED) == [paused]
    with sqlite_database.unit_of_work() as session, pytest.raises(InvalidTransitionError):
        attempts.move_all(session, either, (JobState.QUEUED, JobState.CANCELLED), JobState.PAUSED)
    assert jobs.state(sqlite_database, queued) is JobState.QUEUED
