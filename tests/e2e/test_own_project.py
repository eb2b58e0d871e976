"""Somebody's own project from its folder to its weights, on a real service."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e import own_project
from tests.support.served import Served, served, wait_until
from xsam.api.client import Client
from xsam.services.jobs.schemas import JobRead

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("own-project")
    environment = {
        **os.environ,
        "XSAM_CODE__INDEX": str(folder / "wheels"),
        "XSAM_CODE__NODE_DIR": str(folder / "node"),
        "XSAM_SCHEDULING__MIN_RUN_TIME_S": "0",
    }
    (folder / "wheels").mkdir()
    with served(folder / "data", "--num-cpus", "2", environment=environment) as running:
        yield running


@pytest.fixture
def client(service: Served) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def command(service: Served, *words: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "xsam.api", *words, "--url", service.url],
        capture_output=True,
        text=True,
        cwd=service.data_dir.parent,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done


def submitted(client: Client, done: "subprocess.CompletedProcess[str]") -> JobRead:
    newest = next(iter(client.list()))
    assert newest.id in done.stdout
    return newest


def weights(client: Client, job_id: str, folder: Path) -> dict[str, torch.Tensor]:
    client.download(job_id, "weights/last.safetensors", folder / f"{job_id}.safetensors")
    return load_file(folder / f"{job_id}.safetensors")


def finished(client: Client, job_id: str) -> JobRead:
    job = client.wait(job_id, timeout_s=240)
    assert job.state == "succeeded", job.failure
    return job


def test_project__is_submitted_with_its_packages_preempted_and_resumed(
    service: Served, client: Client, tmp_path: Path
) -> None:
    file = own_project.write(tmp_path / "project", service.data_dir.parent / "wheels")
    first = command(service, "submit", str(file))
    assert "Left out, since they look like secrets: .env" in first.stderr
    assert "Locked 1 packages: tinyloss==1.0" in first.stderr
    assert "Uploaded 6 files" in first.stderr
    whole = submitted(client, first)
    assert whole.spec.requirements is not None
    finished(client, whole.id)

    second = command(service, "submit", str(file), "--set", "name=cut")
    assert "Uploaded" not in second.stderr, "the service has every byte of it"
    cut = submitted(client, second)
    wait_until(lambda: client.get(cut.id).progress.epochs_done >= 3)
    client.submit({"name": "urgent", "priority": 50, "epochs": 1, "resources": {"num_workers": 2}})
    job = finished(client, cut.id)
    assert job.attempt == 2
    assert "preempting" in [event.kind for event in client.events(cut.id)]
    assert [row.epoch for row in client.metrics(cut.id)] == list(range(1, 26))
    expected = weights(client, whole.id, tmp_path)
    for name, tensor in weights(client, cut.id, tmp_path).items():
        assert torch.equal(tensor, expected[name]), name
