import pytest

from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.api.client.errors import ApiError, WaitTimeoutError
from xsam.services.jobs.states import JobState
from xsam.services.specs.job import JobSpec
from xsam.services.specs.optimizer import SamVariant


def test_submit__takes_a_specification_or_a_mapping(client: Client) -> None:
    spec = JobSpec(optimizer=SamVariant(rho=0.2), epochs=3)
    assert client.submit(spec).spec == spec
    assert client.submit({"optimizer": {"variant": "sam", "rho": 0.2}, "epochs": 3}).spec == spec


def test_submit__makes_a_job_each_time_unless_named(client: Client) -> None:
    assert client.submit({}).id != client.submit({}).id
    assert client.submit({}, idempotency_key="k").id == client.submit({}, idempotency_key="k").id


def test_submit__refusal_names_code_status_and_fields(client: Client) -> None:
    with pytest.raises(ApiError, match=r"optimizer\.rho must be greater than 0") as caught:
        client.submit({"optimizer": {"variant": "sam", "rho": -1}})
    assert (caught.value.code, caught.value.status) == ("validation_failed", 422)
    (field,) = caught.value.fields
    assert (field.field, field.value) == ("optimizer.rho", -1)


def test_list__reads_page_after_page(client: Client) -> None:
    ids = [client.submit({}).id for _ in range(3)]
    first = client.page(limit=1)
    assert [job.id for job in first.items] == ids[2:]
    assert first.next_cursor is not None
    assert [job.id for job in client.list()] == ids[::-1]


def test_wait__returns_however_the_job_ended(client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    with pytest.raises(WaitTimeoutError, match=f"job {job.id} is still queued after 0 s"):
        client.wait(job.id, timeout_s=0)
    runner.fail(runner.claim(job.id))
    assert client.wait(job.id, timeout_s=5).state == JobState.FAILED


def test_errors__of_streams_come_as_problems(client: Client) -> None:
    with pytest.raises(ApiError, match="no job none"):
        list(client.follow_events("none"))
    with pytest.raises(ApiError, match="no job none"):
        list(client.follow_logs("none"))
