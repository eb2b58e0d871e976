"""What a rank process does: the training loop under Ray Train, in this process or in a worker group."""

import contextlib
import functools
import gc
import logging
import os
import socket
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from xsam.services.jobs.states import FailureKind
from xsam.services.process import freeze_imports
from xsam.services.secrets.redaction import Redaction
from xsam.services.specs.job import Resources
from xsam.workers.isolation.team_user import IsolationError
from xsam.workers.messages import Assignment, GpuUse, RankContext, RankResult, StopReason, explain, sentence
from xsam.workers.rank import failures
from xsam.workers.rank.code import with_code
from xsam.workers.rank.environment import describe_environment
from xsam.workers.rank.gpu_use import measured
from xsam.workers.rank.isolation import entered
from xsam.workers.rank.log_capture import captured_output
from xsam.workers.rank.reporter import RunnerReporter
from xsam.workers.rank.script import run_script
from xsam.workers.rank.secrets import in_environment
from xsam.workers.scratch import Scratch
from xsam.workers.training.checkpoints.mirror import CheckpointMirror
from xsam.workers.training.errors import DeviceError, TrainingError
from xsam.workers.training.loop import run_training
from xsam.workers.training.plane import run_planes
from xsam.workers.training.telemetry import Control, SilentTelemetry, Telemetry

_DEVICES = "CUDA_VISIBLE_DEVICES"
_RENDEZVOUS_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_GROUP_VARIABLES = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the controller notices the end of the loop this much later
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
}


log = logging.getLogger("training")


class RankFailedError(Exception):
    """Tells Ray Train that a rank failed; carries the rank's own account of it."""

    def __init__(self, result: RankResult) -> None:
        super().__init__(result.message)
        self.result = result

    def __reduce__(self) -> tuple[type["RankFailedError"], tuple[RankResult]]:
        return type(self), (self.result,)


def warm_up() -> None:
    """Pay now what the first job would pay: the first optimizer of a process imports torch._dynamo, for seconds."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    freeze_imports()


def run_here(assignment: Assignment, runner: ActorHandle) -> RankResult:
    """Run one rank in this process (Ray Train's local mode, DDP through torchrun's variables).

    A script makes its process group itself.
    """
    _see_devices(assignment)
    with _scratch(assignment):
        try:
            own = entered(assignment)
        except (IsolationError, TrainingError) as e:
            return _failed(assignment.context.rank, e, traceback.format_exc())
        return _run_alone(own, runner)


def _run_alone(assignment: Assignment, runner: ActorHandle) -> RankResult:
    if assignment.spec.entrypoint is not None:
        return run_rank(assignment, runner)
    with _rendezvous(assignment), tempfile.TemporaryDirectory(prefix="xsam-train-") as storage:
        trainer = ray.train.torch.TorchTrainer(
            lambda: run_rank(assignment, runner),
            scaling_config=ray.train.ScalingConfig(num_workers=0, use_gpu=_has_gpu(assignment.context)),
            run_config=ray.train.RunConfig(name=_run_name(assignment), storage_path=storage),
        )
        try:
            return trainer.fit().return_value
        finally:
            _forget_run()


def run_group(assignment: Assignment, runner: ActorHandle) -> RankResult:
    """Run all ranks in a worker group that Ray Train manages, and return the result that speaks for the run."""
    os.environ.update(_GROUP_VARIABLES)
    storage = assignment.log_dir.parent / "ray-train"
    trainer = ray.train.torch.TorchTrainer(
        _group_loop,
        train_loop_config={"assignment": assignment, "runner": runner},
        scaling_config=_scaling(assignment.spec.resources),
        torch_config=ray.train.torch.TorchConfig(backend=None if _has_gpu(assignment.context) else "gloo"),
        run_config=ray.train.RunConfig(name=_run_name(assignment), storage_path=str(_made(storage))),
    )
    try:
        return trainer.fit().return_value
    except TrainingFailedError as e:
        return _explain_failure(e)


def run_rank(assignment: Assignment, runner: ActorHandle) -> RankResult:
    """Run the training loop for one rank whose process group is up; a failing job gives a result, never an error."""
    hide, rank = Redaction(assignment.secrets.values()), assignment.context.rank
    with captured_output(assignment.log_dir, rank, hide) as output:
        _say_where(assignment.context)
        reporter = _reporter(assignment, runner) if rank == 0 else None
        try:
            with _measured(assignment, runner):
                ready = with_code(assignment)
                with in_environment(assignment.secrets):
                    return _train(ready, reporter or SilentTelemetry(), reporter or _NoWish())
        except (Exception, SystemExit) as e:  # the job's own code may raise anything; this boundary makes it a value
            text = hide(traceback.format_exc())
            output.write(text)
            failed = _failed(rank, e, text)
            return replace(failed, message=hide(failed.message))
        finally:
            if reporter is not None:
                reporter.close()


def _failed(rank: int, error: BaseException, text: str) -> RankResult:
    kind, message = failures.classify(error)
    return RankResult(
        rank,
        failure_kind=kind,
        message=message,
        traceback=text,
        is_device_failure=failures.is_of_device(error),
        is_echo=failures.is_echo(error),
    )


@contextlib.contextmanager
def _scratch(assignment: Assignment) -> Iterator[None]:
    bucket, rank = assignment.context.bucket, assignment.context.rank
    if bucket is None:
        yield
        return
    held = Scratch(bucket, assignment.job_id, (f"attempts/{assignment.attempt}/logs/rank-{rank}.*",))
    try:
        yield
    finally:
        held.close()


def _reporter(assignment: Assignment, runner: ActorHandle) -> RunnerReporter:
    # Nothing hangs on a verdict after the last epoch.
    num_judged = assignment.spec.epochs - 1 if assignment.is_judged else 0
    return RunnerReporter(runner, assignment.job_id, assignment.attempt, describe_environment(), num_judged=num_judged)


def _measured(assignment: Assignment, runner: ActorHandle) -> contextlib.AbstractContextManager[None]:
    def send(use: GpuUse) -> None:
        runner.record.remote(assignment.job_id, assignment.attempt, use)  # one that gets lost is not missed

    own = os.environ.get(_DEVICES, "") if assignment.spec.resources.gpus_per_worker else ""
    return measured(assignment.context.rank, own, send)


class _NoWish:
    def stop_reason(self) -> StopReason | None:
        return None

    def may_publish(self) -> bool:
        return True


def _group_loop(config: dict[str, Any]) -> RankResult:
    rank = ray.train.get_context().get_world_rank()
    assignment: Assignment = config["assignment"]
    context = replace(assignment.context, rank=rank)
    if _has_gpu(context):
        context = replace(context, device=str(ray.train.torch.get_device()))
    result = run_rank(replace(assignment, context=context), config["runner"])
    if result.failure_kind is not None:
        raise RankFailedError(result)
    return result


def _train(assignment: Assignment, telemetry: Telemetry, control: Control) -> RankResult:
    context = assignment.context
    if context.device != "cpu" and not torch.cuda.is_available():
        raise DeviceError(
            f"Ray gave rank {context.rank} a GPU on {socket.gethostname()} ({os.environ.get('CUDA_VISIBLE_DEVICES')}), "
            "but CUDA does not work there; XSAM_TRAINING__DEVICE=cpu trains on GPUs that are only announced"
        )
    if assignment.spec.plane is not None and assignment.looked_at is not None:
        return RankResult(context.rank, stopped_by=_look(assignment, assignment.looked_at, telemetry, control))
    if assignment.spec.entrypoint is not None:
        outcome = run_script(assignment, telemetry, control)
    else:
        outcome = run_training(assignment.spec, context, telemetry, control)
    return RankResult(context.rank, summary=asdict(outcome.summary), stopped_by=outcome.stopped_by)


def _look(assignment: Assignment, folder: Path, telemetry: Telemetry, control: Control) -> StopReason | None:
    spec, context = assignment.spec, assignment.context
    looked_at = functools.partial(run_planes, spec, context, telemetry, control, known=assignment.planes)
    if context.bucket is None or spec.plane is None:
        return looked_at(folder=folder)
    # Not the trained job's own folder, which may be on this node and in use.
    with tempfile.TemporaryDirectory(prefix="xsam-plane-") as scratch:
        fetched = Path(scratch) / folder.name
        mirror = CheckpointMirror(context.bucket, context.bucket.name_of(folder.parent), fetched)
        mirror.fetch_all(is_newest_enough=spec.plane.checkpoints == "newest")
        return looked_at(folder=fetched)


def _has_gpu(context: RankContext) -> bool:
    """Whether the rank is to train on a GPU that works; one that does not is named when the run begins."""
    return context.device != "cpu" and torch.cuda.is_available()


def _scaling(resources: Resources) -> ray.train.ScalingConfig:
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    return ray.train.ScalingConfig(
        num_workers=resources.num_workers,
        use_gpu=bool(resources.gpus_per_worker),
        resources_per_worker=per_worker,
        placement_strategy="PACK",
    )


def _explain_failure(error: TrainingFailedError) -> RankResult:
    by_rank = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    results = [_as_result(rank, failure) for rank, failure in by_rank.items()]
    unknown = RankResult(0, failure_kind=FailureKind.INFRASTRUCTURE, message=sentence(error), traceback=str(error))
    return explain(results) or unknown


def _as_result(rank: int, error: BaseException) -> RankResult:
    while not isinstance(error, RankFailedError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, RankFailedError):
        return error.result
    return RankResult.died(rank, error)


def _see_devices(assignment: Assignment) -> None:
    """Let CUDA find the rank's own GPUs; to be called before anything asks CUDA."""
    os.environ[_DEVICES] = assignment.visible_devices
    if assignment.context.device == "cpu" and torch.cuda.is_available():
        os.environ[_DEVICES] = ""  # they work, but training is to be on the CPU: Ray Train would take NCCL


def _say_where(context: RankContext) -> None:
    visible = os.environ.get(_DEVICES, "")
    gpus = f"GPU {visible}" if visible else "no GPU"
    log.info("rank %d of %d on %s with %s", context.rank, context.world_size, socket.gethostname(), gpus)


@contextlib.contextmanager
def _rendezvous(assignment: Assignment) -> Iterator[None]:
    """Set torchrun's variables, from which Ray Train's local mode makes the process group."""
    context = assignment.context
    if context.world_size == 1:
        yield
        return
    host, port = assignment.master_address.rsplit(":", 1)
    rank, world_size = str(context.rank), str(context.world_size)
    # Each rank sees its own GPUs only, the first of which has the number 0 in every rank.
    local = (rank, world_size) if context.device == "cpu" else ("0", "1")
    texts = (rank, local[0], world_size, local[1], host, port)
    values = dict(zip(_RENDEZVOUS_VARIABLES, texts, strict=True))
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


def _run_name(assignment: Assignment) -> str:
    """Return a name that no other run has: Ray Train would resume a run of the same name."""
    return f"{assignment.job_id}-{assignment.attempt}"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _forget_run() -> None:
    """Leave nothing of a job in the process that the next one could see."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
