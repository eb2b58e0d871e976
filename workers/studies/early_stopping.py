"""Early stopping: Ray Tune's schedulers, one for each arm, fed with shares of a whole run instead of epochs.

A scheduler's memory is made again from the stored epochs. Tune gives a trial another id after every restart, so the
schedulers are shown a stand-in that carries the trial's own id: a rung that a trial has passed stays passed.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from xsam.services.metrics.records import EpochRecord
from xsam.services.studies.algorithms import AshaStopping, EarlyStopping, HyperbandStopping, MedianStopping, NoStopping
from xsam.services.studies.analysis import Mode
from xsam.services.studies.spec import Objective, StudySpec
from xsam.services.studies.trials import objective_of

StopperSpec = AshaStopping | HyperbandStopping | MedianStopping
_TIME, _VALUE = "share", "value"
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _StandIn:
    trial_id: str


@dataclass(frozen=True, slots=True)
class Measured:
    """The epochs of a trial so far, in order, as far as judging needs them."""

    trial_id: str
    epochs: Sequence[EpochRecord]
    is_over: bool


class EarlyStopper:
    """Says after each epoch of an arm's trials whether the trial goes on. Used under its owner's lock.

    Args:
        stopping: the rule.
        spec: the study.
        past: trials that have measured something already; what is decided about running ones on what they all hold
            is said at their next epoch.
    """

    def __init__(self, stopping: StopperSpec, spec: StudySpec, past: Iterable[Measured] = ()) -> None:
        self._objective = spec.objective
        self._base = (spec.base.epochs, spec.base.optimizer.grad_evals_per_step)
        self._unit = stopping.unit
        self._rule = _rule(stopping, spec.objective.mode)
        self._known: set[str] = set()
        self._condemned: set[str] = set()
        for trial in past:
            self._replay(trial, remembers_verdicts=isinstance(stopping, MedianStopping))

    def is_stopped(self, trial_id: str, epochs: Sequence[EpochRecord]) -> bool:
        """Return whether a trial ends here; `epochs` are all its epochs so far, the last one new."""
        verdict = self._show(trial_id, epochs)
        return verdict or trial_id in self._condemned

    def share_done(self, record: EpochRecord) -> float:
        """Return how much of the base job's compute a trial has used, 1 for all of it."""
        base_epochs, base_cost = self._base
        if self._unit == "epochs":
            return record.epoch / base_epochs
        steps_per_epoch = record.step / record.epoch
        return record.grad_evals / (base_epochs * steps_per_epoch * base_cost)

    def _replay(self, trial: Measured, *, remembers_verdicts: bool) -> None:
        verdicts = [self._show(trial.trial_id, trial.epochs[: i + 1]) for i in range(len(trial.epochs))]
        if remembers_verdicts and not trial.is_over and any(verdicts):
            self._condemned.add(trial.trial_id)

    def _show(self, trial_id: str, epochs: Sequence[EpochRecord]) -> bool:
        stand_in = _StandIn(trial_id)
        if trial_id not in self._known:
            self._known.add(trial_id)
            self._rule.on_trial_add(None, stand_in)
        value = objective_of(self._objective, values_of(self._objective, epochs))
        result = {_TIME: self.share_done(epochs[-1]) + _ROUNDING, _VALUE: value}
        return bool(self._rule.on_trial_result(None, stand_in, result) != TrialScheduler.CONTINUE)


@dataclass(slots=True)
class WatchedTrial:
    """What a trial has measured, and what was said about it. Used under its owner's lock."""

    trial_id: str
    epochs: list[EpochRecord]
    num_judged: int
    """Epochs with a verdict, or of before this runner's time, which must not get another."""
    is_stopped: bool = False

    def add(self, record: EpochRecord) -> None:
        """Take an epoch; one that a resumed attempt repeats replaces nothing, since its values are equal."""
        if record.epoch > len(self.epochs):
            self.epochs.append(record)

    def judge(self, epoch: int, stopper: EarlyStopper | None, *, num_epochs: int) -> bool:
        """Return whether the trial ends after an epoch; the stopper is asked once about each."""
        for number in range(self.num_judged + 1, min(epoch, len(self.epochs)) + 1):
            self.num_judged = number
            if stopper is not None and stopper.is_stopped(self.trial_id, self.epochs[:number]):
                self.is_stopped |= number < num_epochs  # the last epoch ends a trial anyway
        return self.is_stopped


def make_early_stoppers(
    spec: StudySpec, arms: Iterable[str], past: Mapping[str, Sequence[Measured]]
) -> dict[str, EarlyStopper]:
    """Return an early stopper for each arm, none where nothing is stopped early.

    An optimizer's trials are compared with each other only: a control arm must not die young because it is worse.
    """
    stopping: EarlyStopping = spec.early_stopping
    if isinstance(stopping, NoStopping):
        return {}
    return {arm: EarlyStopper(stopping, spec, past.get(arm, ())) for arm in arms}


def values_of(objective: Objective, epochs: Iterable[EpochRecord]) -> list[float]:
    """Return what the epochs measured of the objective's metric."""
    values = (record.value(objective.metric) for record in epochs)
    return [value for value in values if value is not None]


class _Hyperband(AsyncHyperBandScheduler):
    """Tune's, with brackets that are drawn from a trial's id: the same ones after a restart."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Put a trial into its bracket; Tune draws it from numpy's global stream."""
        before = np.random.get_state()
        np.random.seed(zlib.crc32(trial.trial_id.encode()))
        try:
            super().on_trial_add(tune_controller, trial)
        finally:
            np.random.set_state(before)


def _rule(stopping: StopperSpec, mode: Mode) -> Any:
    common = {"time_attr": _TIME, "metric": _VALUE, "mode": mode, "grace_period": stopping.grace}
    match stopping:
        case AshaStopping():
            return AsyncHyperBandScheduler(**common, max_t=1.0, reduction_factor=stopping.reduction_factor)
        case HyperbandStopping():
            halving = {"reduction_factor": stopping.reduction_factor, "brackets": stopping.brackets}
            return _Hyperband(**common, max_t=1.0, **halving)
        case MedianStopping():
            # Without hard_stop a trial that it has once condemned is not looked at again, which a replay may do.
            return MedianStoppingRule(
                **common, min_samples_required=stopping.min_trials, min_time_slice=math.inf, hard_stop=False
            )
