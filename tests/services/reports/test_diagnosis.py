"""Each thing that can be wrong is found and comes with what to do."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import update

from tests.support import jobs, planning
from tests.support.callers import SECRET_KEY, make_secret, make_team
from xsam.services.artifacts import service as artifacts
from xsam.services.artifacts.store import JobFolder
from xsam.services.cluster import leader
from xsam.services.cluster import service as cluster
from xsam.services.cluster.counters import DispatcherCounters
from xsam.services.cluster.service import ForeignHolding, NodeSeen
from xsam.services.db import migrate
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs.models import Job
from xsam.services.metrics.records import CheckpointRecord
from xsam.services.reports import diagnosis, isolation
from xsam.services.reports.diagnosis import Finding, Level, diagnose
from xsam.services.settings import ArtifactSettings, DatabaseSettings, IsolationSettings, SecretSettings, Settings
from xsam.services.stores.store import ArtifactStore, StorePlace

NODE = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=2)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    url = SecretStr(database.engine.url.render_as_string(hide_password=False))
    return Settings(data_dir=tmp_path / "data", database=DatabaseSettings(url=url))


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "SLOW_DATABASE_S", 60)  # a busy machine is no finding here
    monkeypatch.setattr(diagnosis, "SLOW_STORE_S", 60)


@pytest.mark.usefixtures("healthy")
def test_database_and_folder_that_are_slow(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "SLOW_DATABASE_S", 0)
    monkeypatch.setattr(diagnosis, "SLOW_STORE_S", 0)
    wrong = _wrong(settings)
    assert (wrong["database"].level, wrong["artifact store"].level) == (Level.WARNING, Level.WARNING)


@pytest.fixture
def healthy(database: Database) -> None:
    with database.unit_of_work() as session:
        cluster.report_alive(session, "head:1:a", nodes=[NODE], num_warm_runners=0)
        leader.acquire(session, leader.DISPATCH, "head:1:a", lease_s=60)


def _wrong(settings: Settings) -> dict[str, Finding]:
    found = list(diagnose(settings))
    assert all(bool(one.to_do) == (one.level is not Level.OK) for one in found)
    return {one.about: one for one in found if one.level is not Level.OK}


@pytest.mark.usefixtures("healthy")
def test_sound_service__has_no_findings_but_good_ones(settings: Settings) -> None:
    assert _wrong(settings) == {}
    about = {one.about for one in diagnose(settings)}
    assert about >= {"database", "schema", "clock", "artifact store", "disk", "dispatcher", "versions", "Ray", "leases"}


def test_nobody_who_places_jobs__is_a_failure(settings: Settings) -> None:
    assert _wrong(settings)["dispatcher"].level is Level.FAILURE


def test_dispatcher_that_does_not_lead_or_sees_no_node(settings: Settings, database: Database) -> None:
    with database.unit_of_work() as session:
        cluster.report_alive(session, "head:1:a", nodes=[], num_warm_runners=0)
    wrong = _wrong(settings)
    assert (wrong["dispatcher"].level, wrong["Ray"].level) == (Level.WARNING, Level.FAILURE)


@pytest.mark.usefixtures("healthy")
def test_dispatcher_of_another_release(settings: Settings, database: Database) -> None:
    with database.unit_of_work() as session:
        counters = DispatcherCounters(release="9.9")
        cluster.report_alive(session, "head:1:a", nodes=[NODE], num_warm_runners=0, counters=counters)
    assert "9.9" in _wrong(settings)["versions"].text


@pytest.mark.usefixtures("healthy")
def test_nodes_with_faults_and_leaks(settings: Settings, database: Database) -> None:
    held = (ForeignHolding("somebody's actor", num_gpus=1, num_cpus=0),)
    planning.report_nodes(database, NODE, NodeSeen("n2", "node-2", 4, 2, foreign=held, set_aside="no CUDA"))
    wrong = _wrong(settings)
    assert "no CUDA" in wrong["GPUs"].text
    assert "1 GPUs" in wrong["leaks"].text


@pytest.mark.usefixtures("healthy")
def test_leases_that_nobody_takes_back(settings: Settings, database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(lease_expires_at=db_now(-9)))
    assert _wrong(settings)["leases"].level is Level.WARNING
    with database.unit_of_work() as session:
        leader.release(session, leader.DISPATCH, "head:1:a")
    assert _wrong(settings)["leases"].level is Level.FAILURE


def test_database_that_is_away(tmp_path: Path) -> None:
    url = SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")
    wrong = _wrong(Settings(data_dir=tmp_path, database=DatabaseSettings(url=url)))
    assert wrong["database"].level is Level.FAILURE
    assert "schema" not in wrong


def test_schema_of_another_release(tmp_path: Path, sqlite_database: Database) -> None:
    migrate.downgrade(sqlite_database, "-1")
    url = SecretStr(sqlite_database.engine.url.render_as_string())
    settings = Settings(data_dir=tmp_path / "data", database=DatabaseSettings(url=url))
    assert _wrong(settings)["schema"].level is Level.FAILURE


@pytest.mark.usefixtures("healthy")
def test_clock_that_is_off(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now = diagnosis.utc_now
    monkeypatch.setattr(diagnosis, "utc_now", lambda: now().replace(year=now().year + 1))
    assert _wrong(settings)["clock"].level is Level.WARNING


@pytest.mark.usefixtures("healthy")
def test_artifact_store_that_can_not_be_written(settings: Settings) -> None:
    settings.data_dir.mkdir()
    settings.artifact_root.write_text("a file where a folder should be")
    assert _wrong(settings)["artifact store"].level is Level.FAILURE


def _write_long_ago(store: ArtifactStore, name: str) -> None:
    store.put_bytes(name, b"1")
    os.utime(str(store.path(name)), (1, 1))


@pytest.mark.usefixtures("healthy")
def test_artifact_store_with_another_clock(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_write_and_read", _write_long_ago)
    assert "off this host's" in _wrong(settings)["artifact store"].text


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(("free", "level"), [(1, Level.FAILURE), (5, Level.WARNING)])
def test_disk_that_is_full(settings: Settings, monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 100 - free, free))
    assert _wrong(settings)["disk"].level is level


@pytest.mark.usefixtures("healthy")
def test_rows_and_files_that_do_not_belong_together(settings: Settings, database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    record = CheckpointRecord(name="step-1", step=1, epoch=1, size_bytes=1, sha256="0" * 64, is_best=False)
    with database.unit_of_work() as session:
        artifacts.write_checkpoints(session, lease, [record], kept=["step-1"])
    JobFolder(settings.artifact_root, "stranger").path.mkdir(parents=True)
    wrong = _wrong(settings)
    assert lease.job_id in wrong["checkpoints"].text
    assert "stranger" in wrong["files"].text
    (JobFolder(settings.artifact_root, lease.job_id).checkpoints / "step-1").mkdir(parents=True)
    JobFolder(settings.artifact_root, "stranger").path.rmdir()
    assert _wrong(settings) == {}


@pytest.mark.usefixtures("healthy")
def test_bucket(settings: Settings, database: Database, bucket_place: StorePlace) -> None:
    artifacts_in = ArtifactSettings(url=bucket_place.url, endpoint=bucket_place.endpoint)
    in_bucket = settings.model_copy(update={"artifacts": artifacts_in})
    assert _wrong(in_bucket) == {}
    assert list(bucket_place.open().list()) == [], "nothing is left behind"
    bucket_place.open().put_bytes("jobs/stranger/weights/best.safetensors", b"1")
    assert "stranger" in _wrong(in_bucket)["files"].text
    none = in_bucket.model_copy(update={"artifacts": artifacts_in.model_copy(update={"url": "s3://no-such-bucket"})})
    wrong = _wrong(none)["artifact store"]
    assert wrong.level is Level.FAILURE
    assert "s3://no-such-bucket can't be written" in wrong.text
    assert "XSAM_ARTIFACTS__URL" in wrong.to_do


def test_isolation__names_what_keeps_teams_from_their_files(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated = settings.model_copy(update={"isolation": IsolationSettings(first_user_id=60_000)})
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(isolation, "_raylets", lambda: [os.getpid()])
    with database.read() as session:
        found = dict(isolation.obstacles(session, isolated))
        assert list(isolation.obstacles(session, settings)) == []
    assert found[f"users of teams can't get through {folder}"] == f"`chmod o+x {folder}`; names in it stay unseen."
    assert any(text.startswith("Ray's process") for text in found) == (os.geteuid() != 0)
    about = {finding.about for finding in diagnose(isolated)}
    assert "isolation" in about
    assert "isolation" not in {finding.about for finding in diagnose(settings)}


@pytest.mark.usefixtures("healthy")
def test_secrets_that_no_key_opens__are_named_before_a_job_fails(settings: Settings, database: Database) -> None:
    def with_keys(*keys: str) -> Settings:
        return settings.model_copy(update={"secrets": SecretSettings(key=SecretStr(",".join(keys)))})

    lost = Fernet.generate_key().decode()
    assert "secrets" not in {finding.about for finding in diagnose(settings)}, "there are none, and no key"
    make_team(database, "red")
    make_secret(database, "red", "HF_TOKEN", key=lost)
    make_secret(database, "red", "WANDB_API_KEY")
    assert "opens 2 of them" in _wrong(settings)["secrets"].text
    assert "opens 1 of them, HF_TOKEN of team red for one" in _wrong(with_keys(SECRET_KEY))["secrets"].text
    assert _wrong(with_keys(SECRET_KEY, lost)) == {}
