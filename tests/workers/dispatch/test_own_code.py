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
from xsam.services.checks import service as checks
from xsam.services.jobs import service as jobs
from xsam.services.jobs import verbs
from xsam.services.jobs.states import JobState
from xsam.services.settings import AllowedCode, CodeSettings
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor

pytestmark = pytest.mark.ray

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
ANN = Actor("ann", "red")
ALLOWED = AllowedCode(takes_bundles=True)


def spec_of(live: LiveService, folder: Path, **spec: Any) -> JobSpec:
    """Upload a folder and return the job that brings it."""
    limits = archive.limits_of(CodeSettings())
    packed = archive.pack(folder, limits)
    with live.database.unit_of_work() as session:
        store = live.settings.store_place.open()
        bundles.add(session, store, packed.id, packed.packed, actor=ANN, limits=limits, origin=Origin())
    return JobSpec.model_validate({"code": {"bundle": packed.id}, **spec})


def submit(live: LiveService, folder: Path, **spec: Any) -> str:
    given = spec_of(live, folder, **spec)
    with live.database.unit_of_work() as session:
        return jobs.submit(session, given, actor=ANN, allowed=ALLOWED)[0].id


def ask(live: LiveService, folder: Path, **spec: Any) -> dict[str, Any]:
    """Have a job checked and return the answer."""
    given = spec_of(live, folder, **spec)
    with live.database.unit_of_work() as session:
        check_id = checks.submit(session, given, actor=ANN, allowed=ALLOWED).id

    def answer() -> dict[str, Any] | None:
        with live.database.read() as session:
            return checks.get(session, check_id).answer

    live.turn_until(lambda: answer() is not None)
    return answer() or {}


def weights(live: LiveService, job_id: str) -> dict[str, torch.Tensor]:
    return load_file(JobFolder(live.settings.artifact_root, job_id).path / "weights" / "last.safetensors")


def rank_pids() -> set[int]:
    titles = descendants(os.getpid())
    return {pid for pid, title in titles.items() if title.startswith("ray::RankWorker")}


def test_own_task__killed_rank_resumes_bit_equal_and_its_processes_are_its_own(live: LiveService) -> None:
    spec = {
        "task": {"target": "acme_defects.task:Defects"},
        "optimizer": {"variant": "xsam"},
        "epochs": 60,
        "resources": {"num_workers": 2},
    }
    before = live.submit(epochs=1, optimizer={"variant": "sgd"}, resources={"num_workers": 2})
    live.finish(before)
    whole = submit(live, EXAMPLES / "defects", **spec)
    live.reach_epoch(whole, 1)
    used = live.training_event(whole)["rank_pid"]
    assert used in rank_pids()
    assert used != live.training_event(before)["rank_pid"], "nothing has run there before"
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


def test_script__on_two_ranks_pauses_and_goes_on(live: LiveService) -> None:
    spec = {
        "entrypoint": "train.py",
        "config": {"epochs": 40},
        "epochs": 40,
        "best": "accuracy:max",
        "resources": {"num_workers": 2},
    }
    whole = submit(live, EXAMPLES / "own_loop", **spec)
    assert live.finish(whole).state == JobState.SUCCEEDED, live.job(whole).failure_message
    paused = submit(live, EXAMPLES / "own_loop", **spec)
    live.reach_epoch(paused, 3)
    with live.database.unit_of_work() as session:
        verbs.pause(session, paused, actor=ANN)
    live.turn_until(lambda: live.job(paused).state == JobState.PAUSED)
    assert 3 <= live.job(paused).epochs_done < 40
    with live.database.unit_of_work() as session:
        verbs.resume(session, paused, actor=ANN)
    job = live.finish(paused)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert [row.epoch for row in live.epochs(paused)] == list(range(1, 41))
    assert live.epochs(paused)[-1].eval_accuracy == live.epochs(whole)[-1].eval_accuracy
    assert [row.alpha for row in live.alphas(paused)] == [row.alpha for row in live.alphas(whole)]
    assert "checkpoint step-" in live.log(paused)


def test_check__answers_from_a_process_of_its_own_within_its_time(
    live: LiveService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = ask(live, EXAMPLES / "defects", task={"target": "acme_defects.task:Defects"})
    assert (good["error"], good["best"], good["steps_per_epoch"]) == (None, "macro_f1:max", 10)
    wrong = ask(live, EXAMPLES / "defects", task={"target": "acme_defects.task:Defect"})
    assert "did you mean 'Defects'?" in wrong["error"]
    (tmp_path / "crash.py").write_text("import os\nos._exit(7)\n")
    (tmp_path / "endless.py").write_text("while True: ...\n")
    crash = ask(live, tmp_path, task={"target": "crash:Task"})
    assert "ended before it could answer" in crash["error"]
    code = live.settings.code.model_copy(update={"check_within_s": 5.0})
    short = live.settings.model_copy(update={"code": code})
    monkeypatch.setattr(live.dispatcher._checks, "_settings", short)
    endless = ask(live, tmp_path, task={"target": "endless:Task"})
    assert endless["error"] == "it did not import, build and take one step within 5 s"
