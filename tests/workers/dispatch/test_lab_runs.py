"""Runs of the lab on a real local Ray cluster: from the submit to the verdict."""

from typing import Any

import pytest

from tests.support.live_service import LiveService
from xsam.services.lab import service
from xsam.services.lab.schemas import LabRunRead
from xsam.services.lab.spec import LabSpec
from xsam.services.metrics import service as metrics
from xsam.services.teams.roles import Actor

pytestmark = pytest.mark.ray

SMALL = {"dataset": {"name": "synthetic", "num_train": 512, "num_eval": 32}, "batch_size": 32, "epochs": 2}


def finish(live: LiveService, **fields: Any) -> LabRunRead:
    """Make a figure and return what it has found."""
    with live.database.unit_of_work() as session:
        run_id = service.submit(session, LabSpec(**fields), actor=Actor("ann", "red"))[0].id

    def read() -> LabRunRead:
        with live.database.read() as session:
            return LabRunRead.of(service.get(session, run_id))

    live.turn_until(lambda: read().state != "running")
    return read()


def test_run__of_jobs_ends_with_what_they_have_measured(live: LiveService) -> None:
    found = finish(live, figure="2", scale="digits", base=SMALL)
    assert (found.state, found.num_done) == ("succeeded", 6)
    assert found.finding is not None
    searched = 0
    for stage in found.stages:
        with live.database.read() as session:
            searched += len(metrics.list_alphas(session, stage.job_id or ""))
    assert len(found.finding.rows) == searched > 0


def test_run__of_a_computation_ends_with_its_verdict(live: LiveService) -> None:
    found = finish(live, figure="1b")
    assert found.state == "succeeded"
    assert found.finding is not None
    assert {row[3] for row in found.finding.rows} == {1, 2, 3, 5, 7, 10}
    assert all(row[6] >= row[4] - 1e-9 for row in found.finding.rows)  # v(alpha*) is never behind g_k: alpha = 1 is it
