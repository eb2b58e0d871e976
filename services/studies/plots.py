"""What plots are made of: axes, points, the best so far, a map of two axes; and Optuna's view of a study."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from xsam.services.studies.analysis import Mode
from xsam.services.studies.schemas import AxisRead, MapCell, MapRead, MapStat, Measured, PointRead
from xsam.services.studies.space import Axis, Choice, IntRange, LogUniform

MAP_BINS = 8
MIN_TRIALS = 4
"""Fewer say nothing about importance."""


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
    distributions = {path: distribution_of(axis) for path, axis in axes.items()}
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={path: shown(axes[path], trial.params[path]) for path in axes},
                distributions=distributions,
                value=trial.value,
                user_attrs={"number": trial.number},
            )
            for trial in measured
        ]
    )
    return study


def usual_axes(axes: Mapping[str, Axis]) -> tuple[str, str] | None:
    """Return which two axes a map has unless others are asked for; None with fewer."""
    if len(axes) < 2:
        return None
    across, down = sorted(list(axes)[:2], key=lambda path: isinstance(axes[path], Choice | IntRange))
    return across, down


def value_map(
    axes: Mapping[str, Axis], mode: Mode, paths: tuple[str, str], measured: Sequence[Measured], stat: MapStat
) -> MapRead:
    """Return what trials are worth in each cell of two axes."""
    across, down = paths
    columns, rows = _bins(axes[across]), _bins(axes[down])
    cells: dict[tuple[int, int], list[Measured]] = {}
    for trial in measured:
        place = (_bin_of(axes[across], trial.params[across]), _bin_of(axes[down], trial.params[down]))
        cells.setdefault(place, []).append(trial)
    found = [_cell(place, cells[place], mode, stat) for place in sorted(cells)]
    return MapRead(across=across, down=down, columns=columns, rows=rows, cells=found)


def _cell(place: tuple[int, int], trials: Sequence[Measured], mode: Mode, stat: MapStat) -> MapCell:
    values = [trial.value for trial in trials]
    best, mean = (max if mode == "max" else min)(values), statistics.fmean(values)
    costs = [trial.grad_evals / trial.num_epochs for trial in trials if trial.grad_evals and trial.num_epochs]
    return MapCell(
        column=place[0],
        row=place[1],
        best=best,
        mean=mean,
        num=len(values),
        value={MapStat.BEST: best, MapStat.MEAN: mean, MapStat.COUNT: float(len(values))}[stat],
        epoch_grad_evals=statistics.fmean(costs) if costs else None,
        trials=[trial.number for trial in trials],
    )


def best_so_far(mode: Mode, points: Sequence[PointRead]) -> list[PointRead]:
    """Return the points, by number, each with the best value up to it."""
    better = max if mode == "max" else min
    best: dict[tuple[str, str], float] = {}
    found = []
    for point in points:
        key = (point.arm, point.phase)
        if point.value is not None:
            best[key] = better(best.get(key, point.value), point.value)
        found.append(point.model_copy(update={"best": best.get(key)}))
    return found


def axes_read(axes: Mapping[str, Axis]) -> list[AxisRead]:
    """Return the axes as documents."""
    return [_axis_read(path, axis) for path, axis in axes.items()]


def _axis_read(path: str, axis: Axis) -> AxisRead:
    if isinstance(axis, Choice):
        return AxisRead(path=path, kind="choice", low=None, high=None, values=list(axis.values))
    kind: Literal["linear", "log", "int"] = "int" if isinstance(axis, IntRange) else "linear"
    return AxisRead(
        path=path, kind="log" if isinstance(axis, LogUniform) else kind, low=axis.low, high=axis.high, values=None
    )


def distribution_of(axis: Axis) -> BaseDistribution:
    """Return an axis as Optuna knows it."""
    if isinstance(axis, Choice):
        return CategoricalDistribution([shown(axis, value) for value in axis.values])
    if isinstance(axis, IntRange):
        return IntDistribution(axis.low, axis.low + axis.step * (axis.count - 1), step=axis.step)
    return FloatDistribution(axis.low, axis.high, log=isinstance(axis, LogUniform))


def shown(axis: Axis, value: Any) -> Any:
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
