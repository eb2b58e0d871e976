"""A service whose artifacts lie in a bucket: its machines share nothing but that and the database."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from safetensors.torch import load

from tests.support.buckets import new_bucket
from tests.support.live_service import live_service
from tests.support.served import served
from tests.workers.conftest import Clusters
from tests.workers.training.runs import assert_equal_weights
from xsam.services.jobs.states import JobState
from xsam.services.settings import ArtifactSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SPEC = {
    "epochs": 20,
    "dataset": {"name": "digits", "augment": ["crop"], "label_noise": 0.2},
    "optimizer": {"variant": "xsam"},
    "checkpoint": {"every_steps": 10},
    "resources": {"num_workers": 2},
}


class _LostError(Exception):
    """Ends a machine without a word."""


def _train_on_a_machine_that_is_lost(folder: Path, database_url: str, artifacts: ArtifactSettings) -> str:
    with suppress(_LostError), live_service(folder, database_url=database_url, artifacts=artifacts) as live:
        job_id = live.submit(**SPEC)
        live.reach_epoch(job_id, 2)
        live.turn_until(lambda: "epoch 1: loss" in live.log(job_id))
        os.kill(live.training_event(job_id)["rank_pid"], signal.SIGKILL)
        raise _LostError
    return job_id


def test_job__goes_on_on_a_machine_with_another_folder_and_is_read_from_a_third(
    clusters: Clusters, s3_endpoint: str, tmp_path: Path
) -> None:
    clusters.end()
    artifacts = ArtifactSettings(url=f"{new_bucket(s3_endpoint)}/team", endpoint=s3_endpoint)
    database_url = f"sqlite:///{tmp_path / 'rows.db'}"
    job_id = _train_on_a_machine_that_is_lost(tmp_path / "a", database_url, artifacts)
    with live_service(tmp_path / "b", database_url=database_url, artifacts=artifacts) as second:
        job = second.finish(job_id)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
        assert [row.epoch for row in second.epochs(job_id)] == list(range(1, 21))
        whole_id = second.submit(**SPEC)
        assert second.finish(whole_id).state == JobState.SUCCEEDED
        leftovers = [path for path in (tmp_path / "b" / "artifacts" / "jobs").rglob("*") if path.is_file()]
        assert leftovers == [], "nothing of a job stays on a machine"
    environment = {**os.environ, "XSAM_ARTIFACTS__URL": str(artifacts.url), "XSAM_ARTIFACTS__ENDPOINT": s3_endpoint}
    with served(tmp_path / "c", "--no-dispatcher", database_url=database_url, environment=environment) as api:

        def read(of: str, what: str, **headers: str) -> bytes:
            return httpx.get(f"{api.url}/v1/jobs/{of}/{what}", headers=headers).raise_for_status().content

        weights, whole = (read(one, "artifacts/weights/last.safetensors") for one in (job_id, whole_id))
        assert_equal_weights(load(weights), load(whole))
        assert read(job_id, "artifacts/weights/last.safetensors", Range="bytes=100-199") == weights[100:200]
        log = read(job_id, "logs?attempt=2").decode()
        assert "[rank 0] INFO training: training begins with step" in log
        assert "[rank 1] INFO training: rank 1 of 2" in log
        assert "epoch 20: loss" in log
        assert "epoch 1: loss" in read(job_id, "logs?attempt=1").decode(), "lines of a lost machine"
        kinds = {one["kind"] for one in httpx.get(f"{api.url}/v1/jobs/{job_id}/artifacts").json()["items"]}
        assert kinds == {"weights", "checkpoint", "log", "tensorboard"}
