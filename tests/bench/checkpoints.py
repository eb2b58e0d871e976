"""What a checkpoint costs training, in a folder and in a bucket, and what code out of a bucket costs a job's start.

`python -m tests.bench.checkpoints [--megabytes N] [--rounds N]`: a run saves and goes on with steps of a known length.
Lost are the seconds of the save, and all that the steps take longer until the upload is done. The bucket is moto's
server on this machine, which takes processor time from the steps as a real one would not; the bare write is that of
the same tensors with torch.save and fsync.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.bench.figures import median, table
from tests.support.buckets import new_bucket, s3_server
from xsam.services.bundles import archive
from xsam.services.bundles.archive import limits_of
from xsam.services.settings import CodeSettings
from xsam.services.specs.job import JobSpec
from xsam.services.stores.store import StorePlace
from xsam.workers.messages import RankContext
from xsam.workers.rank.code import unpacked
from xsam.workers.training.build import build_parts
from xsam.workers.training.checkpoints.store import CheckpointStore
from xsam.workers.training.progress import EpochLosses, Progress
from xsam.workers.training.ranks import Ranks

_STEP_S = 0.05
_SIDE = 1024


def wide_model(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """What the job names as its target: as many layers as make up the size that was asked for."""
    layers = [nn.Linear(_SIDE, _SIDE, bias=False) for _ in range(int(os.environ["XSAM_BENCH_LAYERS"]))]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * image_size**2, _SIDE), *layers, nn.Linear(_SIDE, num_classes)
    )


class Steps:
    """Stands for training: something to compute for about a twentieth of a second on one thread."""

    def __init__(self) -> None:
        size = 256
        while True:
            self._matrix = torch.rand(size, size)
            if min(self.take() for _ in range(3)) > _STEP_S:
                return
            size = int(size * 1.3)

    def take(self) -> float:
        """Compute; return the seconds that it took."""
        started_at = time.perf_counter()
        self._matrix @ self._matrix
        return time.perf_counter() - started_at


class _Saves:
    """A run's checkpoints in one place, one after the other."""

    def __init__(self, spec: JobSpec, place: StorePlace, steps: Steps) -> None:
        self._steps = steps
        folder = place.root / "jobs" / "job1"
        context = RankContext(
            0,
            1,
            "cpu",
            None,
            folder / "checkpoints",
            bucket=place if place.is_bucket else None,
            allowed_packages=("tests",),
        )
        ranks = Ranks(context)
        self.parts = build_parts(spec, context, ranks)
        self._store = CheckpointStore(spec, context, ranks, self.parts)
        self._progress, self._losses = Progress(), EpochLosses(5, "cpu", limit=1e4)
        self._store.restore(self._progress, self._losses)
        parameters = list(self.parts.model.parameters())
        self.parts.optimizer.step(lambda: torch.stack([one.sum() for one in parameters]).sum())

    def lost_s(self, usual_step_s: float) -> tuple[float, float, float]:
        """Save once; return the seconds of the save, those lost until it is where it counts, and until then in all."""
        self._progress.step += 1
        started_at = time.perf_counter()
        self._store.save(self._progress, self._losses, None)
        save_s = lost_s = time.perf_counter() - started_at
        while self._is_on_its_way():
            lost_s += self._steps.take() - usual_step_s
        self._store.uploaded(is_end=True)
        return save_s, lost_s, time.perf_counter() - started_at

    def _is_on_its_way(self) -> bool:
        mirror = self._store._mirror
        return mirror is not None and mirror._thread is not None and mirror._thread.is_alive()


def _bare_write_s(parts: Any, folder: Path) -> float:
    path = folder / "bare.pt"
    started_at = time.perf_counter()
    with path.open("wb") as file:
        torch.save({"model": parts.model.state_dict(), "optimizer": parts.optimizer.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started_at
    path.unlink()
    return seconds


def checkpoints(endpoint: str, megabytes: int, rounds: int) -> list[tuple[object, ...]]:
    """Return a row for the folder and one for the bucket, taken in turns."""
    # Model and momentum: two tensors for each parameter.
    os.environ["XSAM_BENCH_LAYERS"] = str(max(round(megabytes * 1e6 / (2 * 4 * _SIDE**2)), 1))
    spec = JobSpec.model_validate(
        {
            "model": {"name": "custom", "target": "tests.bench.checkpoints:wide_model"},
            "dataset": {"name": "digits", "train_size": 240},
            "optimizer": {"variant": "sgd"},
            "batch_size": 48,
            "checkpoint": {"keep_last": 1},
        }
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {
            "folder": StorePlace(folder / "shared"),
            "bucket": StorePlace(folder / "scratch", new_bucket(endpoint), endpoint),
        }
        steps = Steps()
        runs = {where: _Saves(spec, place, steps) for where, place in places.items()}
        found: dict[str, list[tuple[float, ...]]] = {where: [] for where in runs}
        for _ in range(rounds):
            for where, run in runs.items():
                usual = median([steps.take() for _ in range(20)])
                bare = _bare_write_s(run.parts, folder)
                save, lost, done = run.lost_s(usual)
                found[where].append((bare, save, lost, done, save / bare, lost / bare))
        medians = {where: [median(column) for column in zip(*rows, strict=True)] for where, rows in found.items()}
    return [
        (where, *(f"{value:.2f} s" for value in row[:4]), *(f"{value:.2f}" for value in row[4:]))
        for where, row in medians.items()
    ]


def code(endpoint: str, megabytes: int, rounds: int) -> list[tuple[object, ...]]:
    """Return the seconds until a node that has none of a bundle can import from it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle_id, packed = _bundle(folder / "code", megabytes)
        places = [
            ("folder", StorePlace(folder / "shared")),
            ("bucket", StorePlace(folder / "scratch", new_bucket(endpoint), endpoint)),
        ]
        for _, place in places:
            place.open().put_bytes("bundles/code.tar.gz", packed)

        def unpack(place: StorePlace, number: int) -> None:
            unpacked(place, "bundles/code.tar.gz", folder / f"node-{number}", bundle_id, ".")

        seconds: dict[str, list[float]] = {where: [] for where, _ in places}
        for number in range(2 * rounds):
            where, place = places[number % 2]
            seconds[where].append(_timed(lambda place=place, number=number: unpack(place, number)))  # type: ignore[misc]
        base = median(seconds["folder"])
    return [(where, f"{median(ones):.2f} s", f"{median(ones) / base:.2f}") for where, ones in seconds.items()]


def _bundle(folder: Path, megabytes: int) -> tuple[str, bytes]:
    folder.mkdir()
    for number in range(megabytes):
        (folder / f"part_{number}.py").write_bytes(b"#" + os.urandom(500_000).hex().encode())
    packed = archive.pack(folder, limits_of(CodeSettings(max_packed_bytes=2**30, max_unpacked_bytes=2**30)))
    return packed.id, packed.packed


def _timed(call: Callable[[], None]) -> float:
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser()
    given.add_argument("--megabytes", type=int, default=500)
    given.add_argument("--rounds", type=int, default=5)
    options = given.parse_args()
    torch.set_num_threads(1)
    with s3_server() as endpoint:
        head = ("where", "bare write", "save", "lost", "until it counts", "save / bare", "lost / bare")
        print(table(head, checkpoints(endpoint, options.megabytes, options.rounds)))
        print(table(("code from", "until it is unpacked", "ratio"), code(endpoint, 20, options.rounds)))


if __name__ == "__main__":
    main()
