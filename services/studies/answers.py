"""What a study says so far: what is best, how far it is, what it has cost, what is still to come."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from xsam.services.db.clock import utc_now
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import TERMINAL_STATES
from xsam.services.studies import compare, trials
from xsam.services.studies.arms import Arm, arms_of
from xsam.services.studies.models import Study
from xsam.services.studies.results import ConfigResult, best_config, best_trial, configs_of
from xsam.services.studies.schemas import (
    ArmRead,
    CauseRead,
    ComparisonRead,
    ConfigRead,
    PredictionRead,
    SpentRead,
    StudyRead,
)
from xsam.services.studies.service import spec_of
from xsam.services.studies.spec import StudySpec, read_space
from xsam.services.studies.trials import CONFIRM, SEARCH, TrialState

_OF_JOB = (
    "id",
    "name",
    "team",
    "submitted_by",
    "state",
    "wish",
    "priority",
    "labels",
    "created_at",
    "started_at",
    "finished_at",
    "attempt",
)
_OF_STUDY = ("hold", "concurrency", "space")


def answer(session: Session, job: Job, study: Study) -> StudyRead:
    """Return a study and what it says so far."""
    spec = spec_of(job)
    found = trials.load(session, job.id)
    arms = arms_of(spec, space=read_space(study.space), num_configs=study.num_configs)
    winners = [_winners(spec, arm.name, found) for arm in arms]
    num_trials = sum(arm.num_configs * spec.seeds_per_config + spec.num_confirm_seeds for arm in arms)
    best = best_trial((t for t in found if t.phase == SEARCH and t.arm == arms[0].name), spec.objective.mode)
    return StudyRead.model_validate(
        {
            **{name: getattr(job, name) for name in _OF_JOB},
            **{name: getattr(study, name) for name in _OF_STUDY},
            "num_trials": num_trials,
            "num_by_state": Counter(trial.state for trial in found),
            "num_stopped_early": sum(trial.is_stopped_early for trial in found),
            "best_trial": None if best is None else best.number,
            "best_value": None if best is None else best.value,
            "arms": [_arm(spec, arm, won, found) for arm, won in zip(arms, winners, strict=True)],
            "comparisons": _comparisons(spec, winners),
            "spent": _spent(session, job, spec, found),
            "prediction": _prediction(job, study, found, num_trials),
            "ended_by": (job.summary or {}).get("ended_by"),
            "failure": CauseRead.of(job),
            "spec": spec,
        }
    )


def winner(session: Session, job: Job) -> ConfigResult | None:
    """Return the best configuration of the main arm."""
    spec = spec_of(job)
    found = trials.load(session, job.id)
    return _best(spec, spec.base.optimizer.variant, found) or _best_of_any(spec, found)


def _best_of_any(spec: StudySpec, found: Sequence[TrialState]) -> ConfigResult | None:
    """Return the best configuration even if some of its seeds are missing."""
    main = [t for t in found if t.arm == spec.base.optimizer.variant and t.phase == SEARCH and t.value is not None]
    best = best_trial(main, spec.objective.mode)
    return None if best is None else ConfigResult(best.arm, best.config, best.point, [best])


def _best(spec: StudySpec, arm: str, found: Sequence[TrialState]) -> ConfigResult | None:
    return best_config(found, arm, spec.objective.mode, num_seeds=spec.seeds_per_config)


def _winners(spec: StudySpec, arm: str, found: Sequence[TrialState]) -> dict[str, ConfigResult]:
    """Return an arm's best configuration of the search and the same one confirmed, by phase, as far as they exist."""
    best = _best(spec, arm, found)
    if best is None:
        return {}
    confirmed = [c for c in configs_of(found, phase=CONFIRM) if (c.arm, c.config) == (arm, best.config) and c.values]
    return {SEARCH: best, CONFIRM: confirmed[0]} if confirmed else {SEARCH: best}


def _arm(spec: StudySpec, arm: Arm, won: Mapping[str, ConfigResult], found: Sequence[TrialState]) -> ArmRead:
    done = [c for c in configs_of(found) if c.arm == arm.name and c.is_over and len(c.trials) >= spec.seeds_per_config]
    return ArmRead(
        arm=arm.name,
        num_configs=arm.num_configs,
        num_configs_done=len(done),
        best=_config(won.get(SEARCH)),
        confirmed=_config(won.get(CONFIRM)),
    )


def _config(result: ConfigResult | None) -> ConfigRead | None:
    if result is None or result.mean is None:
        return None
    values = result.values
    return ConfigRead(config=result.config, params=result.point, mean=result.mean, num_seeds=len(values), values=values)


def _comparisons(spec: StudySpec, winners: Sequence[Mapping[str, ConfigResult]]) -> list[ComparisonRead]:
    main, *others = winners
    return [comparison for other in others if (comparison := _comparison(spec, main, other)) is not None]


def _comparison(
    spec: StudySpec, main: Mapping[str, ConfigResult], other: Mapping[str, ConfigResult]
) -> ComparisonRead | None:
    for basis in (CONFIRM, SEARCH):
        if basis in main and basis in other:
            found = compare.compared(main[basis], other[basis], spec.objective.mode, basis)
            if found is not None:
                return found
    return None


def _spent(session: Session, job: Job, spec: StudySpec, found: Sequence[TrialState]) -> SpentRead:
    wall_s = 0.0 if job.started_at is None else ((job.finished_at or utc_now()) - job.started_at).total_seconds()
    return SpentRead(
        grad_evals=sum(trial.grad_evals or 0 for trial in found),
        probe_forwards=sum(trial.probe_forwards or 0 for trial in found),
        train_s=sum(trial.train_s or 0.0 for trial in found),
        gpu_hours=trials.gpu_hours(session, job.id) if spec.base.resources.gpus_per_worker else 0.0,
        wall_s=max(0.0, wall_s),
    )


def _prediction(job: Job, study: Study, found: Sequence[TrialState], num_trials: int) -> PredictionRead | None:
    paces = [trial.train_s for trial in found if trial.train_s is not None]
    if job.state in TERMINAL_STATES or not paces:
        return None
    left = max(0, num_trials - sum(1 for trial in found if trial.is_over))
    left_s = left * statistics.fmean(paces) / study.concurrency
    return PredictionRead(num_trials_left=left, left_s=left_s, ends_at=utc_now() + timedelta(seconds=left_s))
