"""A study's plots with optuna.visualization (plotly), as one HTML page that needs no internet."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna import visualization

from xsam.api.cli.options import CommandError
from xsam.services.studies import space as spaces
from xsam.services.studies.plots import optuna_study
from xsam.services.studies.schemas import Measured, StudyRead, TrialRead
from xsam.services.studies.spec import read_space

MAX_MAP_AXES = 2


def draw(study: StudyRead, trials: Sequence[TrialRead], path: Path) -> None:
    """Write all plots of the study's own optimizer to one file.

    Args:
        study: the study.
        trials: its trials.
        path: ends in .html.

    Raises:
        CommandError: another ending, or too few trials with a value.
    """
    if path.suffix != ".html":
        raise CommandError(f"{path} ends in {path.suffix or 'nothing'}; allowed is .html")
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
        _write(view, list(axes), target, path)


def _write(view: optuna.Study, paths: list[str], target: str, path: Path) -> None:
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


def _can_rank(view: optuna.Study) -> bool:
    return len({trial.value for trial in view.trials}) > 1 and len(view.trials) > 3
