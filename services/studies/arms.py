"""The arms of a study: the search itself and, beside it, the optimizers it is compared with; and the jobs they make."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xsam.services.specs.job import JobSpec
from xsam.services.specs.optimizer import OPTIMIZERS
from xsam.services.studies import space as spaces
from xsam.services.studies.algorithms import GridSampler
from xsam.services.studies.space import Dimension, Point, Ratio
from xsam.services.studies.spec import StudySpec

CONTROL_VARIANTS = ("sgd", "sam")
CONFIRM_SEED_OFFSET = 1_000_003
"""Confirmation seeds start here, past any seed of a search."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One optimizer's search."""

    name: str
    """The optimizer's variant."""
    document: Mapping[str, Any]
    """The base job as plain values, with this arm's optimizer."""
    space: Mapping[str, Dimension]
    """The searched fields that this optimizer has; may be empty."""
    num_configs: int


def arms_of(
    spec: StudySpec, *, space: Mapping[str, Dimension] | None = None, num_configs: int | None = None
) -> list[Arm]:
    """Return the study's arms, the main one first.

    Args:
        spec: the study.
        space: replaces the study's space, where it was widened.
        num_configs: replaces the study's number of configurations, where it was extended.
    """
    space = spec.space if space is None else space
    wanted = spec.num_configs if num_configs is None else num_configs
    document = spec.base.model_dump(mode="json")
    if spec.base.has_own_work and not spec.objective.metric.startswith("train"):
        # So a trial whose task does not measure it fails in its first epoch, with a sentence.
        document["best"] = f"{spec.objective.metric}:{spec.objective.mode}"
    main = Arm(spec.base.optimizer.variant, document, space, wanted)
    if not spec.control:
        return [main]
    return [main, *(_control_arm(spec, main, variant) for variant in CONTROL_VARIANTS)]


def num_planned(spec: StudySpec, arms: Sequence[Arm]) -> int:
    """Return how many trials the arms come to, confirmation included."""
    return sum(arm.num_configs * spec.seeds_per_config + spec.num_confirm_seeds for arm in arms)


def job_spec(spec: StudySpec, arm: Arm, point: Point, seed: int) -> JobSpec:
    """Return the job of one trial, with its number of epochs as `spec.compute` says.

    Raises:
        ValidationError: the values don't go together.
    """
    document = spaces.apply(arm.document, arm.space, point)
    document["seed"] = seed
    job = JobSpec.model_validate(document)
    if spec.compute == "epochs":
        return job
    share = spec.base.optimizer.grad_evals_per_step / job.optimizer.grad_evals_per_step
    return job if share == 1 else JobSpec.model_validate(_rescaled(document, job, share))


def search_seed(spec: StudySpec, number: int) -> int:
    """Return the seed of a configuration's trial, counted from 0; every configuration has the same ones."""
    return (spec.base.seed + number) % 2**32


def confirm_seed(spec: StudySpec, number: int) -> int:
    """Return a seed that no trial of the search has, counted from 0; every arm has the same ones."""
    return (spec.base.seed + CONFIRM_SEED_OFFSET + number) % 2**32


def _control_arm(spec: StudySpec, main: Arm, variant: str) -> Arm:
    fields = OPTIMIZERS[variant].model_fields
    optimizer = {name: value for name, value in main.document["optimizer"].items() if name in fields}
    document = {**main.document, "optimizer": {**optimizer, "variant": variant}}
    kept = {path: d for path, d in main.space.items() if _has_field(variant, path)}
    kept = {path: d for path, d in kept.items() if not isinstance(d, Ratio) or _has_field(variant, d.of)}
    num_configs = main.num_configs if spaces.axes(kept) else 1
    if isinstance(spec.sampler, GridSampler):
        num_configs = min(num_configs, spaces.grid_size(kept, spec.sampler.points))
    return Arm(variant, document, kept, num_configs)


def _has_field(variant: str, path: str) -> bool:
    root, _, rest = path.partition(".")
    return root != "optimizer" or rest.split(".", maxsplit=1)[0] in OPTIMIZERS[variant].model_fields


def _rescaled(document: dict[str, Any], job: JobSpec, share: float) -> dict[str, Any]:
    """Return the document with so many times the epochs, rounded down, and its schedule stretched alike."""
    epochs = max(1, math.floor(job.epochs * share + 1e-9))
    stretch = epochs / job.epochs
    schedule = dict(document["schedule"])
    schedule["warmup_epochs"] *= stretch
    if "milestones" in schedule:
        schedule["milestones"] = sorted({max(1, round(m * stretch)) for m in schedule["milestones"]})
    return {**document, "epochs": epochs, "schedule": schedule}
