import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.workers.training.runs import (
    RankPool,
    WishAfter,
    assert_equal_weights,
    context_in,
    run,
    spec_of,
    without_times,
)
from xsam.services.metrics.records import CheckpointRecord
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import StopReason
from xsam.workers.training.build import build_parts
from xsam.workers.training.checkpoints.files import verify
from xsam.workers.training.checkpoints.store import CheckpointStore
from xsam.workers.training.errors import CheckpointError, CheckpointMismatchError, SupersededError
from xsam.workers.training.progress import EpochLosses, Progress
from xsam.workers.training.ranks import Ranks

STEPS_PER_EPOCH = 5


def small_spec(**fields: object) -> JobSpec:
    return spec_of(
        **{
            "model": {"name": "mlp", "hidden": [8]},
            "dataset": {"name": "digits", "train_size": 240},
            "optimizer": {"variant": "xsam"},
            "batch_size": 48,
            "epochs": 4,
            "checkpoint": {"every_epochs": 1},
            **fields,
        }
    )


def folder_of(record: CheckpointRecord, run_folder: Path) -> Path:
    return run_folder / "checkpoints" / record.name


def names_in(run_folder: Path) -> list[str]:
    return sorted(path.name for path in (run_folder / "checkpoints").iterdir())


def test_checkpoint__is_what_its_record_says(tmp_path: Path) -> None:
    ran = run(small_spec(epochs=1), tmp_path)
    (record,) = ran.telemetry.checkpoints
    folder = folder_of(record, tmp_path)
    assert record.name == "step-000000005"
    assert (record.epoch, record.step, record.is_best) == (1, 5, True)
    assert record.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert record.sha256 == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert verify(folder).files.keys() == {"model.safetensors", "optimizer.pt", "rank-00000.pt"}


def test_checkpoint__torch_files_load_with_weights_only(tmp_path: Path) -> None:
    ran = run(small_spec(epochs=1), tmp_path)
    for path in folder_of(ran.telemetry.checkpoints[0], tmp_path).glob("*.pt"):
        assert torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"every_epochs": 1}, [5, 10, 15, 20]),
        ({"every_epochs": 3}, [15, 20]),
        ({"every_epochs": 100}, [20]),
        ({"every_epochs": 100, "every_steps": 4}, [4, 8, 12, 16, 20]),
        ({"every_epochs": 2, "every_steps": 5}, [5, 10, 15, 20]),
    ],
)
def test_policy__decides_which_steps_are_saved(policy: dict[str, int], expected: list[int], tmp_path: Path) -> None:
    ran = run(small_spec(checkpoint=policy), tmp_path)
    assert [record.step for record in ran.telemetry.checkpoints] == expected


@dataclass
class Stored:
    """A store with the parts it saves, moved by hand: one step and one epoch at a time."""

    spec: JobSpec
    folder: Path

    def __post_init__(self) -> None:
        context = context_in(self.folder)
        self.parts = build_parts(self.spec, context, Ranks(context))
        self.is_owner = True
        self.store = CheckpointStore(self.spec, context, Ranks(context), self.parts, lambda: self.is_owner)
        self.progress = Progress()
        self.losses = EpochLosses(STEPS_PER_EPOCH, "cpu", limit=1e4)

    def move(self) -> None:
        self.progress.step += 1
        with torch.no_grad():
            for parameter in self.parts.model.parameters():
                parameter.fill_(self.progress.step)

    def save_epoch(self, accuracy: float | None, *, is_best: bool = False) -> CheckpointRecord:
        self.move()
        if is_best:
            self.store.keep_best_weights()
        record = self.store.save(self.progress, self.losses, accuracy)
        assert record is not None
        return record


@pytest.mark.parametrize(
    ("keep_last", "accuracies", "kept"),
    [
        (1, [0.1, 0.2, 0.3], [3]),
        (1, [0.3, 0.2, 0.1], [1, 3]),
        (2, [0.1, 0.5, 0.2, 0.3, 0.4], [2, 4, 5]),
        (2, [0.5, 0.5, 0.5, 0.5], [1, 3, 4]),
        (2, [None, 0.5, None, None, None], [2, 4, 5]),
        (3, [None, None, None, None], [2, 3, 4]),
        (9, [0.1, 0.2, 0.3], [1, 2, 3]),
    ],
)
def test_retention__keeps_the_newest_and_the_best(
    keep_last: int, accuracies: list[float | None], kept: list[int], tmp_path: Path
) -> None:
    stored = Stored(small_spec(checkpoint={"keep_last": keep_last}), tmp_path)
    for accuracy in accuracies:
        stored.save_epoch(accuracy)
    assert names_in(tmp_path) == [f"step-{step:09d}" for step in kept]


def test_is_best__marks_each_checkpoint_that_beats_those_before(tmp_path: Path) -> None:
    stored = Stored(small_spec(), tmp_path)
    marks = [stored.save_epoch(accuracy).is_best for accuracy in (0.2, 0.1, None, 0.3, 0.3, 0.4)]
    assert marks == [True, False, False, True, False, True]


def test_weights__of_the_best_and_the_last_epoch_are_exported(tmp_path: Path) -> None:
    stored = Stored(small_spec(), tmp_path)
    stored.save_epoch(0.5, is_best=True)
    stored.save_epoch(0.4)
    stored.save_epoch(None)
    values = {
        path.name: {float(value) for tensor in load_file(path).values() for value in tensor.flatten()}
        for path in (tmp_path / "weights").iterdir()
    }
    assert values == {"best.safetensors": {1.0}, "last.safetensors": {2.0}}


def test_best_weights__of_an_epoch_without_a_checkpoint_are_exported_with_the_next(tmp_path: Path) -> None:
    stored = Stored(small_spec(), tmp_path)
    stored.move()
    stored.store.keep_best_weights()
    stored.save_epoch(0.4)
    best = load_file(tmp_path / "weights" / "best.safetensors")
    assert {float(value) for tensor in best.values() for value in tensor.flatten()} == {1.0}


@pytest.mark.parametrize("file_name", ["model.safetensors", "optimizer.pt", "rank-00000.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_damaged_newest__falls_back_to_the_one_before(
    file_name: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = small_spec()
    whole = run(spec, tmp_path / "whole")
    run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=14))
    newest = tmp_path / "parts" / "checkpoints" / names_in(tmp_path / "parts")[-1] / file_name
    content = newest.read_bytes()
    if damage == "missing":
        newest.unlink()
    else:
        changed = bytes([content[0] ^ 1]) + content[1:] if damage == "flipped" else content[: len(content) // 2]
        newest.write_bytes(changed)
    with caplog.at_level(logging.WARNING):
        rest = run(spec, tmp_path / "parts")
    assert "is skipped" in caplog.text
    assert file_name in caplog.text
    assert rest.telemetry.starts[0].first_step == 2 * STEPS_PER_EPOCH + 1
    assert_equal_weights(rest.weights, whole.weights)
    assert without_times(rest.telemetry.epochs) == without_times(whole.telemetry.epochs[2:])


def test_all_damaged__starts_from_the_beginning(tmp_path: Path) -> None:
    spec = small_spec(epochs=2)
    whole = run(spec, tmp_path)
    for path in (tmp_path / "checkpoints").glob("*/manifest.json"):
        path.write_text("{}")
    again = run(spec, tmp_path)
    assert again.telemetry.starts[0].first_step == 1
    assert_equal_weights(again.weights, whole.weights)


def test_leftovers_of_a_killed_writer__are_ignored_and_removed(tmp_path: Path) -> None:
    spec = small_spec(epochs=2)
    run(spec, tmp_path, WishAfter(StopReason.PREEMPT, after=3))
    leftover = tmp_path / "checkpoints" / "tmp-step-000000004-abc"
    leftover.mkdir()
    (leftover / "rank-00000.pt").write_bytes(b"half")
    rest = run(spec, tmp_path)
    assert rest.telemetry.starts[0].first_step == 4
    assert not leftover.exists()


def test_finished_run__is_not_trained_again(tmp_path: Path) -> None:
    spec = small_spec(epochs=2)
    first, again = run(spec, tmp_path), run(spec, tmp_path)
    assert again.telemetry.epochs == []
    assert again.outcome == first.outcome


def test_longer_run__goes_on_from_the_end_of_a_shorter_one(tmp_path: Path) -> None:
    whole = run(small_spec(epochs=4), tmp_path / "whole")
    run(small_spec(epochs=2), tmp_path / "parts")
    rest = run(small_spec(epochs=4), tmp_path / "parts")
    assert [record.epoch for record in rest.telemetry.epochs] == [3, 4]
    assert_equal_weights(rest.weights, whole.weights)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"seed": 1}, "seed"), ({"batch_size": 24}, "batch_size"), ({"model": {"name": "mlp", "hidden": [9]}}, "model")],
)
def test_other_jobs_checkpoint__is_refused_by_the_field_that_differs(
    change: dict[str, object], field: str, tmp_path: Path
) -> None:
    run(small_spec(epochs=1), tmp_path)
    with pytest.raises(CheckpointMismatchError, match=f"was made with {field} = "):
        run(small_spec(epochs=1, **change), tmp_path)


def test_policies_and_names__may_change_between_attempts(tmp_path: Path) -> None:
    run(small_spec(epochs=2), tmp_path, WishAfter(StopReason.PAUSE, after=3))
    changed = small_spec(epochs=2, name="renamed", priority=5, checkpoint={"every_epochs": 2})
    assert run(changed, tmp_path).telemetry.starts[0].first_step == 4


def test_other_number_of_workers__is_refused(tmp_path: Path, two_ranks: RankPool) -> None:
    run(small_spec(epochs=1), tmp_path)
    with pytest.raises(CheckpointMismatchError, match="num_workers = 1, but the job says 2"):
        two_ranks.run(small_spec(epochs=1, resources={"num_workers": 2}), tmp_path)


def test_ranks_without_shared_storage__are_told_so(tmp_path: Path, two_ranks: RankPool) -> None:
    spec = small_spec(epochs=1, resources={"num_workers": 2})
    with pytest.raises(CheckpointError, match="rank 1 has written its part of step-000000005 elsewhere"):
        two_ranks.run(spec, tmp_path, folder_per_rank=True)


def test_storage_that_cannot_be_written__is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="checkpoint step-000000005 can't be written to"):
        run(small_spec(epochs=1), tmp_path)


def test_tied_weights__survive(tmp_path: Path) -> None:
    model = {"name": "custom", "target": f"{__name__}:tied_model"}
    spec = small_spec(model=model, optimizer={"variant": "sam"}, epochs=2)
    whole = run(spec, tmp_path / "whole", allowed_packages=("tests",))
    run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=3), allowed_packages=("tests",))
    rest = run(spec, tmp_path / "parts", allowed_packages=("tests",))
    assert torch.equal(rest.weights["1.weight"], rest.weights["3.weight"])
    assert_equal_weights(rest.weights, whole.weights)


def tied_model(*, num_classes: int, channels: int, image_size: int) -> torch.nn.Module:
    """What a job names as its target: two layers of one weight, with dropout between them."""
    size = channels * image_size**2
    first, second = torch.nn.Linear(size, size), torch.nn.Linear(size, size)
    second.weight = first.weight
    return torch.nn.Sequential(
        torch.nn.Flatten(), first, torch.nn.Dropout(0.5), second, torch.nn.Linear(size, num_classes)
    )


def test_manifest__holds_the_job_and_the_position(tmp_path: Path) -> None:
    ran = run(small_spec(epochs=1), tmp_path)
    manifest = json.loads((folder_of(ran.telemetry.checkpoints[0], tmp_path) / "manifest.json").read_text())
    assert manifest["identity"]["optimizer"]["variant"] == "xsam"
    assert manifest["progress"]["step"] == 5
    assert manifest["score"] == ran.outcome.summary.final_accuracy


def test_build__gives_every_rank_the_same_weights_and_other_random_numbers(tmp_path: Path) -> None:
    spec = small_spec()
    weights, draws = [], []
    for rank in range(2):
        context = context_in(tmp_path, rank)
        weights.append(build_parts(spec, context, Ranks(context)).model.state_dict())
        draws.append(torch.rand(3))
    assert_equal_weights(weights[1], weights[0])
    assert not torch.equal(draws[0], draws[1])


def test_superseded_run__leaves_the_folder_as_its_successor_needs_it(tmp_path: Path) -> None:
    stored = Stored(small_spec(), tmp_path)
    stored.save_epoch(0.5, is_best=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    stored.is_owner = False
    with pytest.raises(SupersededError, match="another attempt"):
        stored.save_epoch(0.9, is_best=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
