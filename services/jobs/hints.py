"""What a person can do about each kind of failure, with the job's own numbers; pure, no I/O."""

from collections.abc import Callable

from xsam.services.jobs.states import FailureKind
from xsam.services.specs.job import JobSpec


def hint(kind: FailureKind, spec: JobSpec) -> str:
    """Return advice for a job that failed."""
    return _HINTS[kind](spec)


def _user(spec: JobSpec) -> str:
    return "The attempt's traceback and log say where it failed. Mend it, then retry the job or clone it with changes."


def _out_of_memory(spec: JobSpec) -> str:
    ways = [f"a batch_size below {spec.batch_size}"] if spec.batch_size > spec.resources.num_workers else []
    if spec.batch_size // spec.resources.num_workers > spec.recipe.micro_batches:
        ways.append(f"recipe.micro_batches above {spec.recipe.micro_batches}")
    if spec.precision == "fp32":
        ways.append("precision bf16")
    ways.append(f"more than {spec.resources.num_workers} workers, which share the batch")
    return f"Clone it with one of: {', '.join(ways)}."


def _diverged(spec: JobSpec) -> str:
    rates = [f"a learning rate below {spec.optimizer.base.lr:g}"]
    rho = getattr(spec.optimizer, "rho", None)
    if rho is not None:
        rates.append(f"a rho below {rho:g}")
    if getattr(spec.schedule, "warmup_epochs", None) == 0:
        rates.append("some warmup_epochs")
    return f"Clone it with {' or '.join(rates)}."


def _infrastructure(spec: JobSpec) -> str:
    return "The cluster lost it too often; its checkpoints are kept. Look at the nodes it ran on, then retry it."


def _preempted(spec: JobSpec) -> str:
    return "It made room for others; its checkpoints are kept. Retry it, with a higher priority if it matters."


def _cancelled(spec: JobSpec) -> str:
    return "Somebody cancelled it; its checkpoints are kept. Retry it to go on."


def _timed_out(spec: JobSpec) -> str:
    limits = spec.limits
    if limits.max_run_s is None and limits.max_queue_s is None:
        return "It was over a limit that the operator sets for all jobs. Retry it to start that time anew."
    return "Retry it to grant the same time once more, from its newest checkpoint, or clone it with higher limits."


def _infeasible(spec: JobSpec) -> str:
    resources = spec.resources
    return (
        f"Clone it with less than {resources.num_workers} x {resources.gpus_per_worker:g} GPUs and "
        f"{resources.cpus_per_worker} CPUs, or have nodes added and retry it."
    )


def _other(spec: JobSpec) -> str:
    return (
        "A newer release of the service wrote it; the attempt's traceback and log say more; `xsam retry` tries again."
    )


_HINTS: dict[FailureKind, Callable[[JobSpec], str]] = {
    FailureKind.USER: _user,
    FailureKind.OUT_OF_MEMORY: _out_of_memory,
    FailureKind.DIVERGED: _diverged,
    FailureKind.INFRASTRUCTURE: _infrastructure,
    FailureKind.PREEMPTED: _preempted,
    FailureKind.CANCELLED: _cancelled,
    FailureKind.TIMED_OUT: _timed_out,
    FailureKind.INFEASIBLE: _infeasible,
    FailureKind.OTHER: _other,
}
