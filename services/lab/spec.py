"""LabSpec: which figure of the paper is made, how large, from how many seeds."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from xsam.services.specs.base import Options, Spec

FigureName = Literal["1b", "2", "3a", "3b", "3c", "4", "prop1"]
ScaleName = Literal["digits", "laptop", "paper"]
MIN_SEEDS = 3
"""Fewer say nothing about a spread."""


class LabSpec(Spec):
    """One figure. `{"figure": "3b"}` is a whole run."""

    figure: FigureName
    """A name of `xsam lab list`."""
    scale: ScaleName = "laptop"
    """digits: minutes, the bundled images. laptop: hours, Fashion-MNIST. paper: the authors' settings, for GPUs."""
    seeds: Annotated[int, Field(ge=MIN_SEEDS, le=20)] = MIN_SEEDS
    """Trials of each setting; where methods are compared, as many again at each one's best, with fresh seeds."""
    compute: Literal["grad_evals", "epochs"] = "grad_evals"
    """What methods get the same of: gradient evaluations (SGD trains twice as many epochs as SAM), or epochs."""
    counterparts: bool | None = None
    """ASAM, WSAM and GSAM as well, where methods are compared; by default at the scales laptop and paper."""
    base: Options = Field(default_factory=dict)
    """Changes of the scale's job: `{"epochs": 5, "dataset": {"label_noise": 0}}`."""


class Stage(Spec):
    """A part of a run that is queued, or computed, as one."""

    name: str
    """Within the run; the job's or study's idempotency key is `lab/RUN/NAME`."""
    kind: Literal["job", "study", "computation"]
    document: dict[str, JsonValue]
    """A JobSpec, a StudySpec, or what a computation is told."""


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
