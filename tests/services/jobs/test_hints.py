import pytest

from tests.support import jobs
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.hints import hint
from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.states import FailureKind
from xsam.services.specs.job import JobSpec


@pytest.mark.parametrize("kind", FailureKind)
@pytest.mark.parametrize("variant", ["sgd", "sam", "xsam"])
def test_hint__tells_a_person_what_to_do_about_every_kind(kind: FailureKind, variant: str) -> None:
    text = hint(kind, JobSpec.model_validate({"optimizer": {"variant": variant}}))
    assert text.endswith(".")
    assert "etry" in text or "lone" in text


def test_hint__speaks_of_the_jobs_own_numbers() -> None:
    spec = JobSpec.model_validate({"batch_size": 48, "optimizer": {"variant": "sam", "rho": 0.3}})
    assert "48" in hint(FailureKind.OUT_OF_MEMORY, spec)
    assert "bf16" in hint(FailureKind.OUT_OF_MEMORY, spec)
    assert "micro_batches above 1" in hint(FailureKind.OUT_OF_MEMORY, spec)
    assert "0.3" in hint(FailureKind.DIVERGED, spec)
    assert "warmup" in hint(FailureKind.DIVERGED, spec)
    one_cycle = JobSpec.model_validate({"schedule": {"name": "one_cycle"}})
    assert "warmup" not in hint(FailureKind.DIVERGED, one_cycle)
    assert "bf16" not in hint(FailureKind.OUT_OF_MEMORY, spec.model_copy(update={"precision": "bf16"}))


def test_job_read__shows_kind_message_and_hint_of_a_failure(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=FailureKind.DIVERGED, message="loss is nan at step 9")
    failure = JobRead.of(jobs.read(database, lease.job_id)).failure
    assert failure is not None
    assert (failure.kind, failure.message) == (FailureKind.DIVERGED, "loss is nan at step 9")
    assert "learning rate" in failure.hint
