"""StudySpec: everything one study says, checked as a whole before anything is queued."""

import math
from collections.abc import Mapping, Set
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from xsam.services.metrics.records import FIELDS, VALIDATION
from xsam.services.specs.base import Spec, field_error
from xsam.services.specs.job import JobName, JobSpec, RetryPolicy
from xsam.services.specs.task import MetricName
from xsam.services.studies import space as spaces
from xsam.services.studies.algorithms import (
    CmaEsSampler,
    EarlyStopping,
    GridSampler,
    HyperbandStopping,
    NoStopping,
    SamplerSpec,
    TpeSampler,
)
from xsam.services.studies.limits import MAX_CONCURRENCY, MAX_TRIALS
from xsam.services.studies.presets import PRESETS, with_preset
from xsam.services.studies.space import Dimension, FieldPath, Ratio

DEFAULT_CONFIGS = 20
DEFAULT_CONFIRM_SEEDS = 5
MIN_GP_TRIALS = 5
_ELSEWHERE = {"name", "labels", "priority", "seed", "retry", "checkpoint"}
"""Fields of a job that a study sets for all its trials alike, or by other fields of its own."""


class Objective(Spec):
    """What makes one trial better than another."""

    metric: MetricName = "eval_accuracy"
    """eval_accuracy, eval_loss, train_accuracy, train_loss, with base.dataset.validation_size validation/accuracy and
    validation/loss, or the name of a metric of the base job's own task."""
    mode: Literal["max", "min"] = "max"
    """Whether more or less is better; of losses and accuracies it is known."""
    at: Literal["best", "last"] = "best"
    """The best epoch's value, or the last one's."""

    @model_validator(mode="before")
    @classmethod
    def _mode_of_known_metrics(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("mode") is not None:
            return given
        metric = str(given.get("metric", "eval_accuracy"))
        if metric.endswith(("accuracy", "loss")):
            return given | {"mode": "max" if metric.endswith("accuracy") else "min"}
        raise field_error("objective.mode", f"objective.metric is {metric!r}; say objective.mode: max or min")


class Budget(Spec):
    """What a study may use; when it is spent no trial starts any more and the running ones finish."""

    grad_evals: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Forward-backward passes of all trials; a trial that could exceed it does not start."""
    gpu_hours: Annotated[float, Field(gt=0, le=1e9)] | None = None
    wall_s: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Seconds since the study's first start."""


STUDY_GROUPS = {
    **dict.fromkeys(("name", "preset"), "study"),
    **dict.fromkeys(("base", "control"), "what"),
    **dict.fromkeys(("space", "sampler", "objective", "num_trials", "seeds_per_config"), "search"),
    **dict.fromkeys(("early_stopping", "compute", "budget", "confirm_seeds"), "cost"),
    **dict.fromkeys(("concurrency", "max_failures", "retry"), "running"),
}
"""Headings of a form, by field."""


def _or_a_preset(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema what the class does not: a preset brings the space where there is none."""
    schema["required"].remove("space")
    named = {"required": ["preset"], "properties": {"preset": {"type": "string"}}}
    schema["anyOf"] = [{"required": ["space"]}, named]


class StudySpec(Spec):
    """One hyperparameter search. `{"preset": "rho"}` is a whole study."""

    model_config = ConfigDict(json_schema_extra=_or_a_preset)

    name: JobName | None = None
    """A word for people; it need not be unique."""
    preset: Literal["rho", "rho-k", "control"] | None = None
    """Fills in what is not given: rho alone, rho and the number of ascent steps, or rho with SGD and SAM beside."""
    base: JobSpec = JobSpec()
    """What every trial is, but for the searched fields; its priority, labels and resources hold for all trials."""
    space: Annotated[dict[FieldPath, Dimension], Field(min_length=1, max_length=20)]
    """The searched fields by dotted path."""
    sampler: SamplerSpec = TpeSampler()
    early_stopping: EarlyStopping = NoStopping()
    objective: Objective = Objective()
    num_trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    """Trials of the main search; by default the whole grid, or 20 configurations. Control arms and confirmation add
    theirs."""
    seeds_per_config: Annotated[int, Field(ge=1, le=20)] = 1
    """Trials of each configuration, with the seeds base.seed, base.seed + 1, ...; their mean is its value."""
    concurrency: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)] = 2
    """Trials that run at once, room permitting."""
    compute: Literal["grad_evals", "epochs"] = "grad_evals"
    """What all trials get the same of. grad_evals: a trial with k = 3 trains half the epochs of one with k = 1, and
    SGD twice as many; warm-up and milestones shrink and grow alike. epochs: each trains base.epochs."""
    control: bool = False
    """Search SGD and SAM as well: the same seeds, trials and compute, over those searched fields that they have."""
    confirm_seeds: Annotated[int, Field(ge=0, le=20)] | None = None
    """At the end, train each arm's best configuration again on so many seeds that the search has not seen; arms are
    compared on these. By default 5 with control arms, else none."""
    budget: Budget = Budget()
    max_failures: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 5
    """After so many failed trials the study ends; diverged ones don't count, they are results."""
    retry: RetryPolicy = RetryPolicy(infrastructure=100)
    """How often the study itself may be taken up again after its runner was lost."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, given: Any) -> Any:
        return with_preset(given) if isinstance(given, dict) and given.get("preset") in PRESETS else given

    @model_validator(mode="before")
    @classmethod
    def _objective_is_what_the_task_calls_best(cls, given: Any) -> Any:
        base = given.get("base") if isinstance(given, dict) else None
        if given_task_of(base) is None or given.get("objective") is not None:
            return given
        best = base.get("best") if isinstance(base, dict) else None
        if not isinstance(best, str) or ":" not in best:
            raise field_error("objective", "objective says what trials of an own task are compared by; give metric")
        metric, mode = best.rsplit(":", 1)
        return given | {"objective": {"metric": metric, "mode": mode}}

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        _check_objective(self)
        check_space(self, self.space)
        _check_counts(self)
        _check_control(self)
        if isinstance(self.early_stopping, HyperbandStopping):
            _check_brackets(self.early_stopping)
        return self

    @property
    def num_configs(self) -> int:
        """Configurations of the main search."""
        if self.num_trials is not None:
            return self.num_trials // self.seeds_per_config
        return self.grid_size if isinstance(self.sampler, GridSampler) else DEFAULT_CONFIGS

    @property
    def grid_size(self) -> int:
        """Configurations of the whole grid; only with that sampler."""
        return spaces.grid_size(self.space, self.sampler.points) if isinstance(self.sampler, GridSampler) else 0

    @property
    def num_confirm_seeds(self) -> int:
        """confirm_seeds with its default filled in."""
        if self.confirm_seeds is not None:
            return self.confirm_seeds
        return DEFAULT_CONFIRM_SEEDS if self.control else 0


def given_task_of(base: Any) -> Any:
    """Return the task or the script of a base job as it was given, None where it has none."""
    given = base if isinstance(base, dict) else getattr(base, "__dict__", {})
    return given.get("task") or given.get("entrypoint")


_SPACE: TypeAdapter[dict[str, Dimension]] = TypeAdapter(dict[FieldPath, Dimension])


def read_space(document: Mapping[str, Any]) -> dict[str, Dimension]:
    """Return a space from its plain values.

    Raises:
        ValidationError: it is none.
    """
    return _SPACE.validate_python(dict(document))


def check_space(spec: StudySpec, space: Mapping[str, Dimension]) -> None:
    """Refuse a space with fields that don't exist, or ends at which the job would not be valid.

    Raises:
        PydanticCustomError: names the field.
    """
    if not spaces.axes(space):
        raise field_error("space", "space has nothing to search: a ratio with a fixed factor follows another field")
    for path, dimension in space.items():
        _check_path(spec, space, path, dimension)
    if isinstance(spec.sampler, CmaEsSampler):
        _check_ranges(space)
    document = spec.base.model_dump(mode="json")
    for point in spaces.corners(space):
        _check_point(document, space, point)


def _check_path(spec: StudySpec, space: Mapping[str, Dimension], path: str, dimension: Dimension) -> None:
    root = path.split(".", maxsplit=1)[0]
    if root in _ELSEWHERE:
        raise field_error(f"space.{path}", f"{path} can't be searched: set base.{root}, or seeds_per_config for seeds")
    if path == "epochs" and spec.compute == "grad_evals":
        message = "epochs can't be searched while compute is grad_evals, which sets them; set compute to epochs"
        raise field_error("space.epochs", message)
    if isinstance(dimension, Ratio) and isinstance(space.get(dimension.of), Ratio):
        raise field_error(f"space.{path}.of", f"of is {dimension.of}, a ratio itself; allowed are other fields")
    nested = [other for other in space if other.startswith(f"{path}.")]
    if nested:
        raise field_error(f"space.{nested[0]}", f"{nested[0]} lies inside {path}, which is searched as a whole")


def _check_ranges(space: Mapping[str, Dimension]) -> None:
    """Refuse what CMA-ES can't search."""
    axes = spaces.axes(space)
    for path, axis in axes.items():
        if isinstance(axis, spaces.Choice):
            message = (
                f"{path} is a choice, which cma_es can't search; allowed are ranges, or the samplers tpe and random"
            )
            raise field_error(f"space.{path}", message)
    if len(axes) < 2:
        raise field_error("sampler", f"cma_es needs two ranges or more and space has {len(axes)}; use tpe or gp")


def _check_point(document: Mapping[str, Any], space: Mapping[str, Dimension], point: spaces.Point) -> None:
    try:
        JobSpec.model_validate(spaces.apply(document, space, point))
    except KeyError as e:
        path = e.args[0]
        fields = [f"space.{path}"] + [f"space.{name}.of" for name, d in space.items() if isinstance(d, Ratio)]
        field = fields[0] if path in space else fields[-1]
        raise field_error(field, f"{path} is no field of this base job that can be searched") from e
    except ValidationError as e:
        error = e.errors()[0]
        field = blame(space, error.get("ctx", {}).get("field") or ".".join(map(str, error["loc"])))
        values = ", ".join(f"{path} = {value}" for path, value in point.items())
        raise field_error(f"space.{field}", f"with {values}: {error['msg']}") from e


def blame(space: Mapping[str, Dimension], location: str) -> str:
    """Return the searched field that an error at `location` is about; pydantic puts union tags into locations."""
    names = location.split(".")

    def num_matching(path: str) -> tuple[bool, int]:
        segments = path.split(".")
        return segments[-1] == names[-1], sum(1 for segment in segments if segment in names)

    return max(space, key=num_matching)


def _check_objective(spec: StudySpec) -> None:
    metrics = [*FIELDS, *(VALIDATION if spec.base.dataset.validation_size is not None else ())]
    if not spec.base.has_own_work and spec.objective.metric not in metrics:
        raise field_error(
            "objective.metric",
            f"objective.metric is {spec.objective.metric!r}, which only a task of the base job's own could measure; "
            f"allowed are {', '.join(metrics)}",
        )


def _check_counts(spec: StudySpec) -> None:
    if spec.num_trials is not None and spec.num_trials % spec.seeds_per_config:
        raise field_error(
            "num_trials",
            f"num_trials is {spec.num_trials}, which {spec.seeds_per_config} seeds per configuration don't divide; "
            "allowed are multiples of seeds_per_config",
        )
    if isinstance(spec.sampler, GridSampler):
        if spec.grid_size * spec.seeds_per_config > MAX_TRIALS:
            message = f"the grid has {spec.grid_size} points for {spec.seeds_per_config} seeds; at most {MAX_TRIALS}"
            raise field_error("sampler.points", message)
        if spec.num_configs > spec.grid_size:
            message = f"num_trials asks for {spec.num_configs} configurations, but the grid has {spec.grid_size}"
            raise field_error("num_trials", message)
    if spec.compute == "grad_evals" and getattr(spec.early_stopping, "unit", "grad_evals") == "epochs":
        message = "unit is epochs while compute is grad_evals, which gives trials different epochs; set both alike"
        raise field_error("early_stopping.unit", message)


def _check_control(spec: StudySpec) -> None:
    variant = spec.base.optimizer.variant
    if spec.control and variant in ("sgd", "sam"):
        raise field_error("control", f"control arms stand beside another optimizer, but base.optimizer is {variant}")
    if spec.control and ({"optimizer", "optimizer.variant"} & spec.space.keys()):
        raise field_error("control", "control arms need one optimizer variant, but the space searches over several")
    if spec.base.plane is not None:
        raise field_error("base.plane", "base.plane looks at a job that has been trained; a study trains its own")
    if spec.control and spec.base.entrypoint is not None:
        _check_control_of_script(spec, spec.base.entrypoint.placeholders())


def _check_control_of_script(spec: StudySpec, named: Set[str]) -> None:
    """Refuse control arms of a script that would run as the main arm does."""
    needed = {"optimizer.variant"} | ({"epochs"} if spec.compute == "grad_evals" else set())
    missing = sorted(needed - named - ({"optimizer.variant"} if "optimizer" in named else set()))
    if missing:
        message = f"control arms differ in {' and '.join(missing)}, which the script does not hear of"
        raise field_error("control", f'{message}; pass it on in base.entrypoint, as "{{{missing[0]}}}"')
    shared = ("optimizer.variant", "optimizer.base")
    lacking = [name for name in sorted(named) if name.startswith("optimizer.") and not name.startswith(shared)]
    if lacking:
        message = f'control arms have no {lacking[0]}, which base.entrypoint names; pass on the whole "{{optimizer}}"'
        raise field_error("control", message)


def _check_brackets(stopping: HyperbandStopping) -> None:
    most = 1 + int(math.log(1 / stopping.grace) / math.log(stopping.reduction_factor))
    if stopping.brackets > most:
        message = (
            f"brackets is {stopping.brackets}, but from a grace of {stopping.grace:g} a reduction_factor of "
            f"{stopping.reduction_factor:g} leaves rungs for {most}; lower grace or reduction_factor, or use asha"
        )
        raise field_error("early_stopping.brackets", message)
