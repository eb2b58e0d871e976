"""Checkpoints in a bucket: whole or not counted, wherever an upload ends, and fetched by a node that has none."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.workers.training.checkpoints.test_store import STEPS_PER_EPOCH, small_spec
from tests.workers.training.runs import (
    Ran,
    RankPool,
    Recorder,
    WishAfter,
    assert_equal_weights,
    context_in,
    run,
    without_times,
)
from xsam.services.errors import StorageError
from xsam.services.metrics.records import EpochRecord
from xsam.services.specs.job import JobSpec
from xsam.services.stores.bucket import BucketStore
from xsam.services.stores.store import StorePlace
from xsam.workers.messages import StopReason
from xsam.workers.training.checkpoints.files import verify
from xsam.workers.training.checkpoints.mirror import CheckpointMirror
from xsam.workers.training.errors import CheckpointError, StoreAwayError, SupersededError
from xsam.workers.training.loop import run_training

JOB = "jobs/job1"
_nodes = itertools.count()


def elsewhere(place: StorePlace) -> StorePlace:
    """The same bucket, seen from a node that has nothing of it."""
    return replace(place, root=place.root.with_name(f"node-{next(_nodes)}"))


def run_on(place: StorePlace, spec: JobSpec, control: WishAfter | None = None) -> Ran:
    return run(spec, place.root / JOB, control, bucket=place)


def checkpoints_in(place: StorePlace) -> list[str]:
    """Those that count."""
    files = [
        file.name.removeprefix(f"{JOB}/checkpoints/").split("/") for file in place.open().list(f"{JOB}/checkpoints")
    ]
    return [name for name, file in files if file == "manifest.json"]


def weights_in(place: StorePlace, tmp_path: Path) -> Any:
    place.open().get(f"{JOB}/weights/last.safetensors", tmp_path / "fetched.safetensors")
    return load_file(tmp_path / "fetched.safetensors")


def test_run__goes_on_bit_for_bit_on_a_node_that_has_nothing_of_it(bucket_place: StorePlace, tmp_path: Path) -> None:
    spec = small_spec(checkpoint={"every_epochs": 1, "keep_last": 1})
    whole = run(spec, tmp_path / "whole")
    first = run_on(elsewhere(bucket_place), spec, WishAfter(StopReason.PREEMPT, after=13))
    second = run_on(elsewhere(bucket_place), spec)
    assert second.telemetry.starts[0].first_step == 12
    assert_equal_weights(weights_in(bucket_place, tmp_path), whole.weights)
    parts = first.telemetry.checkpoints + second.telemetry.checkpoints
    assert [one.step for one in parts] == [5, 10, 11, 15, 20]
    kept = sorted(path.name for path in (whole.folder / "checkpoints").iterdir())
    assert checkpoints_in(bucket_place) == kept, "the best one of an attempt elsewhere is kept too"


def test_run__takes_steps_while_a_checkpoint_is_uploaded(
    bucket_place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_trained_on, put = threading.Event(), BucketStore.put

    class Waiting(Recorder):
        def report(self, report: Any) -> None:
            super().report(report)
            if isinstance(report, EpochRecord) and report.epoch == 2:
                has_trained_on.set()

    def wait_and_put(store: BucketStore, name: str, source: Path) -> None:
        assert has_trained_on.wait(60), "training waits for the upload"
        put(store, name, source)

    monkeypatch.setattr(BucketStore, "put", wait_and_put)
    context = context_in(bucket_place.root / JOB, bucket=bucket_place)
    telemetry = Waiting()
    run_training(small_spec(epochs=2), context, telemetry, WishAfter())
    assert [one.step for one in telemetry.checkpoints] == [5, 10]


class Failing:
    """Fails the store's writes from one on, once or for good, as a lost connection or a killed process does."""

    WRITES = ("put", "put_bytes", "delete")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, for_good: bool) -> None:
        self.at, self.for_good, self.num_writes = at, for_good, 0
        for name in self.WRITES:
            monkeypatch.setattr(BucketStore, name, self._wrapped(getattr(BucketStore, name)))

    def _wrapped(self, write: Callable[..., None]) -> Callable[..., None]:
        def call(*values: Any) -> None:
            number, self.num_writes = self.num_writes, self.num_writes + 1
            if number == self.at or (self.for_good and number > self.at):
                raise StorageError(f"write {number} does not come through")
            write(*values)

        return call


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "killed"])
def test_upload__that_ends_at_any_write_leaves_the_checkpoint_before(
    bucket_place: StorePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, for_good: bool
) -> None:
    spec = small_spec(epochs=3 if for_good else 2, checkpoint={"every_epochs": 1, "keep_last": 1})
    whole = run(spec, tmp_path / "whole")
    starts = set()
    for at in itertools.count():
        place = replace(bucket_place, url=f"{bucket_place.url}/{at}")
        with monkeypatch.context() as patched:
            failing = Failing(patched, at, for_good=for_good)
            try:
                run_on(elsewhere(place), spec)
            except CheckpointError as e:
                assert "does not come through" in str(e)  # noqa: PT017 - the last round has none
            else:
                assert failing.num_writes <= at
                break
        before = checkpoints_in(place)
        rest = run_on(elsewhere(place), spec)
        first_step = rest.telemetry.starts[0].first_step
        assert first_step == (int(before[-1].removeprefix("step-")) if before else 0) + 1
        starts.add(first_step)
        assert_equal_weights(weights_in(place, tmp_path), whole.weights)
        assert without_times(rest.telemetry.epochs) == without_times(
            whole.telemetry.epochs[first_step // STEPS_PER_EPOCH :]
        )
    assert starts >= {1 + STEPS_PER_EPOCH * number for number in range(spec.epochs)}


@pytest.mark.parametrize("damage", ["other", "missing"])
def test_object_that_is_damaged__makes_the_run_fall_back(
    bucket_place: StorePlace, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    spec = small_spec(epochs=2)
    whole = run_on(elsewhere(bucket_place), spec)
    store, name = bucket_place.open(), f"{JOB}/checkpoints/step-000000010/model.safetensors"
    if damage == "other":
        store.put_bytes(name, b"something else")
    else:
        store.delete(name)
    again = run_on(elsewhere(bucket_place), spec)
    assert "is skipped" in caplog.text
    assert again.telemetry.starts[0].first_step == STEPS_PER_EPOCH + 1
    assert_equal_weights(again.weights, whole.weights)
    assert run_on(elsewhere(bucket_place), spec).telemetry.starts[0].first_step == 2 * STEPS_PER_EPOCH + 1


def test_bucket_that_is_away_at_the_start__does_not_let_the_run_begin_elsewhere(
    bucket_place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(epochs=2)
    run_on(elsewhere(bucket_place), spec)
    get = BucketStore.get

    def lose_the_connection(store: BucketStore, name: str, target: Path) -> None:
        if name.endswith("step-000000010/optimizer.pt"):
            raise StorageError("no route to host")
        get(store, name, target)

    with monkeypatch.context() as patched:
        patched.setattr(BucketStore, "get", lose_the_connection)
        with pytest.raises(StoreAwayError, match="no route to host"):
            run_on(elsewhere(bucket_place), spec)
    assert run_on(elsewhere(bucket_place), spec).telemetry.starts[0].first_step == 2 * STEPS_PER_EPOCH + 1


def test_local_checkpoint_that_never_came_into_the_bucket__does_not_count(bucket_place: StorePlace) -> None:
    spec = small_spec(epochs=2)
    run_on(bucket_place, spec)
    bucket_place.open().delete(f"{JOB}/checkpoints/step-000000010/manifest.json")
    assert run_on(bucket_place, spec).telemetry.starts[0].first_step == STEPS_PER_EPOCH + 1


def test_run_that_lost_its_job_meanwhile__stores_no_manifest(bucket_place: StorePlace) -> None:
    class Superseded(WishAfter):
        """Owns the job until its first checkpoint is made, and not when that has been uploaded."""

        num_asked = 0

        def may_publish(self) -> bool:
            self.num_asked += 1
            return self.num_asked == 1

    with pytest.raises(SupersededError, match="another attempt"):
        run_on(bucket_place, small_spec(epochs=1), Superseded())
    assert checkpoints_in(bucket_place) == []


@pytest.mark.parametrize(("is_newest_enough", "steps"), [(True, [15]), (False, [5, 10, 15])])
def test_checkpoints__of_another_job_are_fetched_whole_as_far_as_they_are_intact(
    bucket_place: StorePlace, tmp_path: Path, is_newest_enough: bool, steps: list[int]
) -> None:
    run_on(elsewhere(bucket_place), small_spec(checkpoint={"every_epochs": 1, "keep_last": 9}))
    bucket_place.open().put_bytes(f"{JOB}/checkpoints/step-000000020/optimizer.pt", b"something else")
    fetched = tmp_path / "fetched"
    CheckpointMirror(bucket_place, JOB, fetched).fetch_all(is_newest_enough=is_newest_enough)
    assert sorted(path.name for path in fetched.iterdir()) == [f"step-{step:09d}" for step in steps]
    for path in fetched.iterdir():
        verify(path)


def test_manifest__that_names_a_file_elsewhere_is_refused(bucket_place: StorePlace, tmp_path: Path) -> None:
    name = "step-000000001"
    bucket_place.open().put_bytes(f"{JOB}/checkpoints/{name}/manifest.json", b'{"files": {"../../../x": "0"}}')
    with pytest.raises(CheckpointError, match="no readable manifest"):
        CheckpointMirror(bucket_place, JOB, tmp_path / "fetched").fetch(name)


def test_ranks_on_nodes_that_share_nothing__go_on_where_others_were(
    bucket_place: StorePlace, tmp_path: Path, two_ranks: RankPool
) -> None:
    spec = small_spec(epochs=2, resources={"num_workers": 2})
    whole = two_ranks.run(spec, tmp_path / "whole")[0]

    def run_apart(node: str, control: WishAfter | None = None) -> Ran:
        places = [replace(bucket_place, root=tmp_path / f"{node}-{rank}") for rank in range(2)]
        return two_ranks.run(spec, tmp_path, control, places=places)[0]

    stopped = run_apart("a", WishAfter(StopReason.PREEMPT, after=4))
    rest = run_apart("b")
    assert rest.telemetry.starts[0].first_step == stopped.telemetry.checkpoints[-1].step + 1 > 1
    assert_equal_weights(rest.weights, whole.weights)
