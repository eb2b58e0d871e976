"""The job of each scale that figures vary, and which radii they try."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xsam.services.lab.spec import LabSpec, ScaleName, merged
from xsam.services.specs.optimizer import DEFAULT_RHO_MAX_RATIO, OPTIMIZERS

ASAM_RHO_FACTOR = 10.0
"""ASAM measures its radius in scaled weights (arXiv 2102.11600)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the runs of a figure are."""

    job: Mapping[str, Any]
    rhos: Sequence[float]
    rho: float
    """Where rho is not what is varied."""
    concurrency: int
    search_every: int
    """Steps between two searches where alpha* is looked at closely."""
    update_frequencies: Sequence[int | str]
    """Values of alpha_every."""
    has_counterparts: bool
    validation_size: int
    """Training examples that are held out where rho is chosen by them."""


_SCHEDULE = {"name": "cosine"}
SCALES: Mapping[ScaleName, Scale] = {
    "digits": Scale(
        job={
            "dataset": {"name": "digits", "label_noise": 0.4},
            "model": {"name": "small_cnn", "batch_norm": False},
            "optimizer": {"base": {"name": "sgd", "lr": 0.01, "momentum": 0.9}},
            "batch_size": 32,
            "epochs": 10,
            "checkpoint": {"every_epochs": 10},
        },
        rhos=(0.05, 0.1, 0.2),
        rho=0.1,
        concurrency=2,
        search_every=11,
        update_frequencies=(5, 22, "epoch"),
        has_counterparts=False,
        validation_size=300,
    ),
    "laptop": Scale(
        job={
            "dataset": {"name": "fashion_mnist", "train_size": 5000, "label_noise": 0.2},
            "model": {"name": "small_cnn", "width": 8, "batch_norm": False},
            "optimizer": {"base": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}},
            "schedule": _SCHEDULE,
            "speed": {"channels_last": True},
            "batch_size": 125,
            "epochs": 36,  # of 12 nobody learns the redrawn labels, and the smallest radius is the best
            "checkpoint": {"every_epochs": 12},
        },
        rhos=(0.025, 0.05, 0.1, 0.2),
        rho=0.1,
        concurrency=2,
        search_every=10,
        update_frequencies=(1, 10, "epoch", 120, 480),
        has_counterparts=True,
        validation_size=2000,
    ),
    # The authors' settings (arXiv 2603.10048 and their code, Cccjl219/XSAM).
    "paper": Scale(
        job={
            "dataset": {"name": "cifar100", "augment": ["crop", "flip", "cutout"]},
            "model": {"name": "resnet18"},
            "optimizer": {"base": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}},
            "schedule": _SCHEDULE,
            "batch_size": 125,
            "epochs": 200,
            "checkpoint": {"every_epochs": 10},
            "resources": {"gpus_per_worker": 1, "cpus_per_worker": 4},
        },
        rhos=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
        rho=0.15,
        concurrency=8,
        search_every=40,
        update_frequencies=(1, 40, "epoch", 2000, 8000),
        has_counterparts=True,
        validation_size=5000,
    ),
}


def job_of(spec: LabSpec, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scale's job with the run's changes and one method.

    Args:
        spec: the run.
        optimizer: its variant and what is particular; what else the job says of its optimizer is kept where the method
            has it.
    """
    document = merged({**SCALES[spec.scale].job, "name": f"lab {spec.figure}"}, spec.base)
    fields = OPTIMIZERS[optimizer["variant"]].model_fields
    common = {name: value for name, value in document["optimizer"].items() if name in fields}
    return {**document, "optimizer": {**common, **optimizer}}


def search_of(spec: LabSpec, variant: str, num_steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job and the space of a sweep of rho of one method."""
    factor = ASAM_RHO_FACTOR if variant == "asam" else 1.0
    rhos = [round(rho * factor, 6) for rho in spec.rhos or SCALES[spec.scale].rhos]
    space: dict[str, Any] = {"optimizer.rho": {"type": "choice", "values": rhos}}
    if variant == "xsam":
        space["optimizer.rho_max"] = {"type": "ratio", "of": "optimizer.rho", "factor": rho_max_ratio(spec)}
    return job_of(spec, {"variant": variant, "ascent_steps": num_steps}), space


def rho_max_ratio(spec: LabSpec) -> float:
    """Return how far XSAM looks in a sweep, in units of its rho."""
    return DEFAULT_RHO_MAX_RATIO if spec.rho_max_ratio is None else spec.rho_max_ratio


def held_out(spec: LabSpec, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job with the scale's validation examples held out, unless it says of its data how many, or brings it."""
    if job.get("task") is not None or job.get("entrypoint") is not None:
        return dict(job)
    return {**job, "dataset": {"validation_size": SCALES[spec.scale].validation_size, **job["dataset"]}}
