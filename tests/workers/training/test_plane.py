"""The loss around a run's checkpoints: from its files, with its data, row by row, on and on after a stop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.workers.training.runs import Recorder, WishAfter, context_in, run, spec_of
from xsam.services.metrics.records import PlaneRecord
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import StopReason
from xsam.workers.training.errors import CheckpointMissingError
from xsam.workers.training.plane import radii, run_planes

POINTS = 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[JobSpec, Path]:
    spec = spec_of(
        model={"name": "mlp", "hidden": [8]},
        dataset={"name": "digits", "train_size": 240, "label_noise": 0.2, "augment": ["crop"]},
        optimizer={"variant": "sam", "rho": 0.1},
        batch_size=48,
        epochs=3,
        checkpoint={"every_epochs": 1, "keep_last": 3},
    )
    ran = run(spec, tmp_path_factory.mktemp("trained"))
    return spec, ran.folder / "checkpoints"


def looking(spec: JobSpec, **plane: Any) -> JobSpec:
    document = {**spec.model_dump(mode="json"), "plane": {"job": "abc", "num_points": POINTS, **plane}}
    return JobSpec.model_validate(document)


def look(spec: JobSpec, folder: Path, tmp_path: Path, **options: Any) -> tuple[StopReason | None, list[PlaneRecord]]:
    telemetry = Recorder()
    known, control = options.get("known", ()), options.get("control") or WishAfter()
    stopped_by = run_planes(spec, context_in(tmp_path), telemetry, control, folder=folder, known=known)
    return stopped_by, telemetry.planes


def test_planes__are_of_every_checkpoint_with_the_loss_of_training_in_the_middle(
    trained: tuple[JobSpec, Path], tmp_path: Path
) -> None:
    spec, folder = trained
    stopped_by, records = look(looking(spec), folder, tmp_path)
    finished = [one for one in records if one.found is not None]
    assert stopped_by is None
    assert [one.epoch for one in finished] == [1, 2, 3]
    assert len(records) == 3 * (POINTS + 1)  # each row, and the whole
    for one in finished:
        assert one.found is not None
        assert one.losses[2][2] == one.found["origin_loss"]
        assert (one.found["rho"], one.found["rho_max"]) == (0.1, 0.2)
        assert one.found["chosen_loss"] >= one.found["last_loss"]
        assert 0 <= one.found["chosen_angle_rad"] <= one.found["first_angle_rad"] + 1e-9
    again = [one for one in look(looking(spec), folder, tmp_path)[1] if one.found is not None]
    assert again == finished  # augmentation is the same at each point


def test_planes__go_on_from_the_last_row(trained: tuple[JobSpec, Path], tmp_path: Path) -> None:
    spec, folder = trained
    whole = [one for one in look(looking(spec), folder, tmp_path)[1] if one.found is not None]
    control = WishAfter(StopReason.PREEMPT, after=POINTS + 2)
    stopped_by, records = look(looking(spec), folder, tmp_path, control=control)
    assert stopped_by is StopReason.PREEMPT
    newest = {one.checkpoint: one for one in records}
    assert [len(one.losses) for one in newest.values()] == [POINTS, 2]
    _, later = look(looking(spec), folder, tmp_path, known=list(newest.values()))
    assert [len(one.losses) for one in later if one.epoch == 2] == [3, 4, 5, 5]
    assert [one.epoch for one in later if one.epoch == 1] == []
    assert [one for one in later if one.found is not None] == whole[1:]


def test_newest__is_one_checkpoint(trained: tuple[JobSpec, Path], tmp_path: Path) -> None:
    spec, folder = trained
    _, records = look(looking(spec, checkpoints="newest"), folder, tmp_path)
    assert {one.epoch for one in records} == {3}


def test_checkpoint__that_is_damaged_is_left_out(trained: tuple[JobSpec, Path], tmp_path: Path) -> None:
    spec, folder = trained
    broken = tmp_path / "broken"
    for source in sorted(folder.glob("step-*"))[:2]:
        (broken / source.name).mkdir(parents=True)
        for file in source.iterdir():
            (broken / source.name / file.name).write_bytes(file.read_bytes())
    (sorted(broken.iterdir())[0] / "model.safetensors").write_bytes(b"x")
    assert {one.epoch for one in look(looking(spec), broken, tmp_path)[1]} == {2}


def test_no_checkpoint__is_named(trained: tuple[JobSpec, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissingError, match=r"plane\.job is abc, of which no intact checkpoint is there"):
        look(looking(trained[0]), tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize(
    ("optimizer", "plane", "expected"),
    [
        ({"variant": "sgd"}, {}, (0.05, 0.1, 1)),
        ({"variant": "asam", "rho": 0.5}, {}, (0.05, 0.1, 1)),
        ({"variant": "xsam", "rho": 0.1, "rho_max": 0.3, "ascent_steps": 3}, {}, (0.1, 0.3, 3)),
        ({"variant": "xsam", "rho": 0.1, "rho_max": 0.3}, {"rho": 0.2, "ascent_steps": 2}, (0.2, 0.4, 2)),
        ({"variant": "sam", "rho": 0.1}, {"rho_max": 0.15}, (0.1, 0.15, 1)),
    ],
)
def test_radii__are_told_or_the_job_s_own(
    optimizer: dict[str, Any], plane: dict[str, Any], expected: tuple[float, float, int]
) -> None:
    spec = looking(spec_of(optimizer=optimizer), **plane)
    assert spec.plane is not None
    assert radii(spec, spec.plane) == pytest.approx(expected)


def test_loss_that_is_not_finite__is_no_value(trained: tuple[JobSpec, Path], tmp_path: Path) -> None:
    spec, folder = trained
    far = looking(spec.model_copy(update={"precision": "fp16"}), checkpoints="newest", extent=100, rho_max=100)
    _, records = look(far, folder, tmp_path)  # fp16 ends at 65,504
    assert any(loss is None for row in records[-1].losses for loss in row)
    assert records[-1].losses[2][2] is not None
    assert replace(records[-1], found=None) == records[-2]
