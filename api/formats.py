"""Numbers, times and requests as people read them: the same words on the page and in the command."""

from collections.abc import Mapping
from datetime import UTC, datetime

from xsam.services.cluster.schemas import NodeRead
from xsam.services.cluster.traits import needs_in_words
from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.summary import TrainingSummary
from xsam.services.metrics.schemas import EpochRead
from xsam.services.scheduling.policy.reasons import Request
from xsam.services.specs.job import JobSpec, Resources

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
NOTHING = "-"
_MAX_METRICS = 4
_KIBI = 1024
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def percent(share: float | None) -> str:
    """Return a share in [0, 1] as a percentage."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def measured(epoch: EpochRead) -> str:
    """Return what an epoch's evaluation has measured besides the loss, the first few values of it."""
    parts = [] if epoch.eval_accuracy is None else [f"accuracy {percent(epoch.eval_accuracy)}"]
    own = [name for name in epoch.metrics if not name.startswith("train/")]
    parts += [f"{name} {number(epoch.metrics[name])}" for name in own[:_MAX_METRICS]]
    return "  ".join(parts)


def work(spec: JobSpec) -> str:
    """Return what a job trains, in short."""
    if spec.entrypoint is not None:
        return " ".join([spec.entrypoint.file, *spec.entrypoint.args])
    return f"{spec.model.name} on {spec.dataset.name}" if spec.task is None else spec.task.target


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed count of decimals."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}:{whole % _MINUTE_S:02} min"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}:{whole % _HOUR_S // _MINUTE_S:02} h"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def result(summary: TrainingSummary) -> str:
    """Return how good a finished run is, last and best, by accuracy or by what its task calls best."""
    name, _, _ = summary.best_metric.rpartition(":")
    if summary.final_accuracy is not None and name == "accuracy":
        return f"accuracy {percent(summary.final_accuracy)}, best {percent(summary.best_accuracy)}"
    last = summary.final_eval_loss if name == "loss" else summary.final_metrics.get(name, summary.final_accuracy)
    return f"{name} {number(last)}, best {number(summary.best_value)}"


def age(instant: datetime) -> str:
    """Return how long ago an instant was."""
    return duration(max((datetime.now(UTC) - instant).total_seconds(), 0.0))


def optimizer(job: JobRead) -> str:
    """Return the optimizer and what it is set to, in short."""
    spec = job.spec.optimizer
    rho = getattr(spec, "rho", None)
    base = spec.base.name if spec.base.name != spec.variant else ""
    return " ".join(part for part in (spec.variant, base, f"rho={rho:g}" if rho is not None else "") if part)


def request(wanted: Resources | Request) -> str:
    """Return what all workers of a job ask for: `2 x 1 GPU, 4 CPUs (kind H100)`."""
    amounts = ((wanted.gpus_per_worker, "GPU"), (wanted.cpus_per_worker, "CPU"))
    each = ", ".join(f"{amount:g} {noun}{'' if amount == 1 else 's'}" for amount, noun in amounts if amount)
    needs = needs_in_words(wanted.gpu_kind, wanted.min_gpu_memory_gb, wanted.node_labels.items())
    each = f"{each} ({', '.join(needs)})" if needs else each
    return each if wanted.num_workers == 1 else f"{wanted.num_workers} x {each}"


def gpus_of(node: NodeRead) -> str:
    """Return what a node's GPUs are, to stand behind their number: ` H100 80 GB`; empty where nobody knows."""
    memory = f" {node.gpu_memory_gb:.3g} GB" if node.gpu_memory_gb else ""
    return (f" {node.gpu_kind}" if node.gpu_kind else "") + memory


def labels(given: Mapping[str, str]) -> str:
    """Return labels as people write them: `zone=a, rack=7`."""
    return ", ".join(f"{key}={value}" for key, value in sorted(given.items())) or NOTHING


def size(value: float | None) -> str:
    """Return a size in bytes as people read it."""
    if value is None:
        return NOTHING
    step = 0
    while value >= _KIBI and step < len(_SIZES) - 1:
        value, step = value / _KIBI, step + 1
    return f"{value:.0f} B" if not step else f"{value:.1f} {_SIZES[step]}"
