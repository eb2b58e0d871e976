"""Rungs of early stopping as people look at them: who reached which, with what value, who was cut.

What decides is Ray Tune's scheduler in the study's runner; this reads the same epochs and says what they were worth
there. Where a study stops nobody early, the rungs are those that ASHA's defaults would have had.
"""

import statistics
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.models import EpochMetric
from xsam.services.schemas import Read
from xsam.services.studies import service
from xsam.services.studies.algorithms import AshaStopping, HyperbandStopping, MedianStopping, NoStopping
from xsam.services.studies.models import Trial
from xsam.services.studies.service import spec_of
from xsam.services.studies.spec import Objective, StudySpec
from xsam.services.studies.trials import SEARCH

_ROUNDING = 1e-9
_MIN_PAIRS = 3
"""Fewer trials say nothing about a rank correlation."""


class RungTrial(Read):
    """A trial at a rung."""

    id: str
    number: int
    value: float
    """The objective when it got there."""
    is_stopped: bool
    """It ended here, early."""
    final_value: float | None
    """The objective of the whole trial; null while it runs, or where it was stopped."""


class RungRead(Read):
    """A level of compute at which trials are compared."""

    share: float
    """Of the base job's whole run."""
    level: float
    """In gradient evaluations, or in epochs where the study counts those."""
    cut: float | None
    """What a trial needs to go on, from those that are here; null without a rule for it."""
    trials: list[RungTrial]
    """By number."""
    rank_correlation: float | None
    """Spearman's, of values here and at the end, over trials that ran to their end: near 1, the cut is safe."""
    num_compared: int
    """Over so many trials."""
    would_cut_best: bool | None
    """Whether the best of the finished trials is below the cut here; null without one."""


class ArmRungs(Read):
    """Rungs of one arm: trials are compared with those of their own arm only."""

    arm: str
    rungs: list[RungRead]


class RungsRead(Read):
    """A study's rungs."""

    rule: str
    """`asha`, `hyperband`, `median` or `none`."""
    unit: str
    """`grad_evals` or `epochs`."""
    is_hypothetical: bool
    """The study has no rungs: these are the ones that ASHA's defaults would have had."""
    arms: list[ArmRungs]


@dataclass(frozen=True, slots=True)
class _Epoch:
    share: float
    level: float
    value: float


def read_rungs(session: Session, study_id: str) -> RungsRead:
    """Return the rungs of a study's search.

    Raises:
        NotFoundError: no such study.
    """
    job, _ = service.get(session, study_id)
    spec = spec_of(job)
    stopping = spec.early_stopping
    has_rungs = isinstance(stopping, AshaStopping | HyperbandStopping)
    rule = stopping if isinstance(stopping, AshaStopping | HyperbandStopping) else AshaStopping()
    unit = rule.unit if isinstance(stopping, NoStopping) else stopping.unit
    rows = session.execute(
        select(Trial, Job.state)
        .join(Job, Job.id == Trial.job_id)
        .where(Trial.study_id == study_id, Trial.phase == SEARCH)
        .order_by(Trial.number)
    ).all()
    epochs = _epochs(session, spec, unit, [row[0].job_id for row in rows])
    by_arm: defaultdict[str, list[tuple[Trial, str]]] = defaultdict(list)
    for trial, state in rows:
        by_arm[trial.arm].append((trial, state))
    shares = _shares(rule.grace, rule.reduction_factor)
    keeps = None if isinstance(stopping, HyperbandStopping | MedianStopping) else 1 / rule.reduction_factor
    arms = [
        ArmRungs(arm=arm, rungs=[_rung(share, trials, epochs, spec.objective, keeps) for share in shares])
        for arm, trials in by_arm.items()
    ]
    return RungsRead(rule=stopping.name, unit=unit, is_hypothetical=not has_rungs, arms=arms)


def _shares(grace: float, factor: float) -> list[float]:
    """Return where the rungs are; at the whole run nothing is decided any more."""
    shares = []
    while grace < 1 - _ROUNDING:
        shares.append(grace)
        grace *= factor
    return shares


def _epochs(session: Session, spec: StudySpec, unit: str, job_ids: Sequence[str]) -> Mapping[str, list[_Epoch]]:
    places = select(EpochMetric.job_id, EpochMetric.grad_evals, EpochMetric.epoch, EpochMetric.step)
    steps = {
        (row.job_id, row.grad_evals): (row.epoch, row.step)
        for row in session.execute(places.where(EpochMetric.job_id.in_(job_ids)))
    }
    query = metrics.values_by_epoch(spec.objective.metric).where(EpochMetric.job_id.in_(job_ids))
    better = max if spec.objective.mode == "max" else min
    base_epochs, base_cost = spec.base.epochs, spec.base.optimizer.grad_evals_per_step
    found: defaultdict[str, list[_Epoch]] = defaultdict(list)
    for job_id, value, grad_evals in session.execute(query.order_by(EpochMetric.job_id, EpochMetric.epoch)):
        epoch, step = steps[job_id, grad_evals]
        whole = base_epochs if unit == "epochs" else base_epochs * (step / epoch) * base_cost
        done = epoch if unit == "epochs" else grad_evals
        before = found[job_id]
        worth = better(before[-1].value, value) if before and spec.objective.at == "best" else value
        before.append(_Epoch(done / whole, whole, worth))
    return found


def _rung(
    share: float,
    trials: Sequence[tuple[Trial, str]],
    epochs: Mapping[str, list[_Epoch]],
    objective: Objective,
    keeps: float | None,
) -> RungRead:
    here = []
    wholes = [own[0].level for trial, _ in trials if (own := epochs.get(trial.job_id))]
    for trial, state in trials:
        own = epochs.get(trial.job_id, [])
        reached = next((place for place, epoch in enumerate(own) if epoch.share >= share - _ROUNDING), None)
        if reached is None:
            continue
        is_last = trial.is_stopped_early and reached == len(own) - 1
        is_whole = state == JobState.SUCCEEDED and not trial.is_stopped_early
        final = trial.value if is_whole else None
        worth = own[reached].value
        here.append(RungTrial(id=trial.job_id, number=trial.number, value=worth, is_stopped=is_last, final_value=final))
    cut = _cut([one.value for one in here], objective, keeps)
    pairs = [(one.value, one.final_value) for one in here if one.final_value is not None]
    return RungRead(
        share=share,
        level=share * statistics.median(wholes) if wholes else 0.0,
        cut=cut,
        trials=here,
        rank_correlation=_correlation(pairs),
        num_compared=len(pairs),
        would_cut_best=_is_below(pairs, cut, objective),
    )


def _cut(values: Sequence[float], objective: Objective, keeps: float | None) -> float | None:
    """Return the value that the best share of the trials has reached, as Tune's percentile says."""
    if keeps is None or not values:
        return None
    signed = sorted(value if objective.mode == "max" else -value for value in values)
    place = (1 - keeps) * (len(signed) - 1)
    low = int(place)
    high = min(low + 1, len(signed) - 1)
    cut = signed[low] + (place - low) * (signed[high] - signed[low])
    return cut if objective.mode == "max" else -cut


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    if len(pairs) < _MIN_PAIRS or len({here for here, _ in pairs}) == 1 or len({final for _, final in pairs}) == 1:
        return None
    return statistics.correlation(_ranks([here for here, _ in pairs]), _ranks([final for _, final in pairs]))


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the place of each value among all; equal ones share the middle of theirs."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 for value in values]


def _is_below(pairs: Sequence[tuple[float, float]], cut: float | None, objective: Objective) -> bool | None:
    if cut is None or not pairs:
        return None
    sign = 1 if objective.mode == "max" else -1
    here, _ = max(pairs, key=lambda pair: sign * pair[1])
    return sign * here < sign * cut
