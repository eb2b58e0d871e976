"""What a study says so far: what is best, how far it is, what it has cost, what is still to come."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from xsam.services.db.clock import utc_now
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import TERMINAL_STATES, JobState
from xsam.services.studies import compare, trials
from xsam.services.studies.arms import Arm, arms_of
from xsam.services.studies.compare import PairedTest
from xsam.services.studies.models import Study
from xsam.services.studies.results import ConfigResult, best_config, best_trial, configs_of
from xsam.services.studies.service import spec_of
from xsam.services.studies.spec import StudySpec, read_space
from xsam.services.studies.trials import CONFIRM, SEARCH, TrialState


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """One optimizer's search so far."""

    arm: Arm
    num_configs_done: int
    best: ConfigResult | None
    """The best configuration of the search."""
    confirmed: ConfigResult | None
    """The same on seeds that the search has not seen."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The main arm against a control arm, each at its own best."""

    arm: str
    against: str
    basis: str
    """`confirm`: on seeds that neither search has seen. `search`: on the seeds that chose the winners, which flatters
    whichever arm had more configurations."""
    test: PairedTest
    value: float
    against_value: float
    grad_evals_ratio: float | None
    seconds_ratio: float | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What the study has used so far."""

    grad_evals: int
    probe_forwards: int
    train_s: float
    """Of the trials that ended well."""
    gpu_hours: float
    wall_s: float
    """Since its first start, pauses included."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """When it should end, from its own trials so far."""

    num_trials_left: int
    left_s: float
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything a study says."""

    num_trials: int
    """Trials planned in all, extensions and confirmation included."""
    num_by_state: dict[JobState, int]
    num_stopped_early: int
    best: TrialState | None
    arms: Sequence[ArmAnswer]
    comparisons: Sequence[Comparison]
    spent: Spent
    prediction: Prediction | None


def answer(session: Session, job: Job, study: Study) -> Answer:
    """Return what a study says so far."""
    spec = spec_of(job)
    found = trials.load(session, job.id)
    planned = arms_of(spec, space=read_space(study.space), num_configs=study.num_configs)
    arms = [_arm_answer(spec, arm, found) for arm in planned]
    num_trials = sum(arm.num_configs * spec.seeds_per_config + spec.num_confirm_seeds for arm in planned)
    spent = Spent(
        grad_evals=sum(trial.grad_evals or 0 for trial in found),
        probe_forwards=sum(trial.probe_forwards or 0 for trial in found),
        train_s=sum(trial.train_s or 0.0 for trial in found),
        gpu_hours=trials.gpu_hours(session, job.id) if spec.base.resources.gpus_per_worker else 0.0,
        wall_s=_wall_s(job),
    )
    return Answer(
        num_trials=num_trials,
        num_by_state=dict(Counter(trial.state for trial in found)),
        num_stopped_early=sum(trial.is_stopped_early for trial in found),
        best=best_trial((t for t in found if t.phase == SEARCH and t.arm == planned[0].name), spec.objective.mode),
        arms=arms,
        comparisons=_comparisons(spec, arms),
        spent=spent,
        prediction=_prediction(job, study, found, num_trials),
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


def _arm_answer(spec: StudySpec, arm: Arm, found: Sequence[TrialState]) -> ArmAnswer:
    done = [c for c in configs_of(found) if c.arm == arm.name and c.is_over and len(c.trials) >= spec.seeds_per_config]
    best = _best(spec, arm.name, found)
    confirmed = [c for c in configs_of(found, phase=CONFIRM) if c.arm == arm.name and c.values]
    chosen = [c for c in confirmed if best is not None and c.config == best.config]
    return ArmAnswer(arm, len(done), best, chosen[0] if chosen else None)


def _comparisons(spec: StudySpec, arms: Sequence[ArmAnswer]) -> list[Comparison]:
    main, *others = arms
    return [comparison for other in others if (comparison := _comparison(spec, main, other)) is not None]


def _comparison(spec: StudySpec, main: ArmAnswer, other: ArmAnswer) -> Comparison | None:
    for basis, first, second in ((CONFIRM, main.confirmed, other.confirmed), (SEARCH, main.best, other.best)):
        if first is None or second is None:
            continue
        test = compare.paired_test(first.values, second.values, spec.objective.mode)
        if test is None:
            continue
        shared = sorted(first.values.keys() & second.values.keys())
        grad_evals, seconds = compare.price(first, second)
        return Comparison(
            arm=main.arm.name,
            against=other.arm.name,
            basis=basis,
            test=test,
            value=statistics.fmean(first.values[seed] for seed in shared),
            against_value=statistics.fmean(second.values[seed] for seed in shared),
            grad_evals_ratio=grad_evals,
            seconds_ratio=seconds,
        )
    return None


def _wall_s(job: Job) -> float:
    if job.started_at is None:
        return 0.0
    return max(0.0, ((job.finished_at or utc_now()) - job.started_at).total_seconds())


def _prediction(job: Job, study: Study, found: Sequence[TrialState], num_trials: int) -> Prediction | None:
    paces = [trial.train_s for trial in found if trial.train_s is not None]
    if job.state in TERMINAL_STATES or not paces:
        return None
    left = max(0, num_trials - sum(1 for trial in found if trial.is_over))
    left_s = left * statistics.fmean(paces) / study.concurrency
    return Prediction(left, left_s, utc_now() + timedelta(seconds=left_s))
