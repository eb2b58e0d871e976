"""Runs of the lab on a real local Ray cluster: from the submit to the verdict."""

import os
import signal
import time
from typing import Any

import pytest

from tests.support.live_service import LiveService
from xsam.services.lab import service
from xsam.services.lab.schemas import LabRunRead
from xsam.services.lab.spec import LabSpec
from xsam.services.metrics import service as metrics
from xsam.services.metrics.models import LossPlane
from xsam.services.metrics.records import PlaneRecord
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
    assert (found.state, found.num_done) == ("succeeded", 9)
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


def test_run__of_planes_ends_with_a_strip_and_its_verdict(live: LiveService) -> None:
    found = finish(live, figure="1a", scale="digits", base=SMALL)
    assert (found.state, found.num_done, found.failure) == ("succeeded", 6, None)
    assert found.finding is not None
    assert [panel.title.split(",")[0] for panel in found.finding.panels] == ["epoch 1", "epoch 2"]
    grid = [row for row in found.finding.rows if row[3] == "grid"]
    assert len(grid) == 2 * 25 * 25
    one = finish(live, figure="1a", job=next(s.job_id for s in found.stages if s.name == "run-0"))
    assert one.finding is not None
    assert [row[4:] for row in one.finding.rows if row[3] == "grid"] == [row[4:] for row in grid]


def test_plane__that_is_killed_goes_on_from_its_rows(live: LiveService) -> None:
    trained = live.finish(live.submit(**SMALL, optimizer={"variant": "sam"}))
    job_id = live.submit(plane={"job": trained.id, "checkpoints": "newest", "num_points": 101})

    def planes() -> list[PlaneRecord]:
        with live.database.read() as session:
            return metrics.list_planes(session, job_id)

    live.turn_until(lambda: bool(planes()))
    os.kill(live.training_event(job_id)["rank_pid"], signal.SIGKILL)
    while live.job(job_id).state == "running":
        time.sleep(0.05)
    (cut,) = planes()
    assert 0 < len(cut.losses) < 101
    assert cut.found is None
    mark = -1.0
    with live.database.unit_of_work() as session:  # a row that is computed again would lose it
        row = session.get_one(LossPlane, (job_id, cut.checkpoint))
        row.losses = [[mark] * 101, *row.losses[1:]]
    job = live.finish(job_id)
    assert (job.state, job.attempt, job.summary) == ("succeeded", 2, None)
    (whole,) = planes()
    assert whole.found is not None
    assert whole.losses[0] == (mark,) * 101
    assert whole.losses[1 : len(cut.losses)] == cut.losses[1:]
    assert len(whole.losses) == 101
    assert live.why(job_id)
