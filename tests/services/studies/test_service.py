"""A study's submit shares its key, and the row it makes, with that of jobs."""

import pytest

from tests.support import jobs, studies
from xsam.services.errors import ConflictError
from xsam.services.jobs import service as job_service
from xsam.services.specs.job import JobSpec
from xsam.services.studies import reading, service, verbs
from xsam.services.studies.spec import StudySpec


def submit(database, key, **fields):
    with database.unit_of_work() as session:
        spec = StudySpec.model_validate({**studies.SMALL, **fields})
        job, is_new = service.submit(session, spec, actor=studies.ALICE, idempotency_key=key)
        return job.id, is_new


def test_submit__with_the_same_key_returns_the_first_study(database):
    (first, is_new), again = submit(database, "k"), submit(database, "k")
    assert (is_new, again) == (True, (first, False))
    assert (jobs.count(database, "jobs"), jobs.count(database, "studies")) == (1, 1)


def test_submit__with_the_same_key_finds_a_study_that_an_earlier_version_stored(database):
    first, _ = submit(database, "k")
    spec = dict(studies.read(database, first)[0].spec)
    del spec["max_failures"]  # as if it had been added since
    jobs.set_columns(database, first, spec=spec)
    assert submit(database, "k") == (first, False)


def test_submit__with_the_key_of_another_specification_or_of_a_job_is_a_conflict(database):
    first, _ = submit(database, "k")
    with pytest.raises(ConflictError, match=f"belongs to study {first}"):
        submit(database, "k", concurrency=7)
    with database.unit_of_work() as session, pytest.raises(ConflictError, match=f"belongs to study {first}"):
        job_service.submit(session, JobSpec(), actor=studies.ALICE, idempotency_key="k")
    with database.unit_of_work() as session:
        job, _ = job_service.submit(session, JobSpec(), actor=studies.ALICE, idempotency_key="j")
    with pytest.raises(ConflictError, match=f"belongs to job {job.id}"):
        submit(database, "j")


def test_axes__keep_the_order_in_which_they_were_given(database):
    wanted = ["optimizer.base.lr", "optimizer.rho", "batch_size", "optimizer.alpha_max"]
    dimensions = {
        "optimizer.base.lr": {"type": "log_uniform", "low": 0.01, "high": 0.1},
        "optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.5},
        "batch_size": {"type": "choice", "values": [16, 32]},
        "optimizer.alpha_max": {"type": "uniform", "low": 1.5, "high": 2.0},
    }
    study_id, _ = submit(database, "k", space={path: dimensions[path] for path in wanted})
    with database.unit_of_work() as session:
        wider = {"optimizer.rho": {"type": "log_uniform", "low": 0.005, "high": 0.5}}
        verbs.extend(session, study_id, actor=studies.ALICE, space=wider)
    with database.read() as session:
        assert [axis.path for axis in reading.read_plots(session, study_id).axes] == wanted
        assert list(reading.read_study(session, study_id).space) == wanted
