"""A job's own script in a rank: torchrun's variables, arguments filled in, and its reports as the loop's own."""

import importlib
import os
import runpy
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from xsam.services.metrics.records import CheckpointRecord, EpochRecord
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import Assignment, FirstStep, StartedRecord, StopReason
from xsam.workers.sdk.run import Run, enter
from xsam.workers.training.checkpoints.mirror import CheckpointMirror, mirror_of
from xsam.workers.training.errors import CheckpointError, TargetError, TrainingError
from xsam.workers.training.loop import TrainingOutcome
from xsam.workers.training.optimizers import read_alpha
from xsam.workers.training.progress import Progress
from xsam.workers.training.random_state import seed_everything
from xsam.workers.training.tasks.goal import Goal
from xsam.workers.training.telemetry import Control, ProgressThrottle, Telemetry


def run_script(assignment: Assignment, telemetry: Telemetry, control: Control) -> TrainingOutcome:
    """Run the job's entrypoint to its end, in this process, which must not be lent again.

    Raises:
        TargetError: there is no such file or function.
        TrainingError: the script ended with a status that is not 0.
    """
    spec, context = assignment.spec, assignment.context
    if spec.entrypoint is None or context.code_dir is None:
        raise TargetError("an entrypoint needs code")
    mirror = mirror_of(context, control.may_publish)
    if mirror is not None:
        if context.rank == 0:
            mirror.begin()
        mirror.fetch_all(is_newest_enough=True)
    host = ServiceHost(spec, telemetry, control, mirror)
    torch.set_num_threads(context.num_threads)
    run = Run(
        host,
        config=spec.config,
        rank=context.rank,
        world_size=context.world_size,
        device=context.device,
        data_root=context.dataset_root,
        folder=context.checkpoint_dir,
        epochs=spec.epochs,
        seed=spec.seed,
    )
    seed_everything(spec.seed)
    enter(run)
    os.environ.update(_variables(assignment))
    os.chdir(context.code_dir)
    try:
        _start(spec, context.code_dir)
    except BaseException:
        with suppress(CheckpointError):  # what is on its way to the bucket is what the next attempt goes on from
            host.finish()
        raise
    finally:
        enter(None)
        if dist.is_initialized():
            dist.destroy_process_group()
    host.finish()
    return host.outcome(control.stop_reason() if run.was_told_to_stop else None)


def _start(spec: JobSpec, code_dir: Path) -> None:
    entrypoint = spec.entrypoint
    if entrypoint is None:
        return
    path = code_dir / entrypoint.file
    if not path.is_file():
        raise TargetError(f"entrypoint {entrypoint.file}: the code has no such file")
    sys.argv = [str(path), *entrypoint.filled(spec.model_dump(mode="json"))]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as `python train.py` does
    try:
        if entrypoint.function is None:
            runpy.run_path(str(path), run_name="__main__")
        else:
            module = importlib.import_module(".".join(Path(entrypoint.file).with_suffix("").parts))
            function = getattr(module, entrypoint.function, None)
            if not callable(function):
                raise TargetError(f"entrypoint {entrypoint.file} has no function {entrypoint.function!r}")
            function()
    except SystemExit as e:
        if e.code not in (None, 0):
            raise TrainingError(f"the script {entrypoint.file} ended with status {e.code}") from e


def _variables(assignment: Assignment) -> dict[str, str]:
    """Return what torchrun sets; a rank sees its own GPUs only, so each is the first of its node."""
    context = assignment.context
    host, port = "127.0.0.1", ""
    if assignment.master_address:
        host, port = assignment.master_address.rsplit(":", 1)
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
    return {
        "RANK": str(context.rank),
        "WORLD_SIZE": str(context.world_size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": str(context.rank),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "XSAM_JOB_ID": assignment.job_id,
    }


class ServiceHost:
    """Turns a script's reports into those of the training loop.

    Args:
        spec: the job.
        telemetry: takes them; silent on every rank but the first.
        control: says when to stop.
        mirror: brings checkpoints into the bucket; None where all nodes share a folder.
    """

    def __init__(
        self, spec: JobSpec, telemetry: Telemetry, control: Control, mirror: CheckpointMirror | None = None
    ) -> None:
        self._mirror = mirror
        self._spec = spec
        self._telemetry = telemetry
        self._control = control
        self._throttle = ProgressThrottle(telemetry, is_silent=False)
        self._goal = Goal.parse(spec.best or "loss:min")
        self._progress = Progress()
        self._epoch_at = time.perf_counter()
        self._epoch_step = 0
        """Steps done when the running epoch began."""
        self._is_first_step = True

    def step(self, step: int, loss: Any) -> None:
        """Report the position."""
        self._note_step(step)
        self._report_uploaded()
        self._throttle.report(
            epoch=self._progress.epochs_done + 1, step=step, read_loss=lambda: 0.0 if loss is None else float(loss)
        )

    def alpha(self, epoch: int, step: int, optimizer: Any) -> None:
        """Report a search, once."""
        record = read_alpha(optimizer, epoch=epoch, step=step)
        self._progress.take_alpha(record)
        self._telemetry.report(record)

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], optimizer: Any) -> None:
        """Report an epoch as a row."""
        self._note_step(step)
        progress, own = self._progress, dict(values)
        steps = step - self._epoch_step
        seconds = time.perf_counter() - self._epoch_at
        loss = own.pop("loss")
        progress.grad_evals += steps * (1 + int(getattr(optimizer, "ascent_steps", 0) or 0))
        record = EpochRecord(
            epoch=epoch,
            step=step,
            train_loss=loss,
            train_accuracy=own.pop("train_accuracy", None),
            eval_loss=own.pop("eval_loss", loss),
            eval_accuracy=own.pop("accuracy", None),
            lr=float(optimizer.param_groups[0]["lr"]) if optimizer is not None else 0.0,
            epoch_s=seconds,
            samples_per_s=steps * self._spec.batch_size / seconds,
            grad_evals=progress.grad_evals,
            probe_forwards=progress.probe_forwards,
            metrics=own,
        )
        progress.finish_epoch(record, self._goal)
        self._epoch_step, self._epoch_at = step, time.perf_counter()
        self._telemetry.report(record)

    def stop_reason(self) -> StopReason | None:
        """Return why the run should stop."""
        return self._control.stop_reason()

    def may_publish(self) -> bool:
        """Ask whether the job is still this attempt's."""
        return self._control.may_publish()

    def published(self, step: int, name: str, size_bytes: int, sha256: str) -> None:
        """Report a checkpoint."""
        is_best = self._progress.best_epoch == self._progress.epochs_done
        record = CheckpointRecord(self._progress.epochs_done, step, name, size_bytes, sha256, is_best=is_best)
        if self._mirror is None:
            self._telemetry.report(record)
        else:
            self._mirror.send(record)
            self._report_uploaded()

    def finish(self) -> None:
        """Wait until the bucket has what was saved last.

        Raises:
            CheckpointError: it does not take it.
        """
        if self._mirror is not None:
            self._mirror.wait()
            self._report_uploaded()

    def state(self) -> dict[str, Any]:
        """Return the totals."""
        return {**self._progress.values(), "epoch_step": self._epoch_step}

    def restored(self, state: Mapping[str, Any] | None) -> None:
        """Go on with the totals of a checkpoint, and say where the attempt begins."""
        if state is not None:
            values = dict(state)
            self._epoch_step = int(values.pop("epoch_step", 0))
            self._progress.load_values(values)
        progress = self._progress
        steps_per_epoch = self._spec.steps_per_epoch or 0
        self._telemetry.report(StartedRecord(steps_per_epoch, progress.step + 1, progress.epochs_done + 1, 0))

    def outcome(self, stopped_by: StopReason | None) -> TrainingOutcome:
        """Return how the run ended."""
        return TrainingOutcome(self._progress.summary(self._goal, None), stopped_by)

    def _report_uploaded(self) -> None:
        if self._mirror is not None:
            for record in self._mirror.settled():
                self._telemetry.report(record)

    def _note_step(self, step: int) -> None:
        self._progress.step = step
        if self._is_first_step:
            self._is_first_step = False
            self._telemetry.report(FirstStep())
