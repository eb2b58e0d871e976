"""Checkpoints: written whole or not at all, verified on load, the newest and the best kept.

Layout, below `RankContext.checkpoint_dir`, which all ranks must share, but where a bucket has the same layout:

    step-000000123/model.safetensors   parameters and rank 0's buffers
                   average.safetensors the averaged ones, where the recipe keeps an average
                   optimizer.pt        the optimizer's state, base optimizer included
                   rank-00000.pt       one for each rank: random states, buffers, loss scale, the running epoch's losses
                   manifest.json       position, running totals, identity of the job, SHA-256 of each file
    ../weights/best.safetensors        weights of the best epoch among those that a checkpoint followed
               last.safetensors        weights of the last checkpoint at the end of an epoch

Weights for others are the averaged ones where there is an average.

A checkpoint is made in a folder named `tmp-...` and moved to its name when every rank's file is on the disk. A run
resumes with as many workers as it began with: what a rank owns (random states, losses of the running epoch) has no
equal elsewhere, and the promise is a run that ends bit for bit like one that was never interrupted. Another number
is refused by name.
"""

import io
import logging
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from xsam.services.metrics.records import CheckpointRecord
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.training.build import Parts
from xsam.workers.training.checkpoints.files import (
    read_manifest,
    read_state,
    replace_by_link,
    replace_tensors,
    seal,
    sync_folder,
    verify,
    write_bytes,
    write_state,
    write_tensors,
)
from xsam.workers.training.checkpoints.mirror import mirror_of
from xsam.workers.training.errors import CheckpointError, CheckpointMismatchError, StoreAwayError, SupersededError
from xsam.workers.training.progress import EpochLosses, Progress
from xsam.workers.training.random_state import random_states, restore_random_states
from xsam.workers.training.ranks import Ranks

MODEL_FILE = "model.safetensors"
AVERAGE_FILE = "average.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
_FOLDER_NAME = re.compile(r"step-(\d{9,})")
_TEMPORARY_PREFIX = "tmp-"
_IDENTITY_FIELDS = {
    *("task", "model", "dataset", "optimizer", "schedule", "batch_size", "steps_per_epoch", "seed", "precision"),
    *("recipe", "parameters", "speed"),
}
"""What must not change over a run. The number of epochs may grow; names, priorities and policies may change."""

logger = logging.getLogger(__name__)


class CheckpointStore:
    """Saves and restores one run, all ranks together: each method must be called by every rank.

    Args:
        spec: the job.
        context: this rank.
        ranks: the collectives.
        parts: the model and the optimizer that are saved and restored in place.
        may_publish: asked on rank 0 before a checkpoint is put in place.
    """

    def __init__(
        self,
        spec: JobSpec,
        context: RankContext,
        ranks: Ranks,
        parts: Parts,
        may_publish: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder = context.checkpoint_dir
        self._weights_folder = context.checkpoint_dir.parent / "weights"
        self._keep_last = spec.checkpoint.keep_last
        self._context = context
        self._ranks = ranks
        self._parts = parts
        self._identity = {
            **spec.model_dump(mode="json", include=_IDENTITY_FIELDS),
            "num_workers": context.world_size,
        }
        self._may_publish = may_publish
        self._mirror = mirror_of(context, may_publish)
        self._unsaved_best: dict[str, Tensor] | None = None

    def keep_best_weights(self) -> None:
        """Remember the present weights as the best ones; the next `save` writes them."""
        if self._ranks.is_first:
            state = self._parts.evaluated.state_dict()
            self._unsaved_best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def save(self, progress: Progress, losses: EpochLosses, score: float | None) -> CheckpointRecord | None:
        """Write a checkpoint and prune older ones; return its record on rank 0, unless a bucket must have it first.

        With a bucket it is uploaded while training goes on, after the one before, and `uploaded` returns its record.

        Args:
            progress: the position to go on from.
            losses: this rank's losses of the running epoch.
            score: of the epoch that has just ended, more is better; None in the middle of one.

        Raises:
            SupersededError: another attempt owns the job.
            CheckpointError: the storage can't be written, or the ranks do not see the same one.
        """
        name = f"step-{progress.step:09d}"
        token = self._ranks.from_first(secrets.randbits(62))
        temporary = self._folder / f"{_TEMPORARY_PREFIX}{name}-{token:x}"
        if self._mirror is not None:
            self._mirror.wait()
        try:
            self._write_files(temporary, losses)
            self._ranks.wait()
            record = self._publish(temporary, name, progress, score) if self._ranks.is_first else None
        except OSError as e:
            raise CheckpointError(f"checkpoint {name} can't be written to {self._folder}: {e}") from e
        if self._mirror is None or record is None:
            return record
        self._mirror.send(record)
        return None

    def uploaded(self, *, is_end: bool = False) -> Sequence[CheckpointRecord]:
        """Return the records of checkpoints that have come into the bucket since the last call.

        Args:
            is_end: wait for what is on its way.

        Raises:
            SupersededError: another attempt owns the job.
            CheckpointError: the bucket does not take one.
        """
        if self._mirror is None:
            return ()
        if is_end:
            self._mirror.wait()
        return self._mirror.settled()

    def restore(self, progress: Progress, losses: EpochLosses) -> None:
        """Bring model, optimizer, random states, `progress` and `losses` to the newest intact checkpoint, if any.

        Raises:
            CheckpointMismatchError: it belongs to another job or was made by another number of workers.
            CheckpointError: this rank does not see the folder that rank 0 chose.
        """
        step = self._ranks.from_first(self._newest_intact() if self._ranks.is_first else 0)
        if step < 0:
            return
        folder = self._folder / f"step-{step:09d}"
        if self._mirror is not None:
            self._mirror.fetch(folder.name)
        manifest = read_manifest(folder)
        self._check_identity(folder, manifest.identity)
        self._parts.model.load_state_dict(load_file(folder / MODEL_FILE))
        self._parts.optimizer.load_state_dict(read_state(folder / OPTIMIZER_FILE))
        state = read_state(folder / _rank_file(self._context.rank))
        for name, buffer in self._parts.model.named_buffers():
            buffer.copy_(state["buffers"][name])
        if self._parts.average is not None:
            average = self._parts.average.model
            average.load_state_dict(load_file(folder / AVERAGE_FILE))
            for name, buffer in average.named_buffers():
                buffer.copy_(state["average_buffers"][name])
        if self._parts.scaler is not None:
            self._parts.scaler.load_state_dict(state["scaler"])
        losses.load_values(state["losses"])
        restore_random_states(state["random"], self._context)
        progress.load_values(manifest.progress)

    def _write_files(self, temporary: Path, losses: EpochLosses) -> None:
        model, average = self._parts.model, self._parts.average
        rank_state = {
            "random": random_states(self._context),
            "buffers": _buffers(model),
            "losses": losses.values(),
        }
        if average is not None:
            rank_state["average_buffers"] = _buffers(average.model)
        if self._parts.scaler is not None:
            rank_state["scaler"] = self._parts.scaler.state_dict()
        self._write_rank_state(temporary, rank_state)
        if self._ranks.is_first:
            write_tensors(temporary / MODEL_FILE, model.state_dict())
            if average is not None:
                write_tensors(temporary / AVERAGE_FILE, average.model.state_dict())
            write_state(temporary / OPTIMIZER_FILE, self._parts.optimizer.state_dict())

    def _write_rank_state(self, temporary: Path, state: dict[str, Any]) -> None:
        """Write this rank's own part, or where ranks share no folder, all of them in rank 0."""
        if self._mirror is None or self._context.world_size == 1:
            temporary.mkdir(parents=True, exist_ok=True)
            write_state(temporary / _rank_file(self._context.rank), state)
            return
        content = io.BytesIO()
        torch.save(state, content)
        for rank, part in enumerate(self._ranks.gathered(content.getvalue())):
            temporary.mkdir(parents=True, exist_ok=True)
            write_bytes(temporary / _rank_file(rank), part)

    def _publish(self, temporary: Path, name: str, progress: Progress, score: float | None) -> CheckpointRecord:
        for rank in range(self._context.world_size):
            if not (temporary / _rank_file(rank)).is_file():
                raise CheckpointError(
                    f"rank {rank} has written its part of {name} elsewhere: {self._folder} must be storage "
                    "that all workers share"
                )
        manifest = {"identity": self._identity, "progress": progress.values(), "score": score}
        sha256, size_bytes = seal(temporary, manifest)
        if not self._may_publish():
            shutil.rmtree(temporary, ignore_errors=True)
            raise SupersededError(f"{name} is not put in place: another attempt owns the job by now")
        # Before the checkpoint, so that one that is there never lacks the best weights of its past.
        self._write_weights(temporary, is_epoch_end=score is not None)
        self._move(temporary, self._folder / name)
        best_step = self._prune()
        return CheckpointRecord(
            epoch=progress.epochs_done,
            step=progress.step,
            name=name,
            size_bytes=size_bytes,
            sha256=sha256,
            is_best=best_step == progress.step,
        )

    def _move(self, temporary: Path, target: Path) -> None:
        replaced = temporary.with_name(f"{temporary.name}-replaced")
        # A run that fell back behind a damaged checkpoint comes past it again.
        if target.exists():
            target.rename(replaced)
        temporary.rename(target)
        sync_folder(self._folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def _write_weights(self, temporary: Path, *, is_epoch_end: bool) -> None:
        self._weights_folder.mkdir(parents=True, exist_ok=True)
        if self._unsaved_best is not None:
            replace_tensors(self._weights_folder / "best.safetensors", self._unsaved_best)
            self._unsaved_best = None
        if is_epoch_end:
            source = MODEL_FILE if self._parts.average is None else AVERAGE_FILE
            replace_by_link(self._weights_folder / "last.safetensors", temporary / source)

    def _prune(self) -> int | None:
        """Remove all but the newest `keep_last` checkpoints and the best, the earliest of equals; return its step."""
        scores = self._scores()
        scored = [(-score, step) for step, score in scores.items() if score is not None]
        best_step = min(scored)[1] if scored else None
        for step in sorted(scores)[: -self._keep_last]:
            if step != best_step:
                shutil.rmtree(self._folder / f"step-{step:09d}", ignore_errors=True)
        return best_step

    def _scores(self) -> dict[int, float | None]:
        """Return the score of each checkpoint by step, None in the middle of an epoch or if unreadable."""
        scores: dict[int, float | None] = {}
        for step in self._steps():
            try:
                scores[step] = read_manifest(self._folder / f"step-{step:09d}").score
            except CheckpointError:
                scores[step] = None
        return scores

    def _steps(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        matches = (_FOLDER_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _newest_intact(self) -> int:
        """Return the step of the newest checkpoint whose files are as they were written, or -1; on rank 0."""
        self._remove_leftovers()
        if self._mirror is not None:
            self._mirror.begin()
        for step in reversed(self._steps()):
            folder = self._folder / f"step-{step:09d}"
            try:
                if self._mirror is not None:
                    self._mirror.fetch(folder.name)
                verify(folder)
            except StoreAwayError:
                raise
            except CheckpointError as e:
                logger.warning("checkpoint of step %d is skipped: %s", step, e)
            else:
                return step
        return -1

    def _remove_leftovers(self) -> None:
        if self._folder.is_dir():
            for path in self._folder.glob(f"{_TEMPORARY_PREFIX}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _check_identity(self, folder: Path, identity: dict[str, Any]) -> None:
        identity = _filled(identity)
        for field, expected in self._identity.items():
            if identity.get(field) != expected:
                raise CheckpointMismatchError(
                    f"{folder} was made with {field} = {identity.get(field)!r}, but the job says {expected!r}; "
                    "a run resumes only as what it was"
                )


def _filled(identity: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's identity with fields that jobs have got since, at their defaults."""
    fields = {name: value for name, value in identity.items() if name in _IDENTITY_FIELDS}
    try:
        known = JobSpec.model_validate(fields)
    except ValidationError:
        return identity
    return {**identity, **known.model_dump(mode="json", include=_IDENTITY_FIELDS)}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.detach().cpu() for name, buffer in model.named_buffers()}


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.pt"
