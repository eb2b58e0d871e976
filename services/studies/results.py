"""From trials to configurations: what a point of the space is worth over its seeds, and which one is best."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from xsam.services.studies.space import Point
from xsam.services.studies.trials import SEARCH, TrialState

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
