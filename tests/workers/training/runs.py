"""Runs of the training loop for tests: recorded reports, scripted wishes, and two real gloo ranks."""

from __future__ import annotations

import multiprocessing
import uuid
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from xsam.services.metrics.records import AlphaRecord, CheckpointRecord, EpochRecord, PlaneRecord
from xsam.services.specs.job import JobSpec
from xsam.services.stores.store import StorePlace
from xsam.workers.messages import FirstStep, ProgressRecord, RankContext, Report, StartedRecord, StopReason
from xsam.workers.training.loop import TrainingOutcome, run_training

RANK_TIMEOUT_S = 240


@dataclass
class Recorder:
    """Telemetry that keeps everything."""

    starts: list[StartedRecord] = field(default_factory=list)
    first_steps: list[FirstStep] = field(default_factory=list)
    progress_reports: list[ProgressRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    alphas: list[AlphaRecord] = field(default_factory=list)
    checkpoints: list[CheckpointRecord] = field(default_factory=list)
    planes: list[PlaneRecord] = field(default_factory=list)

    def report(self, report: Report) -> None:
        kept: dict[type, list[Any]] = {
            StartedRecord: self.starts,
            FirstStep: self.first_steps,
            ProgressRecord: self.progress_reports,
            EpochRecord: self.epochs,
            AlphaRecord: self.alphas,
            CheckpointRecord: self.checkpoints,
            PlaneRecord: self.planes,
        }
        kept[type(report)].append(report)


@dataclass
class WishAfter:
    """Control that gives a reason to stop from its N-th reading on; by default never."""

    reason: StopReason | None = None
    after: int = 0
    num_readings: int = 0

    def stop_reason(self) -> StopReason | None:
        self.num_readings += 1
        return self.reason if self.num_readings >= self.after else None

    def may_publish(self) -> bool:
        return True


@dataclass(frozen=True)
class Ran:
    """What one rank's run left behind."""

    outcome: TrainingOutcome
    telemetry: Recorder
    folder: Path

    @property
    def weights(self) -> dict[str, Tensor]:
        return load_file(self.folder / "weights" / "last.safetensors")


def spec_of(**fields: Any) -> JobSpec:
    return JobSpec.model_validate({"checkpoint": {"every_epochs": 1000}, **fields})


def context_in(folder: Path, rank: int = 0, world_size: int = 1, **options: Any) -> RankContext:
    return RankContext(
        **{
            "rank": rank,
            "world_size": world_size,
            "device": "cpu",
            "dataset_root": None,
            "checkpoint_dir": folder / "checkpoints",
            **options,
        }
    )


def run(spec: JobSpec, folder: Path, control: WishAfter | None = None, **context_options: Any) -> Ran:
    return _run_at(spec, context_in(folder, **context_options), control)


def _run_at(spec: JobSpec, context: RankContext, control: WishAfter | None) -> Ran:
    telemetry = Recorder()
    outcome = run_training(spec, context, telemetry, control or WishAfter())
    return Ran(outcome, telemetry, context.checkpoint_dir.parent)


class RankPool:
    """Two processes that stay warm for all tests; every run meets over a store file of its own."""

    def __init__(self, world_size: int, store_folder: Path) -> None:
        self.world_size = world_size
        self._store_folder = store_folder
        self._executor = ProcessPoolExecutor(world_size, mp_context=multiprocessing.get_context("spawn"))

    def run(self, spec: JobSpec, folder: Path, control: WishAfter | None = None, **options: Any) -> list[Ran]:
        """Run on all ranks and return each one's result; the first rank's exception comes first."""
        return [future.result(RANK_TIMEOUT_S) for future in self._start(spec, folder, control, **options)]

    def failures(self, spec: JobSpec, folder: Path, **options: Any) -> list[BaseException | None]:
        """Run on all ranks and return each one's exception."""
        return [future.exception(RANK_TIMEOUT_S) for future in self._start(spec, folder, None, **options)]

    def _start(
        self,
        spec: JobSpec,
        folder: Path,
        control: WishAfter | None,
        *,
        folder_per_rank: bool = False,
        places: Sequence[StorePlace] = (),
        **context_options: Any,
    ) -> list[Future[Ran]]:
        store = self._store_folder / uuid.uuid4().hex
        folders = [folder / str(rank) if folder_per_rank else folder for rank in range(self.world_size)]
        contexts = [
            context_in(folders[rank], rank, self.world_size, **context_options) for rank in range(self.world_size)
        ]
        for rank, place in enumerate(places):
            contexts[rank] = context_in(place.root / "jobs" / "job1", rank, self.world_size, bucket=place)
        # A task waits for its peers in the rendezvous, so each lands in a process of its own.
        return [self._executor.submit(_run_rank, spec, context, store, control) for context in contexts]

    def close(self) -> None:
        self._executor.shutdown()


def _run_rank(spec: JobSpec, context: RankContext, store: Path, control: WishAfter | None) -> Ran:
    # The ranks are not pytest's processes, so they must be told.
    warnings.simplefilter("error")
    with _process_group(context, store):
        return _run_at(spec, context, control)


@contextmanager
def _process_group(context: RankContext, store: Path) -> Iterator[None]:
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(store), context.world_size),
        rank=context.rank,
        world_size=context.world_size,
        timeout=timedelta(seconds=RANK_TIMEOUT_S / 2),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def without_times(records: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, epoch_s=0.0, samples_per_s=0.0) for record in records]


def assert_equal_weights(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
