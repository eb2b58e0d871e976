"""A study's plots with optuna.visualization: one PNG (matplotlib) or one HTML page (plotly)."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from optuna import visualization
from optuna.visualization import matplotlib as on_matplotlib

from xsam.api.cli.options import CommandError
from xsam.services.studies import space as spaces
from xsam.services.studies.schemas import StudyRead, TrialRead
from xsam.services.studies.spec import read_space
from xsam.services.studies.views import Measured, optuna_study

_DPI = 110
MAX_MAP_AXES = 2


def draw(study: StudyRead, trials: Sequence[TrialRead], path: Path) -> None:
    """Write all plots of the study's own optimizer to one file.

    Args:
        study: the study.
        trials: its trials.
        path: ends in .png or .html.

    Raises:
        CommandError: another ending, or too few trials with a value.
    """
    arm = study.arms[0].arm
    measured = [
        Measured(number=t.number, arm=t.arm, params=t.params, value=t.value, grad_evals=t.grad_evals)
        for t in trials
        if t.value is not None and t.arm == arm
    ]
    if len(measured) < 2:
        raise CommandError(f"study {study.id} has {len(measured)} trials with a value; a plot needs two")
    axes = spaces.axes(read_space(study.space))
    view = optuna_study(axes, study.spec.objective.mode, measured)
    target = study.spec.objective.metric
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the plotting modules call themselves experimental
        if path.suffix == ".html":
            _write_html(view, list(axes), target, path)
        elif path.suffix == ".png":
            _write_png(view, list(axes), target, path)
        else:
            raise CommandError(f"{path} ends in {path.suffix or 'nothing'}; allowed are .png and .html")


def _write_html(view: optuna.Study, paths: list[str], target: str, path: Path) -> None:
    figures = [
        visualization.plot_optimization_history(view, target_name=target),
        visualization.plot_parallel_coordinate(view, target_name=target),
        visualization.plot_slice(view, target_name=target),
    ]
    if _can_rank(view):
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        figures.append(visualization.plot_param_importances(view, evaluator=evaluator, target_name=target))
    if len(paths) >= MAX_MAP_AXES:
        figures.append(visualization.plot_contour(view, params=paths[:MAX_MAP_AXES], target_name=target))
    pages = [figure.to_html(full_html=False, include_plotlyjs=number == 0) for number, figure in enumerate(figures)]
    path.write_text(f"<!doctype html><meta charset='utf-8'>{''.join(pages)}", encoding="utf-8")


def _write_png(view: optuna.Study, paths: list[str], target: str, path: Path) -> None:
    drawn: list[Any] = [
        on_matplotlib.plot_optimization_history(view, target_name=target),
        on_matplotlib.plot_parallel_coordinate(view, target_name=target),
    ]
    if _can_rank(view):
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        drawn.append(on_matplotlib.plot_param_importances(view, evaluator=evaluator, target_name=target))
    drawn.append(on_matplotlib.plot_slice(view, target_name=target))
    if len(paths) >= MAX_MAP_AXES:
        drawn.append(on_matplotlib.plot_contour(view, params=paths[:MAX_MAP_AXES], target_name=target))
    _stack([_image(axes) for axes in drawn], path)


def _can_rank(view: optuna.Study) -> bool:
    return len({trial.value for trial in view.trials}) > 1 and len(view.trials) > 3


def _image(drawn: Any) -> Any:
    """Return the drawing surface of what optuna drew: axes, or an array of them."""
    axes = drawn if isinstance(drawn, Axes) else drawn.flat[0]
    figure = axes.get_figure()
    assert isinstance(figure, Figure)  # noqa: S101 - optuna draws on figures of its own
    figure.set_size_inches(9, 4.5)
    if isinstance(drawn, Axes):  # several share a colour bar, which this layout would move into one of them
        figure.set_layout_engine("tight")  # room for long labels, which optuna does not leave
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def _stack(canvases: Sequence[Any], path: Path) -> None:
    """Write the figures below one another as one picture."""
    height = 4.5 * len(canvases)
    whole = Figure(figsize=(9, height), dpi=_DPI)
    places = whole.subplots(len(canvases), 1, squeeze=False)[:, 0]
    for axes, canvas in zip(places, canvases, strict=True):
        axes.imshow(canvas.buffer_rgba())
        axes.set_axis_off()
    whole.subplots_adjust(left=0, right=1, top=1, bottom=0, hspace=0)
    whole.savefig(path)
