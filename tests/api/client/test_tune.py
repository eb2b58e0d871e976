"""Trials of somebody's own Tune script are jobs; `tests/e2e/test_own_project.py` has a real Tuner."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.workers.sdk.tune import ServiceTrial, applied

BASE = {"optimizer": {"variant": "xsam", "rho": 0.1}, "epochs": 3}


def trial(client: Client) -> ServiceTrial:
    return ServiceTrial(client, BASE, {"optimizer.rho": 0.2}, key="tune-a1_00000")


def test_config__changes_fields_by_dotted_names_and_leaves_the_base() -> None:
    found = applied(BASE, {"optimizer.rho": np.float64(0.3), "optimizer": {"base": {"lr": 0.5}}, "epochs": np.int64(2)})
    assert found == {"optimizer": {"variant": "xsam", "rho": 0.3, "base": {"lr": 0.5}}, "epochs": 2}
    assert type(found["epochs"]) is int
    assert BASE["optimizer"] == {"variant": "xsam", "rho": 0.1}
    with pytest.raises(ValueError, match="epochs is 3, which has no fields"):
        applied(BASE, {"epochs.rho": 1})


def test_trial__reports_each_epoch_as_it_comes_and_is_found_again(client: Client, runner: RowRunner) -> None:
    first = trial(client)
    assert client.get(first.job_id).spec.optimizer.rho == 0.2
    lease = runner.claim(first.job_id)
    runner.report(lease, 1, 2)
    assert first.next_epoch()["epoch"] == 1
    place = first.place()
    restored = trial(client)  # by a Tuner that was started again
    assert restored.job_id == first.job_id
    restored.go_on(place)
    assert restored.next_epoch() == first.next_epoch()
    runner.report(lease, 3)
    runner.complete(lease)
    last = restored.next_epoch()
    assert (last["epoch"], last["done"], last["job_id"]) == (3, True, first.job_id)
    assert {"loss", "accuracy", "train_loss"} <= last.keys()
    first.stop()
    assert client.get(first.job_id).state == "succeeded"


def test_trial__that_tune_stops_is_cancelled_and_goes_on_when_tune_resumes_it(
    client: Client, runner: RowRunner
) -> None:
    stopped = trial(client)
    lease = runner.claim(stopped.job_id)
    runner.report(lease, 1)
    place = [stopped.next_epoch(), stopped.place()][1]
    stopped.stop()
    assert client.get(stopped.job_id).wish == "cancel"
    runner.honour_cancel(lease)
    resumed = trial(client)
    assert resumed.job_id == stopped.job_id
    assert client.get(resumed.job_id).state == "queued"
    resumed.go_on(place)
    runner.report(runner.claim(resumed.job_id), 2)
    assert resumed.next_epoch()["epoch"] == 2


def test_trial__that_failed_or_copies_weights_says_so(client: Client, runner: RowRunner) -> None:
    failed = trial(client)
    with pytest.raises(RuntimeError, match="PBT"):
        failed.go_on({"job_id": "other", "epoch": 1})
    runner.fail(runner.claim(failed.job_id), "no such folder")
    with pytest.raises(RuntimeError, match=f"job {failed.job_id} failed: no such folder"):
        failed.next_epoch()


def test_sdk__loads_neither_ray_nor_the_client_before_they_are_used(tmp_path: Path) -> None:

    code = "import sys, xsam.sdk; print([n for n in ('ray', 'httpx', 'pydantic', 'xsam.api') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
