"""Trials by ranges of what was searched, measured or spent, and the columns that they are sorted and filtered by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, case
from sqlalchemy import cast as sql_cast
from sqlalchemy.types import Float

from xsam.services.errors import InvalidRequestError
from xsam.services.jobs.models import Job
from xsam.services.studies.models import Trial
from xsam.services.studies.space import Axis, Choice

PARAMS = "params."
_PLAIN: Mapping[str, Any] = {
    "number": Trial.number,
    "value": Trial.value,
    "grad_evals": Trial.grad_evals,
    "seconds": Job.summary["train_s"].as_float(),
}


@dataclass(frozen=True, slots=True)
class Range:
    """From a number to a number, ends included; None where there is no end.

    Args:
        name: a searched field, or `value`, `grad_evals`, `seconds`, `number`.
        low: the lowest number.
        high: the highest.
    """

    name: str
    low: float | None
    high: float | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `NAME:LOW..HIGH` says.

        Raises:
            InvalidRequestError: it says no such thing.
        """
        name, _, ends = text.rpartition(":")
        low, dots, high = ends.partition("..")
        try:
            if not name or not dots:
                raise ValueError("not a range")
            return cls(name, float(low) if low else None, float(high) if high else None)
        except ValueError as e:
            message = f"range is {text[:120]!r}; allowed is NAME:LOW..HIGH, such as optimizer.rho:0.01..0.1"
            raise InvalidRequestError(message, field="range") from e

    def holds(self, axes: Mapping[str, Axis]) -> list[ColumnElement[bool]]:
        """Return what has to hold in SQL.

        Raises:
            InvalidRequestError: there is no such field.
        """
        column = _PLAIN[self.name] if self.name in _PLAIN else axis_column(self.name, axes, "range")
        ends = []
        if self.low is not None:
            ends.append(column >= self.low)
        if self.high is not None:
            ends.append(column <= self.high)
        return ends


def sort_column(name: str, axes: Mapping[str, Axis]) -> Any:
    """Return the number that trials are sorted by.

    Raises:
        InvalidRequestError: there is no such field.
    """
    return axis_column(name[len(PARAMS) :], axes, "sort") if name.startswith(PARAMS) else _PLAIN[name]


def axis_column(path: str, axes: Mapping[str, Axis], field: str) -> Any:
    """Return a searched field's value as a number: of a choice among words its place among them.

    Raises:
        InvalidRequestError: it is not searched.
    """
    if path not in axes:
        raise InvalidRequestError(f"{field} names {path[:100]!r}; the searched fields are {', '.join(axes)}", field)
    axis = axes[path]
    if not isinstance(axis, Choice):
        return Trial.params[path].as_float()
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis.values):
        return Trial.params[path].as_float()
    words = {str(value): place for place, value in enumerate(axis.values) if isinstance(value, str)}
    return sql_cast(case(words, value=Trial.params[path].as_string(), else_=None), Float) if words else Trial.number
