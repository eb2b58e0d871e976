"""What plots are made of: axes, points, the best so far, a map of two axes; and Optuna's view of a study."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import JsonValue

from xsam.services.schemas import Read
from xsam.services.studies import space as spaces
from xsam.services.studies.analysis import Mode
from xsam.services.studies.space import Axis, Choice, Dimension, IntRange, LogUniform

MAP_BINS = 8
MIN_TRIALS = 4
"""Fewer say nothing about importance."""


class PointRead(Read):
    """One trial as plots need it."""

    number: int
    arm: str
    params: dict[str, Any]
    value: float
    grad_evals: int | None
    best: float
    """Best value of this and all earlier trials of the arm."""


class AxisRead(Read):
    """A searched field."""

    path: str
    kind: Literal["linear", "log", "int", "choice"]
    low: float | None
    high: float | None
    values: list[JsonValue] | None
    """Of a choice."""


class MapCell(Read):
    """Trials that fall together in a map of two axes."""

    column: int
    row: int
    best: float
    num: int


class MapRead(Read):
    """The best value over two axes, the one with many values across."""

    across: str
    down: str
    columns: list[str]
    rows: list[str]
    cells: list[MapCell]


class PlotsRead(Read):
    """The data of the usual plots: history, parallel coordinates, slices, a map, importances."""

    axes: list[AxisRead]
    points: list[PointRead]
    """By number; only trials with a value."""
    map: MapRead | None
    """Of the first two axes; null with fewer."""
    importances: dict[str, float]
    """Share of the objective's variation among the better trials that each field explains (PED-ANOVA); empty while
    there are too few trials."""


class Measured(Read):
    """A trial with a value, from rows or from an answer."""

    number: int
    arm: str
    params: dict[str, Any]
    value: float
    grad_evals: int | None


def plots(space: Mapping[str, Dimension], mode: Mode, arm: str, measured: Sequence[Measured]) -> PlotsRead:
    """Return the plots' data of a study.

    Args:
        space: the space in force.
        mode: whether more or less is better.
        arm: the main arm; map and importances are its own.
        measured: trials of the search with a value, by number.
    """
    axes = spaces.axes(space)
    own = [trial for trial in measured if trial.arm == arm]
    return PlotsRead(
        axes=[_axis_read(path, axis) for path, axis in axes.items()],
        points=_history(mode, measured),
        map=value_map(axes, mode, own),
        importances=importances(axes, mode, own),
    )


def load_importances() -> None:
    """Import what importances are computed with; whoever asks first would wait seconds for it."""
    _ = optuna.importance.PedAnovaImportanceEvaluator  # optuna imports the package at the first look


def importances(axes: Mapping[str, Axis], mode: Mode, measured: Sequence[Measured]) -> dict[str, float]:
    """Return how much each searched field matters, the most important first; empty for too few trials."""
    if len(measured) < MIN_TRIALS or len({trial.value for trial in measured}) == 1:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(optuna_study(axes, mode, measured), evaluator=evaluator)


def optuna_study(axes: Mapping[str, Axis], mode: Mode, measured: Iterable[Measured]) -> optuna.Study:
    """Return the trials as a study of Optuna, whose plots and importances then apply."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
    distributions = {path: _distribution(axis) for path, axis in axes.items()}
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={path: _shown(axes[path], trial.params[path]) for path in axes},
                distributions=distributions,
                value=trial.value,
                user_attrs={"number": trial.number},
            )
            for trial in measured
        ]
    )
    return study


def value_map(axes: Mapping[str, Axis], mode: Mode, measured: Sequence[Measured]) -> MapRead | None:
    """Return the best value in each cell of the first two axes; None with fewer axes."""
    if len(axes) < 2:
        return None
    paths = sorted(list(axes)[:2], key=lambda path: isinstance(axes[path], Choice | IntRange))
    across, down = paths
    columns, rows = _bins(axes[across]), _bins(axes[down])
    cells: dict[tuple[int, int], list[float]] = {}
    for trial in measured:
        place = (_bin_of(axes[across], trial.params[across]), _bin_of(axes[down], trial.params[down]))
        cells.setdefault(place, []).append(trial.value)
    best = max if mode == "max" else min
    found = [MapCell(column=c, row=r, best=best(v), num=len(v)) for (c, r), v in sorted(cells.items())]
    return MapRead(across=across, down=down, columns=columns, rows=rows, cells=found)


def _history(mode: Mode, measured: Sequence[Measured]) -> list[PointRead]:
    better = max if mode == "max" else min
    best: dict[str, float] = {}
    points = []
    for trial in measured:
        best[trial.arm] = better(best.get(trial.arm, trial.value), trial.value)
        points.append(PointRead(**trial.model_dump(), best=best[trial.arm]))
    return points


def _axis_read(path: str, axis: Axis) -> AxisRead:
    if isinstance(axis, Choice):
        return AxisRead(path=path, kind="choice", low=None, high=None, values=list(axis.values))
    kind: Literal["linear", "log", "int"] = "int" if isinstance(axis, IntRange) else "linear"
    return AxisRead(
        path=path, kind="log" if isinstance(axis, LogUniform) else kind, low=axis.low, high=axis.high, values=None
    )


def _distribution(axis: Axis) -> BaseDistribution:
    if isinstance(axis, Choice):
        return CategoricalDistribution([_shown(axis, value) for value in axis.values])
    if isinstance(axis, IntRange):
        return IntDistribution(axis.low, axis.low + axis.step * (axis.count - 1), step=axis.step)
    return FloatDistribution(axis.low, axis.high, log=isinstance(axis, LogUniform))


def _shown(axis: Axis, value: Any) -> Any:
    """Return a value that Optuna takes: parts of a specification as text."""
    return value if not isinstance(axis, Choice) or isinstance(value, int | float | str) else str(value)


def _bins(axis: Axis) -> list[str]:
    if isinstance(axis, Choice):
        return [str(value) for value in axis.values]
    if isinstance(axis, IntRange) and axis.count <= MAP_BINS:
        return [str(axis.low + axis.step * i) for i in range(axis.count)]
    return [f"{_middle(axis, i):.2g}" for i in range(MAP_BINS)]


def _middle(axis: Axis, number: int) -> float:
    share = (number + 0.5) / MAP_BINS
    if isinstance(axis, LogUniform):
        return float(axis.low * (axis.high / axis.low) ** share)
    return statistics.fmean([axis.low + share * (axis.high - axis.low)]) if not isinstance(axis, Choice) else 0.0


def _bin_of(axis: Axis, value: Any) -> int:
    if isinstance(axis, Choice):
        return axis.values.index(value)
    if isinstance(axis, IntRange) and axis.count <= MAP_BINS:
        return int((value - axis.low) // axis.step)
    if isinstance(axis, LogUniform):
        share = math.log(value / axis.low) / math.log(axis.high / axis.low)
    else:
        share = (value - axis.low) / (axis.high - axis.low)
    return min(max(int(share * MAP_BINS), 0), MAP_BINS - 1)
