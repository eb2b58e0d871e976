"""Jobs that bring their own code, on a real local Ray cluster."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.live_service import LiveService
from tests.support.processes import descendants
from xsam.services.artifacts.store import JobFolder
from xsam.services.bundles import archive
from xsam.services.bundles import service as bundles
from xsam.services.bundles.service import Origin
from xsam.services.jobs import service as jobs
from xsam.services.jobs.states import JobState
from xsam.services.settings import AllowedCode, CodeSettings
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor

pytestmark = pytest.mark.ray

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
ANN = Actor("ann", "red")


def submit(live: LiveService, folder: Path, **spec: Any) -> str:
    limits = archive.limits_of(CodeSettings())
    packed = archive.pack(folder, limits)
    with live.database.unit_of_work() as session:
        root = live.settings.artifact_root
        bundles.add(session, root, packed.id, packed.packed, actor=ANN, limits=limits, origin=Origin())
        given = JobSpec.model_validate({"code": {"bundle": packed.id}, **spec})
        return jobs.submit(session, given, actor=ANN, allowed=AllowedCode(takes_bundles=True))[0].id


def weights(live: LiveService, job_id: str) -> dict[str, torch.Tensor]:
    return load_file(JobFolder(live.settings.artifact_root, job_id).path / "weights" / "last.safetensors")


def rank_pids() -> set[int]:
    titles = descendants(os.getpid())
    return {pid for pid, title in titles.items() if title.startswith("ray::RankWorker")}


def test_own_task__killed_rank_resumes_bit_equal_and_its_processes_end_with_it(live: LiveService) -> None:
    spec = {
        "task": {"target": "acme_defects.task:Defects"},
        "optimizer": {"variant": "xsam"},
        "epochs": 60,
        "resources": {"num_workers": 2},
    }
    whole = submit(live, EXAMPLES / "defects", **spec)
    live.reach_epoch(whole, 1)
    used = live.training_event(whole)["rank_pid"]
    assert used in rank_pids()
    assert live.finish(whole).state == JobState.SUCCEEDED, live.job(whole).failure_message
    live.turn_until(lambda: used not in rank_pids())  # another team's code must not meet what this one left

    killed = submit(live, EXAMPLES / "defects", **spec, checkpoint={"every_steps": 7})
    live.reach_epoch(killed, 2)
    os.kill(live.training_event(killed)["rank_pid"], signal.SIGKILL)
    job = live.finish(killed)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    for name, tensor in weights(live, whole).items():
        assert torch.equal(weights(live, killed)[name], tensor), name
    assert job.summary is not None
    assert job.summary["best_metric"] == "macro_f1:max"
    assert job.summary["final_metrics"] == live.job(whole).summary["final_metrics"]
    live.turn_until(live.all_resources_are_free)
