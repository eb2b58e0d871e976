"""Files of a job over HTTP."""

from pathlib import Path

import httpx
import pytest

from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.artifacts.store import JobFolder
from xsam.services.settings import Settings

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def job_id(client: Client, settings: Settings) -> str:
    """A job with weights, a checkpoint and a log."""
    job_id = client.submit({"name": "with-files", "epochs": 3}).id
    root = JobFolder(settings.artifact_root, job_id).path
    for name in ("weights/best.safetensors", "checkpoints/step-000000003/manifest.json", "attempts/1/logs/rank-0.log"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(WEIGHTS)
    return job_id


def test_list__names_every_kind(client: Client, job_id: str) -> None:
    assert [(file.kind, file.name, file.size_bytes) for file in client.artifacts(job_id)] == [
        ("weights", "weights/best.safetensors", len(WEIGHTS)),
        ("checkpoint", "checkpoints/step-000000003/manifest.json", len(WEIGHTS)),
        ("log", "attempts/1/logs/rank-0.log", len(WEIGHTS)),
    ]


def test_download__gives_the_bytes_and_ranges_of_them(client: Client, url: str, job_id: str, tmp_path: Path) -> None:
    client.download(job_id, "weights/best.safetensors", tmp_path / "best.safetensors")
    assert (tmp_path / "best.safetensors").read_bytes() == WEIGHTS
    address = f"{url}/v1/jobs/{job_id}/artifacts/weights/best.safetensors"
    answer = httpx.get(address, headers={"Range": "bytes=100-199"})
    assert (answer.status_code, answer.content) == (206, WEIGHTS[100:200])


@pytest.mark.parametrize(
    "name",
    [
        "weights/none.safetensors",
        "../../../xsam.db",
        "%2e%2e/%2e%2e/%2e%2e/xsam.db",
        "/etc/passwd",
        "weights/%2e%2e/checkpoints/step-000000003/manifest.json",
        "weights",
    ],
)
def test_download__of_what_is_not_listed_is_not_found(url: str, job_id: str, name: str) -> None:
    answer = httpx.get(f"{url}/v1/jobs/{job_id}/artifacts/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_link_out_of_the_folder__is_neither_listed_nor_sent(
    client: Client, settings: Settings, job_id: str, tmp_path: Path
) -> None:
    link = JobFolder(settings.artifact_root, job_id).path / "weights" / "last.safetensors"
    (tmp_path / "secret").write_text("secret")
    link.symlink_to(tmp_path / "secret")
    assert all(file.name != "weights/last.safetensors" for file in client.artifacts(job_id))
    with pytest.raises(ApiError, match="no artifact"):
        client.download(job_id, "weights/last.safetensors", tmp_path / "got")


def test_model_card__can_be_submitted_again(client: Client, job_id: str) -> None:
    card = client.model_card(job_id)
    assert [file.name for file in card.weights] == ["weights/best.safetensors"]
    assert client.submit(card.spec).spec == client.get(job_id).spec
