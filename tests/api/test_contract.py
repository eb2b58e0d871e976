"""The OpenAPI document against the server: generated requests, good and bad, get what the document promises."""

import httpx
import pytest
import schemathesis
from hypothesis import given
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.generated import can_be_wrong, few
from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.services.cluster.models import Dispatcher
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
_EXAMPLES = 5


@pytest.mark.slow
@pytest.mark.usefixtures("small_cluster")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
def test_document__is_what_the_server_does(
    url: str, client: Client, runner: RowRunner, database: Database, mode: GenerationMode
) -> None:
    with database.unit_of_work() as session:
        session.get_one(Dispatcher, "node-1:4711").seen_at = db_now(3600)  # alive until the test ends
    job = client.submit({"epochs": 2})
    runner.run(job.id)  # a job that has ended: its streams end too
    document = httpx.get(f"{url}/openapi.json", timeout=300).json()
    for operation in (one for verbs in document["paths"].values() for one in verbs.values()):
        operation.pop("security", None)  # a service without tokens admits everybody; who is refused has its own tests
    schema = schemathesis.openapi.from_dict(document)
    tested = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation):
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @few(_EXAMPLES)
        def check(case: schemathesis.Case) -> None:
            if mode is GenerationMode.POSITIVE and "job_id" in case.path_parameters:
                case.path_parameters["job_id"] = job.id
            case.call_and_validate(base_url=url, checks=_CHECKS, timeout=300)

        check()
        tested += 1
    assert tested > 5
