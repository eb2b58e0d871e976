from pathlib import Path

import httpx
import pytest

from tests.api.bad_submits import BAD_SUBMITS, BadSubmit, as_markdown
from xsam.api.http.problems import PROBLEM_JSON, Problem

pytestmark = pytest.mark.usefixtures("small_cluster")


@pytest.mark.parametrize("bad", BAD_SUBMITS, ids=lambda bad: bad.what)
def test_submit__refuses_with_status_code_and_field(http: httpx.Client, bad: BadSubmit) -> None:
    http.post("/v1/jobs", json={"epochs": 1}, headers={"Idempotency-Key": "taken"}).raise_for_status()

    response = http.post("/v1/jobs", content=bad.content, headers=bad.all_headers)

    problem = Problem.model_validate_json(response.content)
    assert response.headers["content-type"] == PROBLEM_JSON
    assert (response.status_code, problem.status, problem.code) == (bad.status, bad.status, bad.code)
    assert [error.field for error in problem.errors] == ([bad.field] if bad.field else [])
    assert problem.request_id == response.headers["x-request-id"]
    assert len(http.get("/v1/jobs").json()["items"]) == 1, "a refused submit queued a job"


def test_markdown__has_a_row_for_each() -> None:
    assert len(as_markdown().splitlines()) == len(BAD_SUBMITS) + 2
    assert len(BAD_SUBMITS) >= 25


def test_table_in_the_repository__is_the_tested_one() -> None:
    assert Path(__file__).with_name("bad_submits.md").read_text().strip() == as_markdown()
