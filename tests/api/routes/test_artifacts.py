"""Files of a job over HTTP."""

from pathlib import Path

import httpx
import pytest

from tests.support import jobs
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.artifacts.store import JobFolder, log_prefix, prefix_of
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.settings import ArtifactSettings, Settings
from xsam.services.stores.store import StorePlace

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture(params=["folder", "bucket"])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    if request.param == "folder":
        return settings
    place: StorePlace = request.getfixturevalue("bucket_place")
    artifacts = ArtifactSettings(url=place.url, endpoint=place.endpoint)
    return settings.model_copy(update={"artifacts": artifacts})


@pytest.fixture
def job_id(client: Client, settings: Settings) -> str:
    """A job with weights, a checkpoint and a log."""
    job_id = client.submit({"name": "with-files", "epochs": 3}).id
    for name in ("weights/best.safetensors", "checkpoints/step-000000003/manifest.json", "attempts/1/logs/rank-0.log"):
        settings.store_place.open().put_bytes(prefix_of(job_id, name), WEIGHTS)
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
    assert answer.headers["content-range"] == f"bytes 100-199/{len(WEIGHTS)}"
    assert httpx.get(address, headers={"Range": "bytes=-10"}).content == WEIGHTS[-10:]
    state = answer.headers["etag"]
    for if_range, status in ((state, 206), (answer.headers["last-modified"], 206), ('"other"', 200)):
        again = httpx.get(address, headers={"Range": "bytes=9-", "If-Range": if_range})
        assert (again.status_code, again.content) == (status, WEIGHTS[9:] if status == 206 else WEIGHTS)
    beyond = httpx.get(address, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(WEIGHTS)}")
    assert httpx.get(address, headers={"Range": "lines=1-2"}).status_code in (200, 400)


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


def test_log__of_a_running_job_is_followed_as_it_is_written(
    url: str, client: Client, settings: Settings, database: Database
) -> None:
    lease = jobs.submit_and_claim(database)
    store, name = settings.store_place.open(), f"{log_prefix(lease.job_id, 1)}/rank-0.log"
    store.put_bytes(name, b"2026-01-01T00:00:00.000000Z one\n")
    assert client.logs(lease.job_id).splitlines()[-1].endswith("one")
    with httpx.stream("GET", f"{url}/v1/jobs/{lease.job_id}/logs?follow=true", timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines).endswith("[rank 0] one")
        store.put_bytes(name, b"2026-01-01T00:00:00.000000Z one\n2026-01-01T00:00:01.000000Z two\n")
        assert next(lines).endswith("[rank 0] two")
        texts = (b"one", b"two", b"last")
        store.put_bytes(name, b"".join(b"2026-01-01T00:00:0%d.000000Z %s\n" % one for one in enumerate(texts)))
        with database.unit_of_work() as session:
            queue.complete(session, lease, summary={})
        assert [line[-4:] for line in lines] == ["last"]


def test_link_out_of_the_folder__is_neither_listed_nor_sent(
    client: Client, settings: Settings, job_id: str, tmp_path: Path
) -> None:
    if settings.store_place.is_bucket:
        pytest.skip("a bucket has no links")
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
