"""The loss around another job's checkpoints, on the plane that an ascent spans (figure 1a of arXiv 2603.10048)."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from xsam.services.metrics.records import PlaneRecord
from xsam.services.specs.job import JobSpec
from xsam.services.specs.optimizer import AsamVariant, SamVariant, XsamVariant
from xsam.services.specs.plane import Plane
from xsam.workers.messages import FirstStep, ProgressRecord, RankContext, StartedRecord, StopReason
from xsam.workers.training.build import Parts, build_parts
from xsam.workers.training.checkpoints.files import Manifest, verify
from xsam.workers.training.checkpoints.store import MODEL_FILE
from xsam.workers.training.errors import CheckpointError, CheckpointMissingError
from xsam.workers.training.memory import named_memory_errors
from xsam.workers.training.random_state import derive_seed, seed_everything
from xsam.workers.training.ranks import Ranks
from xsam.workers.training.stepping import Stepper
from xsam.workers.training.telemetry import Control, Telemetry
from xsam_core import LossPlane, loss_plane

_CHECKPOINT = re.compile(r"step-\d{9,}")
_Rows = tuple[tuple[float, ...], ...]

log = logging.getLogger("training")


class _StoppedError(Exception):
    """Ends a plane between two of its rows."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


def run_planes(
    spec: JobSpec,
    context: RankContext,
    telemetry: Telemetry,
    control: Control,
    *,
    folder: Path,
    known: Sequence[PlaneRecord] = (),
) -> StopReason | None:
    """Look at each checkpoint, row by row; return why it stopped before the last one, if it did.

    A checkpoint is looked at with the batch that the run would have taken its next step with. Losses are those of
    training: noisy labels, augmentation and all, with the same random numbers at each point.

    Args:
        spec: what the trained job is, with `plane`.
        context: of the only rank.
        telemetry: told of each finished row.
        control: asked after each row.
        folder: the trained job's checkpoint folder.
        known: what earlier attempts have reported: finished planes are left out, others go on from their last row.

    Raises:
        UserSpecError: there is no intact checkpoint; and as `run_training`.
        NonFiniteError: the loss at a checkpoint is not finite.
        OutOfMemoryError: the device's memory is full.
    """
    if spec.plane is None:
        raise ValueError("the job looks at no plane")

    def describe() -> str:
        return (
            f"out of memory on {context.device}: besides the network there are two copies of its weights and one "
            f"batch of {spec.batch_size} examples"
        )

    with named_memory_errors(describe):
        return _Look(spec, spec.plane, context, telemetry, control, folder).run(known)


class _Look:
    """One attempt at the planes of a job."""

    def __init__(
        self,
        spec: JobSpec,
        plane: Plane,
        context: RankContext,
        telemetry: Telemetry,
        control: Control,
        folder: Path,
    ) -> None:
        self._spec, self._plane, self._folder = spec, plane, folder
        self._telemetry, self._control = telemetry, control
        self._parts: Parts = build_parts(spec, context, Ranks(context))
        self._autocast = Stepper(spec, self._parts, context.device).autocast
        self._rho, self._rho_max, self._ascent_steps = radii(spec, plane)
        self._is_first_row = True

    def run(self, known: Sequence[PlaneRecord]) -> StopReason | None:
        """Look at what is left to be looked at."""
        names = self._names()
        done = {one.checkpoint: one for one in known}
        num_parameters = sum(p.numel() for p in self._parts.model.parameters())
        self._telemetry.report(StartedRecord(self._plane.num_points, 1, 1, num_parameters))
        num_looked_at = sum(one.found is not None for one in known)
        for number, name in enumerate(names, 1):
            record = done.get(name)
            if record is not None and record.found is not None:
                continue
            try:
                manifest = verify(self._folder / name)
            except CheckpointError as e:  # a run that goes on prunes; what is left of it is looked at
                log.warning("%s is left out: %s", name, e)
                continue
            try:
                self._look_at(name, number, manifest, () if record is None else _rows(record))
            except _StoppedError as e:
                return e.reason
            num_looked_at += 1
        if num_looked_at == 0:
            raise CheckpointMissingError(
                f"plane.job is {self._plane.job}, of which no intact checkpoint is there: it has not come to one, or "
                "retention has deleted them"
            )
        return None

    def _names(self) -> list[str]:
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        names = sorted((path.name for path in found if _CHECKPOINT.fullmatch(path.name)), key=lambda n: (len(n), n))
        return names[-1:] if self._plane.checkpoints == "newest" else names

    def _look_at(self, name: str, number: int, manifest: Manifest, rows: _Rows) -> None:
        parts, progress = self._parts, manifest.progress
        parts.model.load_state_dict(load_file(self._folder / name / MODEL_FILE))
        epoch, step = int(progress["epochs_done"]), int(progress["step"])
        parts.task.on_epoch(parts.model, epoch + 1)
        parts.train_mode()
        batch = next(iter(parts.train_feed.batches(epoch, int(progress["step_in_epoch"]))))
        seed = derive_seed(self._spec.seed, "plane")

        def closure() -> Tensor:
            seed_everything(seed)
            with self._autocast:
                loss, _ = parts.task.loss(parts.model, batch)
            return loss

        def on_row(rows: _Rows) -> None:
            self._telemetry.report(PlaneRecord(name, epoch, step, _stored(rows)))
            self._report_progress(number, rows)
            reason = self._control.stop_reason()
            if reason is not None:
                raise _StoppedError(reason)

        found = loss_plane(
            parts.model,
            closure,
            rho=self._rho,
            rho_max=self._rho_max,
            ascent_steps=self._ascent_steps,
            extent=self._plane.extent,
            num_points=self._plane.num_points,
            rows=rows,
            on_row=on_row,
        )
        self._telemetry.report(PlaneRecord(name, epoch, step, _stored(found.losses), _document(found)))

    def _report_progress(self, number: int, rows: _Rows) -> None:
        if self._is_first_row:
            self._is_first_row = False
            self._telemetry.report(FirstStep())
        middle = rows[-1][len(rows[-1]) // 2]
        if math.isfinite(middle):
            self._telemetry.report(ProgressRecord(number, len(rows), middle))


def radii(spec: JobSpec, plane: Plane) -> tuple[float, float, int]:
    """Return rho, rho_max and k of a job's planes: as told, or else the trained job's own.

    ASAM's rho is no length in the space of weights, and SGD has none: SAM's default stands in.
    """
    own = spec.optimizer
    rho, steps = getattr(own, "rho", None), getattr(own, "ascent_steps", 1)
    if plane.rho is not None or rho is None or isinstance(own, AsamVariant):
        rho = plane.rho or SamVariant().rho
    rho_max = plane.rho_max
    if rho_max is None:
        rho_max = own.probe_radius if isinstance(own, XsamVariant) and plane.rho is None else 2 * rho
    return rho, rho_max, plane.ascent_steps or steps


def _rows(record: PlaneRecord) -> _Rows:
    return tuple(tuple(math.nan if loss is None else loss for loss in row) for row in record.losses)


def _stored(rows: _Rows) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(loss if math.isfinite(loss) else None for loss in row) for row in rows)


def _document(plane: LossPlane) -> dict[str, object]:
    """Return all of a plane but its grid's losses, as JSON can hold it."""
    values = {name: value for name, value in asdict(plane).items() if name != "losses"}
    angles = {
        "first_angle_rad": plane.angle_to_highest((0.0, 1.0)),
        "last_angle_rad": plane.angle_to_highest(plane.last),
        "chosen_angle_rad": plane.angle_to_highest(plane.chosen),
    }
    return {name: _finite(value) for name, value in {**values, "highest": plane.highest, **angles}.items()}


def _finite(value: object) -> object:
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
