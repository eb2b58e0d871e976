"""What is kept long enough goes, on both databases; a process that is killed at any write leaves nothing that lies."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text, update

from tests.support import bundles as packed
from tests.support import jobs
from tests.support.callers import make_team
from tests.support.row_runner import alpha_record, epoch_record
from tests.support.studies import HandRunner, submit
from xsam.services.artifacts import service as artifacts
from xsam.services.artifacts.store import JobFolder
from xsam.services.bundles import service as bundles
from xsam.services.bundles.archive import limits_of
from xsam.services.bundles.models import BundleRow
from xsam.services.bundles.service import Origin
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import queue, service, wishes
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.records import CheckpointRecord
from xsam.services.retention import collecting, fill
from xsam.services.retention.rules import Forgotten, Kind
from xsam.services.retention.schemas import gone
from xsam.services.settings import AllowedCode, ArtifactSettings, CodeSettings
from xsam.services.specs.job import JobSpec
from xsam.services.stores.folder import FolderStore
from xsam.services.stores.store import StorePlace
from xsam.services.teams.models import Team

RECORD = CheckpointRecord(epoch=1, step=10, name="step-10", size_bytes=3, sha256="ab" * 32, is_best=True)
DAY_S = 86_400
SIZES = {Kind.CHECKPOINTS: 3, Kind.WEIGHTS: 5, Kind.LOGS: 7}


def _write(root: Path, job_id: str) -> None:
    folder = JobFolder(root, job_id)
    for path, size in (
        (folder.checkpoints / "step-10" / "rank-0.pt", 3),
        (folder.path / "weights" / "best.safetensors", 5),
        (folder.logs(1) / "rank-0.log", 7),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


def _end(database: Database, job_id: str, days_ago: float) -> None:
    jobs.set_columns(database, job_id, finished_at=db_now(-days_ago * DAY_S))


def _ended(database: Database, root: Path, days_ago: float, num_epochs: int = 1, **fields: Any) -> str:
    lease = jobs.submit_and_claim(database, **fields)
    _write(root, lease.job_id)
    with database.unit_of_work() as session:
        metrics.write_epochs(session, lease, [epoch_record(number + 1) for number in range(num_epochs)])
        metrics.write_alphas(session, lease, [alpha_record(number + 1) for number in range(num_epochs)])
        artifacts.write_checkpoints(session, lease, [RECORD], kept=["step-10"])
        queue.complete(session, lease, summary={})
    _end(database, lease.job_id, days_ago)
    return lease.job_id


def _collect(database: Database, root: Path, **settings: Any) -> Sequence[Forgotten]:
    return collecting.collect(database, FolderStore(root), ArtifactSettings(**settings))


def _files(root: Path, job_id: str) -> set[str]:
    return {path.name for path in JobFolder(root, job_id).path.rglob("*") if path.is_file()}


ALL_FILES = {"rank-0.pt", "best.safetensors", "rank-0.log"}


@pytest.mark.parametrize(
    ("settings", "kind", "is_left"),
    [
        ({}, Kind.CHECKPOINTS, {"best.safetensors", "rank-0.log"}),
        ({"checkpoint_keep_days": 900, "weights_keep_days": 30}, Kind.WEIGHTS, {"rank-0.pt", "rank-0.log"}),
        ({"checkpoint_keep_days": 900, "log_keep_days": 30}, Kind.LOGS, {"rank-0.pt", "best.safetensors"}),
    ],
)
def test_files__go_by_age_of_one_kind_and_the_row_says_so(
    database: Database, tmp_path: Path, settings: dict[str, float], kind: Kind, is_left: set[str]
) -> None:
    old, new = _ended(database, tmp_path, 31), _ended(database, tmp_path, 29)
    running = jobs.submit_and_claim(database).job_id
    _write(tmp_path, running)
    collecting.measure(database, FolderStore(tmp_path), limit=10)
    with database.read() as session:
        rules = collecting.rules(session, ArtifactSettings(**settings))
        foretold = collecting.preview(session, rules)
    assert foretold == [Forgotten("red", kind, 1, SIZES[kind])]
    assert _files(tmp_path, old) == ALL_FILES, "a preview deletes nothing"
    assert _collect(database, tmp_path, **settings) == foretold
    assert _files(tmp_path, old) == is_left
    assert _files(tmp_path, new) == _files(tmp_path, running) == ALL_FILES
    with database.read() as session:
        told = gone(session, old).model_dump()
        assert [name for name, at in told.items() if at is not None] == [f"{kind}_at"]
        assert gone(session, new).model_dump(exclude_none=True) == {}
        assert len(artifacts.list_checkpoints(session, old)) == (kind is not Kind.CHECKPOINTS)
    assert _collect(database, tmp_path, **settings) == []
    assert not any((tmp_path / "trash").iterdir())


def test_weights__that_were_promoted_or_labelled_stay_and_so_do_their_rows(database: Database, tmp_path: Path) -> None:
    kept = [_ended(database, tmp_path, 900, labels=labels) for labels in ({"keep": "paper"}, {"study": "abc"})]
    plain = _ended(database, tmp_path, 900, labels={"a": "b"})
    _ended(database, tmp_path, 0)
    _collect(database, tmp_path, weights_keep_days=1, row_keep_days=1, max_team_bytes=0)
    assert [_files(tmp_path, job_id) for job_id in kept] == [{"best.safetensors"}] * 2
    assert not JobFolder(tmp_path, plain).path.exists() or not _files(tmp_path, plain)
    with database.read() as session:
        assert session.get(Job, plain) is None
        assert all(session.get(Job, job_id) is not None for job_id in kept)


def test_size__takes_the_files_of_the_jobs_that_ended_first_of_the_team_that_has_too_much(
    database: Database, tmp_path: Path
) -> None:
    first, second, third = (_ended(database, tmp_path, days) for days in (3, 2, 1))
    assert sum(one.num_bytes for one in _collect(database, tmp_path, max_team_bytes=25)) == 3 + 5 + 7 + 3 + 5
    assert [_files(tmp_path, one) for one in (first, second, third)] == [set(), {"rank-0.log"}, ALL_FILES]


def test_team__has_other_rules_than_the_service(database: Database, tmp_path: Path) -> None:
    make_team(database, "red")
    with database.unit_of_work() as session:
        session.execute(update(Team).where(Team.name == "red").values(retention={"log_days": 1.0}))
    job_id = _ended(database, tmp_path, 2)
    assert _collect(database, tmp_path) == [Forgotten("red", Kind.LOGS, 1, 7)]
    assert _files(tmp_path, job_id) == {"rank-0.pt", "best.safetensors"}


def test_metrics__are_thinned_once_and_keep_ends_best_and_the_time_trained(database: Database, tmp_path: Path) -> None:
    job_id = _ended(database, tmp_path, 2, num_epochs=500)
    with database.read() as session:
        before = metrics.list_epochs(session, job_id)
    assert _collect(database, tmp_path, metrics_keep_days=1) == [Forgotten("red", Kind.METRICS, 1, 0)]
    with database.read() as session:
        after = metrics.list_epochs(session, job_id)
        alphas = metrics.list_alphas(session, job_id)
        assert gone(session, job_id).metrics_thinned_at is not None
    assert len(after) <= 300
    assert len(alphas) <= 200
    assert (after[0].epoch, after[-1].epoch) == (1, 500)
    assert min(one.eval_loss for one in after) == min(one.eval_loss for one in before)
    by_epoch = {one.epoch: one.trained_s for one in before}
    assert all(one.trained_s == pytest.approx(by_epoch[one.epoch]) for one in after)
    assert _collect(database, tmp_path, metrics_keep_days=1) == []


def test_rows__go_with_everything_that_hangs_on_them(database: Database, tmp_path: Path) -> None:
    old, new = _ended(database, tmp_path, 9), _ended(database, tmp_path, 1)
    assert _collect(database, tmp_path, row_keep_days=5) == [Forgotten("red", Kind.ROWS, 1, 15)]
    assert not _files(tmp_path, old)
    assert _files(tmp_path, new) == ALL_FILES
    for table in ("jobs", "job_attempts", "epoch_metrics", "checkpoints", "stored_files"):
        assert jobs.count(database, table) == 1, table
    assert jobs.count(database, "outcome_counts") == 1, "what was done stays counted"


def test_rows__of_the_newest_event_stay_so_that_its_number_is_never_given_again(
    database: Database, tmp_path: Path
) -> None:
    _ended(database, tmp_path, 9)
    assert _collect(database, tmp_path, row_keep_days=5) == []
    assert jobs.count(database, "jobs") == 1


def test_trials__are_not_touched_before_their_study_has_ended_and_go_before_it(
    database: Database, tmp_path: Path
) -> None:
    study_id = submit(database, num_trials=2)
    hand = HandRunner.start(database, study_id)
    for job_id in [hand.run({"optimizer.rho": 0.1}, 0.5), hand.run({"optimizer.rho": 0.2}, 0.6, config=1)]:
        _end(database, job_id, 50)
    assert _collect(database, tmp_path, row_keep_days=5, metrics_keep_days=1) == []
    hand.end()
    _end(database, study_id, 50)
    _ended(database, tmp_path, 0)
    _collect(database, tmp_path, row_keep_days=5)
    _collect(database, tmp_path, row_keep_days=5)
    assert jobs.count(database, "jobs") == 1
    assert jobs.count(database, "trials") == 0


class KilledError(Exception):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("settings", [{"weights_keep_days": 1, "log_keep_days": 1}, {"row_keep_days": 1}])
def test_killed__at_any_write_nothing_is_missing_that_no_row_tells_of(
    database: Database, tmp_path: Path, settings: dict[str, float]
) -> None:
    """Ends the round at its first statement, its second, and so on, and looks after each."""
    job_id = _ended(database, tmp_path, 40)
    _ended(database, tmp_path, 0)
    collecting.measure(database, FolderStore(tmp_path), limit=10)
    left, num_kills = 0, 0

    def kill(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError

    while True:
        left = num_kills
        event.listen(database.engine, "before_cursor_execute", kill)
        try:
            _collect(database, tmp_path, **settings)
            break
        except KilledError:
            num_kills += 1
        finally:
            event.remove(database.engine, "before_cursor_execute", kill)
        _check_honest(database, tmp_path, job_id)
    assert num_kills > 10
    assert not _files(tmp_path, job_id)
    assert not any((tmp_path / "trash").iterdir())


def _check_honest(database: Database, root: Path, job_id: str) -> None:
    files = _files(root, job_id)
    with database.read() as session:
        if session.get(Job, job_id) is None:
            assert not files, "files that nobody knows of"
            return
        told = gone(session, job_id)
    for name, at in (
        ("rank-0.pt", told.checkpoints_at),
        ("best.safetensors", told.weights_at),
        ("rank-0.log", told.logs_at),
    ):
        assert name in files or at is not None, f"{name} is missing and its row does not say so"


def test_job__that_is_retried_between_the_mark_and_the_move_keeps_its_files(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = jobs.submit_and_claim(database)
    _write(tmp_path, lease.job_id)
    with database.unit_of_work() as session:
        wishes.request_cancel(session, lease.job_id, actor="ann")
    with database.unit_of_work() as session:
        queue.finish_cancelled(session, lease)
    _end(database, lease.job_id, 40)
    noted = collecting._note

    def retry_after_mark(session: Any, job_id: str, values: dict[str, Any]) -> None:
        noted(session, job_id, values)
        if "checkpoints_gone_at" in values and values["checkpoints_gone_at"] is not None:
            wishes.retry(session, job_id, actor="ann")

    monkeypatch.setattr(collecting, "_note", retry_after_mark)
    assert _collect(database, tmp_path) == []
    assert jobs.state(database, lease.job_id) is JobState.QUEUED
    assert _files(tmp_path, lease.job_id) == ALL_FILES
    with database.read() as session:
        assert gone(session, lease.job_id).checkpoints_at is None


def _send_bundle(database: Database, root: Path, files: dict[str, str], *, days_ago: float) -> str:
    sent = packed.packed(files)
    with database.unit_of_work() as session:
        bundles.add(
            session,
            FolderStore(root),
            sent.id,
            sent.packed,
            actor=jobs.ALICE,
            limits=limits_of(CodeSettings()),
            origin=Origin(),
        )
        session.execute(update(BundleRow).where(BundleRow.id == sent.id).values(created_at=db_now(-days_ago * DAY_S)))
    return sent.id


def test_bundles__that_no_job_names_go_and_files_without_a_team_a_day_later(database: Database, tmp_path: Path) -> None:
    used, unused, young = (
        _send_bundle(database, tmp_path, {"train.py": f"print({number})"}, days_ago=days)
        for number, days in ((1, 9), (2, 9), (3, 1))
    )
    spec = {"code": {"bundle": used}, "entrypoint": {"file": "train.py"}}
    with database.unit_of_work() as session:
        allowed = AllowedCode(takes_bundles=True)
        service.submit(session, JobSpec.model_validate(spec), actor=jobs.ALICE, allowed=allowed)
    (forgotten,) = _collect(database, tmp_path, bundle_keep_days=5)
    assert (forgotten.kind, forgotten.num) == (Kind.BUNDLES, 1)
    with database.read() as session:
        assert set(bundles.known(session)) == {used, young}
    file = tmp_path / bundles.file_of(unused)
    assert file.exists(), "its file may be early, not late"
    os.utime(file, (0, 0))
    _collect(database, tmp_path, bundle_keep_days=5)
    assert not file.exists()
    assert (tmp_path / bundles.file_of(used)).exists()


def test_fill__says_who_has_how_much(database: Database, tmp_path: Path) -> None:
    _ended(database, tmp_path, 1)
    running = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        artifacts.write_checkpoints(session, running, [RECORD], kept=["step-10"])
    _collect(database, tmp_path)
    with database.unit_of_work() as session:
        fill.note(session, FolderStore(tmp_path))
    with database.read() as session:
        (row,) = fill.read(session)
    assert row.teams == {"red": {"checkpoints": 6, "weights": 5, "logs": 7}}
    assert row.total_bytes > row.free_bytes > 0


def test_locks__that_no_job_names_go(database: Database, tmp_path: Path) -> None:
    insert = text(
        "INSERT INTO requirements_locks (id, team, made_by, requirements, state, lock_id, lock, created_at)"
        " VALUES ('abc', 'red', 'ann', 'numpy', 'done', 'sha256:1', 'numpy==1', :at)"
    )
    with database.unit_of_work() as session:
        session.execute(insert, {"at": "2020-01-01 00:00:00.000000"})
    assert _collect(database, tmp_path) == []
    assert _collect(database, tmp_path, environment_keep_days=5) == [Forgotten("red", Kind.ENVIRONMENTS, 1, 8)]
    assert jobs.count(database, "requirements_locks") == 0


def test_bucket__loses_what_a_folder_would_and_is_counted(
    sqlite_database: Database, tmp_path: Path, bucket_place: StorePlace
) -> None:
    database, store = sqlite_database, bucket_place.open()
    old, new = _ended(database, tmp_path, 31), _ended(database, tmp_path, 29)
    for file in FolderStore(tmp_path).list("jobs"):
        store.put(file.name, tmp_path / file.name)
    store.put_bytes(bundles.file_of("sha256:" + "ab" * 32), b"of nobody, but young")
    settings = ArtifactSettings(log_keep_days=30, bundle_keep_days=1)
    expected = [Forgotten("red", Kind.CHECKPOINTS, 1, 3), Forgotten("red", Kind.LOGS, 1, 7)]
    assert collecting.collect(database, store, settings) == expected
    assert [file.name.split("/")[-1] for file in store.list(f"jobs/{old}")] == ["best.safetensors"]
    assert len(list(store.list(f"jobs/{new}"))) == 3
    assert len(list(store.list("bundles"))) == 1
    with database.unit_of_work() as session:
        fill.note(session, store)
    with database.read() as session:
        (row,) = fill.read(session)
    assert (row.root, row.total_bytes, row.teams["red"]) == (
        bucket_place.url,
        0,
        {"checkpoints": 3, "weights": 10, "logs": 7},
    )
    assert collecting.collect(database, store, ArtifactSettings(row_keep_days=1))
    assert list(store.list("jobs")) == []
