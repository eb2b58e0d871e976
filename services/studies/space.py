"""Search spaces: which values each searched field of a job may take, and how a point of the space becomes a job.

A point gives every axis a value; an axis of a ratio gives the factor. Nothing here draws numbers: callers bring a point
of the unit cube, or take the points of the grid.
"""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from xsam.services.specs.base import Spec

FieldPath = Annotated[str, StringConstraints(pattern=r"^[a-z_]+(\.[a-z_0-9]+)*$", max_length=100)]
"""A field of a JobSpec by its dotted path, for example `optimizer.base.lr`."""
Number = Annotated[float, Field(ge=-1e12, le=1e12)]

SIGNIFICANT_DIGITS = 6
"""Drawn values are rounded: 0.0731842 reads better than 0.07318420189373, and no result depends on the rest."""
MAX_GRID_POINTS = 10_000
MAX_CORNERS = 256


class Uniform(Spec):
    """Any number from `low` to `high`, evenly."""

    type: Literal["uniform"] = "uniform"
    low: Number
    high: Number

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        _check_range(self.low, self.high)
        return self


class LogUniform(Spec):
    """Any positive number from `low` to `high`, evenly in its logarithm."""

    type: Literal["log_uniform"] = "log_uniform"
    low: Annotated[Number, Field(gt=0)]
    high: Annotated[Number, Field(gt=0)]

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        _check_range(self.low, self.high)
        return self


class IntRange(Spec):
    """The whole numbers `low`, `low + step`, ... up to `high`, which is included."""

    type: Literal["int"] = "int"
    low: Annotated[int, Field(ge=-(2**53), le=2**53)]
    high: Annotated[int, Field(ge=-(2**53), le=2**53)]
    step: Annotated[int, Field(ge=1, le=2**53)] = 1

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        _check_range(self.low, self.high)
        return self

    @property
    def count(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1


class Choice(Spec):
    """One of a list of values: numbers, words, or whole parts of a specification."""

    type: Literal["choice"] = "choice"
    values: Annotated[tuple[JsonValue, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        seen: list[JsonValue] = []
        for value in self.values:
            if value in seen:
                message = "values holds {value} twice; each may be there once"
                raise PydanticCustomError("repeated_value", message, {"value": repr(value)})
            seen.append(value)
        return self


class Ratio(Spec):
    """A multiple of another field: `factor` times the value of `of`, which is itself no ratio."""

    type: Literal["ratio"] = "ratio"
    of: FieldPath
    factor: Annotated[float, Field(gt=0, le=1e6)] | Uniform | LogUniform | Choice


Dimension = Annotated[Uniform | LogUniform | IntRange | Choice | Ratio, Field(discriminator="type")]
Axis = Uniform | LogUniform | IntRange | Choice
Space = Mapping[str, Dimension]
Point = dict[str, Any]
"""The value of each axis, by path."""


def axes(space: Space) -> dict[str, Axis]:
    """Return what is searched, by path, in the order of the space: a ratio with a fixed factor is not."""
    found: dict[str, Axis] = {}
    for path, dimension in space.items():
        if not isinstance(dimension, Ratio):
            found[path] = dimension
        elif not isinstance(dimension.factor, float):
            found[path] = dimension.factor
    return found


def point_at(space: Space, unit: Sequence[float]) -> Point:
    """Return the point of the space at a point of the unit cube, one coordinate in [0, 1) for each axis."""
    return {path: _value_at(axis, u) for (path, axis), u in zip(axes(space).items(), unit, strict=True)}


def grid_size(space: Space, points: int) -> int:
    """Return how many points `grid` yields."""
    return math.prod(_count(axis, points) for axis in axes(space).values())


def grid(space: Space, points: int) -> Iterator[Point]:
    """Yield all points of the grid, the last axis moving fastest.

    Args:
        space: what is searched.
        points: values for each continuous axis, its ends included; choices and short integer ranges give all theirs.
    """
    found = axes(space)
    for values in itertools.product(*(_grid_values(axis, points) for axis in found.values())):
        yield dict(zip(found, values, strict=True))


def corners(space: Space) -> list[Point]:
    """Return the points at the ends of all axes: all of them, or for many axes one moved at a time."""
    ends = {path: _ends(axis) for path, axis in axes(space).items()}
    if math.prod(len(values) for values in ends.values()) <= MAX_CORNERS:
        return [dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values())]
    first = {path: values[0] for path, values in ends.items()}
    moved = [{**first, path: value} for path, values in ends.items() for value in values[1:]]
    return [first, *moved]


def apply(document: Mapping[str, Any], space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's document with the values of a point in their places; it is not checked here.

    Args:
        document: the base job as plain values.
        space: what is searched.
        point: a value for each axis.

    Raises:
        KeyError: a path leads through a field that is not there or has no parts; its argument is the path.
    """
    changed = copy.deepcopy(dict(document))
    ratios = {path: dimension for path, dimension in space.items() if isinstance(dimension, Ratio)}
    for path in space.keys() - ratios.keys():
        _set(changed, path, point[path])
    for path, ratio in ratios.items():
        factor = ratio.factor if isinstance(ratio.factor, float) else point[path]
        _set(changed, path, _rounded(factor * _get(changed, ratio.of)))
    return changed


def contains(wide: Dimension, narrow: Dimension) -> bool:
    """Return whether every value of `narrow` is a value of `wide`, so that a search can go on in `wide`."""
    if isinstance(wide, Ratio) and isinstance(narrow, Ratio) and wide.of == narrow.of:
        if isinstance(wide.factor, float) or isinstance(narrow.factor, float):
            return wide.factor == narrow.factor
        return contains(wide.factor, narrow.factor)
    if isinstance(wide, Choice) and isinstance(narrow, Choice):
        return all(value in wide.values for value in narrow.values)
    if isinstance(wide, IntRange) and isinstance(narrow, IntRange):
        is_on_step = (narrow.low - wide.low) % wide.step == 0 and narrow.step % wide.step == 0
        return is_on_step and wide.low <= narrow.low and narrow.high <= wide.high
    if isinstance(wide, Uniform | LogUniform) and type(wide) is type(narrow):
        return wide.low <= narrow.low and narrow.high <= wide.high
    return False


def _check_range(low: float, high: float) -> None:
    if low >= high:
        message = "low is {low} and high is {high}; low must be below high"
        raise PydanticCustomError("empty_range", message, {"low": low, "high": high})


def _value_at(axis: Axis, u: float) -> Any:
    match axis:
        case Uniform():
            return _rounded(axis.low + u * (axis.high - axis.low))
        case LogUniform():
            return _rounded(axis.low * (axis.high / axis.low) ** u)
        case IntRange():
            return axis.low + axis.step * min(int(u * axis.count), axis.count - 1)
        case Choice():
            return axis.values[min(int(u * len(axis.values)), len(axis.values) - 1)]


def _count(axis: Axis, points: int) -> int:
    match axis:
        case Uniform() | LogUniform():
            return points
        case IntRange():
            return min(axis.count, points)
        case Choice():
            return len(axis.values)


def _grid_values(axis: Axis, points: int) -> list[Any]:
    count = _count(axis, points)
    if isinstance(axis, Choice):
        return list(axis.values)
    if isinstance(axis, IntRange) and count == axis.count:
        return list(range(axis.low, axis.high + 1, axis.step))
    if isinstance(axis, IntRange):
        return [axis.low + axis.step * round(i * (axis.count - 1) / (count - 1)) for i in range(count)]
    return [_value_at(axis, i / (count - 1)) for i in range(count)]


def _ends(axis: Axis) -> list[Any]:
    if isinstance(axis, Choice):
        return list(axis.values)
    return [axis.low, axis.low + axis.step * (axis.count - 1)] if isinstance(axis, IntRange) else [axis.low, axis.high]


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    part = document
    for name in parents:
        part = part.get(name) if isinstance(part, dict) else None  # type: ignore[assignment]
        if not isinstance(part, dict):
            raise KeyError(path)
    part[last] = copy.deepcopy(value)


def _get(document: Mapping[str, Any], path: str) -> float:
    part: Any = document
    for name in path.split("."):
        part = part.get(name) if isinstance(part, dict) else None
    if isinstance(part, bool) or not isinstance(part, int | float):
        raise KeyError(path)
    return part
