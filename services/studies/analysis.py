"""What a study has found: what a configuration is worth over its seeds, paired tests between arms, and the answer."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from scipy import special
from sqlalchemy.orm import Session

from xsam.services.db.clock import utc_now
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import TERMINAL_STATES, JobState
from xsam.services.studies import trials
from xsam.services.studies.arms import Arm, arms_of, num_planned
from xsam.services.studies.models import Study
from xsam.services.studies.schemas import (
    ArmRead,
    CauseRead,
    ComparisonRead,
    ConfigRead,
    ConfirmationRead,
    PairedTestRead,
    PredictionRead,
    SpentRead,
    StudyRead,
)
from xsam.services.studies.service import spec_of
from xsam.services.studies.space import Point
from xsam.services.studies.spec import StudySpec, read_space
from xsam.services.studies.trials import CONFIRM, SEARCH, TrialState

Mode = Literal["max", "min"]


@dataclass(frozen=True, slots=True)
class ConfigResult:
    """One configuration with all its trials of one phase."""

    arm: str
    config: int
    point: Point
    trials: Sequence[TrialState]

    @property
    def values(self) -> dict[int, float]:
        """The objective by seed, of those trials that have one."""
        return {trial.seed: trial.value for trial in self.trials if trial.value is not None}

    @property
    def is_over(self) -> bool:
        """Whether all its trials have ended."""
        return all(trial.is_over for trial in self.trials)

    @property
    def mean(self) -> float | None:
        """The mean over its seeds; None while one is missing: the seeds that survived would flatter it."""
        values = self.values
        return statistics.fmean(values.values()) if values and len(values) == len(self.trials) else None


def configs_of(trials: Iterable[TrialState], *, phase: str = SEARCH) -> list[ConfigResult]:
    """Return the configurations of a phase by arm and number."""
    grouped: dict[tuple[str, int], list[TrialState]] = {}
    for trial in trials:
        if trial.phase == phase:
            grouped.setdefault((trial.arm, trial.config), []).append(trial)
    return [ConfigResult(arm, config, members[0].point, members) for (arm, config), members in sorted(grouped.items())]


def best_config(trials: Iterable[TrialState], arm: str, mode: Mode, *, num_seeds: int = 1) -> ConfigResult | None:
    """Return an arm's best configuration of the search, None while there is none that all its seeds speak for."""
    whole = [
        config
        for config in configs_of(trials)
        if config.arm == arm and config.mean is not None and len(config.trials) >= num_seeds
    ]
    return min(whole, key=lambda config: (_badness(config.mean, mode), config.config), default=None)


def best_trial(trials: Iterable[TrialState], mode: Mode) -> TrialState | None:
    """Return the trial with the best value."""
    measured = [trial for trial in trials if trial.value is not None]
    return min(measured, key=lambda trial: (_badness(trial.value, mode), trial.number), default=None)


def _badness(value: float | None, mode: Mode) -> float:
    if value is None:
        return float("inf")
    return -value if mode == "max" else value


MIN_PAIRS = 2
_ROUNDING = 1e-9
"""Differences of equal accuracies differ by so little of themselves, and by nothing that was measured."""
_CONFIDENCE = 0.95


def compared(first: ConfigResult, second: ConfigResult, mode: Mode, basis: str) -> ComparisonRead | None:
    """Compare an arm's winner with another one's; None where they share fewer than two seeds."""
    test = paired_test(first.values, second.values, mode)
    if test is None:
        return None
    shared = first.values.keys() & second.values.keys()
    grad_evals = _ratio([t.grad_evals for t in first.trials], [t.grad_evals for t in second.trials])
    seconds = _ratio([t.train_s for t in first.trials], [t.train_s for t in second.trials])
    return ComparisonRead(
        arm=first.arm,
        against=second.arm,
        basis=basis,
        **test.model_dump(),
        value=statistics.fmean(first.values[seed] for seed in sorted(shared)),
        against_value=statistics.fmean(second.values[seed] for seed in sorted(shared)),
        grad_evals_ratio=grad_evals,
        seconds_ratio=seconds,
        sentence=f"{first.arm} {_gained(test, second.arm)}{_price(grad_evals, seconds)}",
    )


def paired_test(first: Mapping[int, float], second: Mapping[int, float], mode: Mode) -> PairedTestRead | None:
    """Compare two arms on the seeds they share by Student's t-test; None where those are fewer than two.

    Where the differences do not vary, they have neither an interval nor a p-value.

    Args:
        first: value by seed.
        second: value by seed.
        mode: whether more or less is better.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < MIN_PAIRS:
        return None
    sign = 1.0 if mode == "max" else -1.0
    differences = [sign * (first[seed] - second[seed]) for seed in seeds]
    gain, spread = statistics.fmean(differences), statistics.stdev(differences)
    if spread <= _ROUNDING * abs(gain):
        spread = 0.0
    low = high = p_value = None
    if spread > 0:
        freedom, error = len(seeds) - 1, spread / math.sqrt(len(seeds))
        reach = error * float(special.stdtrit(freedom, (1 + _CONFIDENCE) / 2))
        low, high = gain - reach, gain + reach
        p_value = 2 * float(special.stdtr(freedom, -abs(gain) / error))
    return PairedTestRead(
        num_pairs=len(seeds),
        wins=sum(difference > 0 for difference in differences),
        gain=gain,
        gain_sd=spread,
        low=low,
        high=high,
        p_value=p_value,
    )


def _gained(test: PairedTestRead, against: str) -> str:
    verdict = "the seeds do not vary"
    if test.p_value is not None:
        verdict = f"95 % interval {test.low:+.2g} to {test.high:+.2g}, p = {test.p_value:.2g}"
    return f"{test.gain:+.2g} ± {test.gain_sd:.2g} over {test.num_pairs} seeds against {against} ({verdict})"


def _price(grad_evals: float | None, seconds: float | None) -> str:
    if grad_evals is None:
        return ""
    in_seconds = "" if seconds is None else f" and {seconds:.2f} times the seconds"
    return f"; it takes {grad_evals:.2f} times the gradient evaluations{in_seconds}"


def _ratio(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """Return how many times as much the first take as the second, on average; None where that is not known."""
    above, below = ([value for value in side if value is not None] for side in (first, second))
    mean = statistics.fmean(below) if below else 0.0
    return statistics.fmean(above) / mean if above and mean else None


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
    num_trials = num_planned(spec, arms)
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
        confirmation=_confirmation(spec, arm, found),
    )


def _confirmation(spec: StudySpec, arm: Arm, found: Sequence[TrialState]) -> ConfirmationRead | None:
    if not spec.num_confirm_seeds:
        return None
    own = [trial for trial in found if trial.phase == CONFIRM and trial.arm == arm.name]
    values = {trial.seed: trial.value for trial in own if trial.value is not None}
    return ConfirmationRead(
        num_seeds=spec.num_confirm_seeds,
        num_running=sum(trial.state == JobState.RUNNING for trial in own),
        num_failed=sum(trial.state == JobState.FAILED for trial in own),
        values=values,
        mean=statistics.fmean(values.values()) if values else None,
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
            found = compared(main[basis], other[basis], spec.objective.mode, basis)
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
