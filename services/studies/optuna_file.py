"""A study as a file of Optuna's, for its own tools: parameters, values, intermediate values, states."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from xsam.services.jobs.states import JobState
from xsam.services.metrics.schemas import EpochRead
from xsam.services.studies import space as spaces
from xsam.services.studies.plots import distribution_of, shown
from xsam.services.studies.schemas import StudyRead, TrialRead
from xsam.services.studies.space import Axis
from xsam.services.studies.spec import Objective, read_space

_STATES = {
    JobState.QUEUED: TrialState.WAITING,
    JobState.PAUSED: TrialState.WAITING,
    JobState.RUNNING: TrialState.RUNNING,
    JobState.SUCCEEDED: TrialState.COMPLETE,
    JobState.FAILED: TrialState.FAIL,
    JobState.CANCELLED: TrialState.FAIL,
}
_ATTRIBUTES = ("arm", "phase", "config", "seed", "grad_evals", "train_s")


def write_optuna(
    path: Path, study: StudyRead, trials: Sequence[TrialRead], epochs: Mapping[str, Sequence[EpochRead]]
) -> str:
    """Write a study into a new SQLite storage of Optuna, and return the name by which Optuna finds it there.

    Trials that were stopped early are pruned ones; arm, phase, seed and cost are user attributes. Optuna counts from 0,
    the service from 1.

    Args:
        path: the file, which does not exist.
        study: the study.
        trials: its trials.
        epochs: what they measured, by job id.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    event.listen(storage.engine, "connect", _do_not_wait_for_the_disk)
    storage.engine.dispose()  # the connection so far was made without that
    objective = study.spec.objective
    direction: Literal["maximize", "minimize"] = "maximize" if objective.mode == "max" else "minimize"
    name = f"{study.name} ({study.id})" if study.name else study.id
    made = optuna.create_study(storage=storage, study_name=name, direction=direction)
    made.set_user_attr("xsam_study", study.id)
    made.set_user_attr("metric", objective.metric)
    axes = spaces.axes(read_space(study.space))
    for trial in sorted(trials, key=lambda one: one.number):
        made.add_trial(_trial(trial, axes, objective, epochs.get(trial.id, ())))
    storage.remove_session()
    storage.engine.dispose()
    return name


def _trial(
    trial: TrialRead, axes: Mapping[str, Axis], objective: Objective, epochs: Sequence[EpochRead]
) -> FrozenTrial:
    own = [path for path in axes if path in trial.params]
    measured = {epoch.epoch: value for epoch in epochs if (value := _value(epoch, objective)) is not None}
    state = TrialState.PRUNED if trial.is_stopped_early else _STATES[trial.state]
    attributes: dict[str, Any] = {name: getattr(trial, name) for name in _ATTRIBUTES}
    attributes |= {"job": trial.id, "number": trial.number}
    if trial.failure is not None:
        attributes["failure"] = str(trial.failure.kind)
    has_value = state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.value is not None
    if state is TrialState.COMPLETE and not has_value:
        state = TrialState.FAIL
    frozen = optuna.trial.create_trial(
        state=state,
        value=trial.value if has_value else None,
        params={path: shown(axes[path], trial.params[path]) for path in own},
        distributions={path: distribution_of(axes[path]) for path in own},
        user_attrs=attributes,
        intermediate_values=measured,
    )
    if trial.started_at is not None and state is not TrialState.WAITING:
        frozen.datetime_start = _local(trial.started_at)
    if trial.finished_at is not None and state.is_finished():
        frozen.datetime_complete = _local(trial.finished_at)
    return frozen


def _value(epoch: EpochRead, objective: Objective) -> float | None:
    if objective.metric in epoch.metrics:
        return epoch.metrics[objective.metric]
    found: float | None = getattr(epoch, objective.metric, None)
    return found


def _local(at: datetime) -> datetime:
    """Return an instant as Optuna keeps it: without a zone, in this machine's."""
    return at.astimezone().replace(tzinfo=None)


def _do_not_wait_for_the_disk(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()
