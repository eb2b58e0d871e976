"""The searched fields of a study as rows of a form: path, kind and ends, and where points would fall."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xsam.api.dashboard.schema_forms import understood, written
from xsam.services.studies import space as spaces
from xsam.services.studies.algorithms import GridSampler
from xsam.services.studies.space import Choice
from xsam.services.studies.spec import StudySpec

FIELDS: Mapping[str, tuple[str, ...]] = {
    "log_uniform": ("low", "high"),
    "uniform": ("low", "high"),
    "int": ("low", "high", "step"),
    "choice": ("values",),
    "ratio": ("of", "factor"),
}
"""By kind: what a row of it has."""
SUGGESTED = (
    "optimizer.rho",
    "optimizer.rho_max",
    "optimizer.ascent_steps",
    "optimizer.base.lr",
    "optimizer.base.momentum",
    "optimizer.base.weight_decay",
    "batch_size",
    "dataset.label_noise",
    "epochs",
)
_POINTS = 5
_SHOWN_POINTS = 12
_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One searched field, as it stands in the form."""

    number: int
    path: str
    kind: str
    values: Mapping[str, str]
    """By field of the kind."""
    points: tuple[str, ...] = ()
    """Where points would fall."""
    places: tuple[float, ...] = ()
    """The same between the ends, in pixels of a strip; empty for a choice."""
    error: str = ""


def rows(space: Mapping[str, Any], spec: StudySpec | None, errors: Mapping[str, str], *, num_blank: int) -> list[Row]:
    """Return the rows of a space, and blank ones below."""
    found = [
        _row(number, path, dimension if isinstance(dimension, Mapping) else {}, spec, errors)
        for number, (path, dimension) in enumerate(space.items())
    ]
    blank = range(len(found), len(found) + num_blank)
    return found + [Row(number, "", "log_uniform", {}) for number in blank]


def read(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the space that the rows of a form stand for; rows without a path are none."""
    space: dict[str, Any] = {}
    numbers = sorted(int(name.split(".")[1]) for name in given if _is_path(name))
    for number in numbers:
        path = given[f"axis.{number}.path"].strip()
        kind = given.get(f"axis.{number}.type", "log_uniform")
        if not path:
            continue
        dimension: dict[str, Any] = {"type": kind}
        for name in FIELDS.get(kind, ()):
            text = given.get(f"axis.{number}.{name}", "").strip()
            if text:
                dimension[name] = _understood(name, text)
        space[path] = dimension
    return space


def _is_path(name: str) -> bool:
    parts = name.split(".")
    return len(parts) == 3 and parts[0] == "axis" and parts[1].isdecimal() and parts[2] == "path"


def _understood(name: str, text: str) -> Any:
    if name == "of":
        return text
    if name == "values" and not text.startswith("["):
        return [understood(one.strip(), "yaml") for one in text.split(",") if one.strip()]
    return understood(text, "yaml" if name in ("values", "factor") else "number")


def _row(
    number: int, path: str, dimension: Mapping[str, Any], spec: StudySpec | None, errors: Mapping[str, str]
) -> Row:
    kind = str(dimension.get("type", "uniform"))
    values = {name: _shown(name, dimension[name]) for name in FIELDS.get(kind, ()) if name in dimension}
    refused = [message for field, message in errors.items() if field.startswith(f"space.{path}")]
    points, places = ((), ()) if spec is None else _points(spec, path)
    return Row(number, path, kind, values, points, places, "; ".join(refused))


def _shown(name: str, value: Any) -> str:
    if name == "values" and isinstance(value, list | tuple) and all(isinstance(one, int | float) for one in value):
        return ", ".join(written(one) for one in value)
    return written(value)


def _points(spec: StudySpec, path: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    axis = spaces.axes(spec.space).get(path)
    if axis is None:
        return (), ()
    num = spec.sampler.points if isinstance(spec.sampler, GridSampler) else _POINTS
    values = [point[path] for point in spaces.grid({path: axis}, num)][:_SHOWN_POINTS]
    texts = tuple(f"{value:.3g}" if isinstance(value, float) else written(value) for value in values)
    if isinstance(axis, Choice):
        return texts, ()
    span = axis.high - axis.low
    return texts, tuple(round(4 + (value - axis.low) / span * (_WIDTH - 8), 1) for value in values)
