"""LabSpec: which figure of the paper is made, how large, from how many seeds."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from xsam.services.specs.base import Options, Spec, field_error
from xsam.services.specs.optimizer import Radius
from xsam.services.specs.plane import TrainedJob

PLANE_FIGURE = "1a"
SWEEP_FIGURES = ("3b", "3c")
FigureName = Literal["1a", "1b", "2", "3a", "3b", "3c", "4", "prop1"]
ScaleName = Literal["digits", "laptop", "paper"]
MIN_SEEDS = 3
"""Fewer say nothing about a spread."""


class LabSpec(Spec):
    """One figure. `{"figure": "3b"}` is a whole run."""

    figure: FigureName
    """Of the paper; the lab's list tells their claims."""
    scale: ScaleName = "laptop"
    """digits: minutes, the bundled images. laptop: hours, Fashion-MNIST. paper: the authors' settings, for GPUs."""
    seeds: Annotated[int, Field(ge=MIN_SEEDS, le=20)] = MIN_SEEDS
    """Trials of each setting; where methods are compared, as many again at each one's best, with fresh seeds."""
    compute: Literal["grad_evals", "epochs"] = "grad_evals"
    """What methods get the same of: gradient evaluations (SGD trains twice as many epochs as SAM), or epochs."""
    counterparts: bool | None = None
    """ASAM, WSAM and GSAM as well, where methods are compared; by default at the scales laptop and paper."""
    rhos: Annotated[list[Radius], Field(min_length=2, max_length=20)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Of figures 3b and 3c: the radii to try, instead of the scale's. A method that is best at an end of them may be
    better beyond it, and then nothing is decided."""
    rho_max_ratio: Annotated[float, Field(gt=0, le=20)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Of figures 3b and 3c: how far XSAM looks for the highest loss, in units of its rho; by default twice."""
    base: Options = Field(default_factory=dict)
    """Changes of the scale's job, such as {"epochs": 5, "dataset": {"label_noise": 0}}."""
    job: TrainedJob | None = None
    """Of figure 1a: the job whose checkpoints are looked at, instead of jobs of the scale."""

    @model_validator(mode="after")
    def _a_job_is_looked_at_as_it_is(self) -> Self:
        if self.job is not None and self.figure != PLANE_FIGURE:
            raise field_error("job", f"job is {self.job!r}; only figure {PLANE_FIGURE} looks at a job that is there")
        if self.job is not None and self.base:
            raise field_error("base", "base changes the scale's job; with `job` there is none, leave one of them out")
        return self

    @model_validator(mode="after")
    def _radii_are_what_is_varied(self) -> Self:
        for name in ("rhos", "rho_max_ratio"):
            if getattr(self, name) is not None and self.figure not in SWEEP_FIGURES:
                allowed = " and ".join(SWEEP_FIGURES)
                raise field_error(name, f"{name} is {getattr(self, name)!r}; only figures {allowed} vary rho")
        if self.rhos is not None and len(set(self.rhos)) < len(self.rhos):
            raise field_error("rhos", f"rhos is {self.rhos!r}; each radius may be there once")
        return self


class Stage(Spec):
    """A part of a run that is queued, or computed, as one."""

    name: str
    """Within the run; the job's or study's idempotency key is `lab/RUN/NAME`."""
    kind: Literal["job", "study", "computation", "plane"]
    document: dict[str, JsonValue]
    """A JobSpec, a StudySpec, what a computation is told, or a PlaneView with the `job` that it is of."""
    after: str | None = None
    """The stage whose job a plane is of; it is queued when that one has succeeded."""


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with changes, inside its parts as well; a part with another name is replaced."""
    result = dict(document)
    for name, value in changes.items():
        before = result.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and not _is_other(before, value):
            result[name] = merged(before, value)
        else:
            result[name] = value
    return result


def _is_other(before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return any(key in value and value[key] != before.get(key) for key in ("name", "variant"))
