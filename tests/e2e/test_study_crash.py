"""A study when everything is killed at once: API, dispatcher, Ray, the study's runner and the ranks."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import descendants, is_alive
from tests.support.served import Served, served

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 280.0
STUDY: dict[str, Any] = {
    "base": {"epochs": 12, "dataset": {"name": "digits", "label_noise": 0.4}},
    "space": {
        "optimizer.rho": {"type": "log_uniform", "low": 0.02, "high": 0.3},
        "optimizer.ascent_steps": {"type": "choice", "values": [1, 2]},
    },
    "sampler": {"name": "tpe", "startup_trials": 3},
    "early_stopping": {"name": "asha", "grace": 0.25},
    "num_trials": 5,
    "concurrency": 2,
    "control": True,
    "confirm_seeds": 2,
}


def test_everything_killed_at_once__study_goes_on_without_running_a_finished_trial_again(tmp_path: Path) -> None:
    with served(tmp_path / "data", "--num-cpus", "2", is_warmed=False) as service:
        study_id = str(httpx.post(f"{service.url}/v1/studies", json=STUDY).raise_for_status().json()["id"])
        _wait(service, study_id, lambda trials: sum(t["state"] == "succeeded" for t in trials) >= 2)
        _wait(service, study_id, lambda trials: any(t["state"] == "running" and t["epochs_done"] > 0 for t in trials))
        before = {t["number"]: t for t in _trials(service, study_id)}
        _kill_all(service)
    with served(tmp_path / "data", "--num-cpus", "2", is_warmed=False) as service:
        study = _wait_end(service, study_id)
        after = {t["number"]: t for t in _trials(service, study_id)}
        attempts = {n: _get(service, f"/v1/jobs/{t['id']}")["attempt"] for n, t in after.items()}
        epochs = {
            n: [row["epoch"] for row in _get(service, f"/v1/jobs/{t['id']}/metrics")["items"]] for n, t in after.items()
        }
    assert study["state"] == "succeeded"
    finished = {number for number, trial in before.items() if trial["state"] == "succeeded"}
    for number in finished:
        assert after[number] == before[number]
        assert attempts[number] == 1
    assert all(rows == list(range(1, len(rows) + 1)) for rows in epochs.values())
    assert max(attempts.values()) == 2
    kinds = [(t["arm"], t["phase"]) for t in after.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        ("xsam", "search"): 5,
        ("sam", "search"): 5,
        ("sgd", "search"): 1,
        ("xsam", "confirm"): 2,
        ("sam", "confirm"): 2,
        ("sgd", "confirm"): 2,
    }
    keys = [(t["arm"], t["phase"], t["config"], t["seed"]) for t in after.values()]
    assert len(keys) == len(set(keys))
    assert {comparison["against"] for comparison in study["comparisons"]} == {"sgd", "sam"}
    assert {comparison["basis"] for comparison in study["comparisons"]} == {"confirm"}


def _get(service: Served, path: str) -> dict[str, Any]:
    return dict(httpx.get(service.url + path, timeout=60).raise_for_status().json())


def _trials(service: Served, study_id: str) -> list[dict[str, Any]]:
    return list(_get(service, f"/v1/studies/{study_id}/trials?limit=200")["items"])


def _wait(service: Served, study_id: str, condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition(_trials(service, study_id)):
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.2)


def _wait_end(service: Served, study_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while (study := _get(service, f"/v1/studies/{study_id}"))["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, f"still {study['state']}: {study['num_by_state']}"
        time.sleep(0.3)
    return study


def _kill_all(service: Served) -> None:
    """SIGKILL the service and every process below it."""
    doomed = [service.process.pid, *descendants(service.process.pid)]
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended with its parent
    service.process.wait()
    deadline = time.monotonic() + PATIENCE_S
    while any(is_alive(pid) for pid in doomed) and time.monotonic() < deadline:
        time.sleep(0.1)
