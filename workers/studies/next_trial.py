"""The agenda of a study: which trial is next, of which arm, configuration and seed. Knows samplers, no rows, no Ray."""

from collections import deque
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from xsam.services.errors import ServiceError
from xsam.services.jobs.cost import cost_of
from xsam.services.studies.analysis import ConfigResult, best_config, configs_of
from xsam.services.studies.arms import Arm, arms_of, confirm_seed, job_spec, search_seed
from xsam.services.studies.models import Study
from xsam.services.studies.space import Point
from xsam.services.studies.spec import StudySpec, blame, read_space
from xsam.services.studies.trials import CONFIRM, SEARCH, NewTrial, TrialState
from xsam.workers.studies.samplers import Sampler, make_sampler

MAX_INVALID = 50
"""Points in a row that make no valid job, after which the space is at fault."""


class SpaceError(ServiceError):
    """The space holds (almost) no valid job."""

    code = "invalid_request"


class TrialGenerator:
    """What is left of a study: further seeds first, then new configurations, then confirmations.

    `next` may take seconds (a model of the search is fitted), and is called by one thread at a time; meanwhile others
    may ask `has_next` and tell `note_end`.

    Args:
        spec: the study's.
        study: its row, which says the space and the size in force.
        trials: all trials there are, by id.
    """

    def __init__(self, spec: StudySpec, study: Study, trials: Mapping[str, TrialState]) -> None:
        self._spec = spec
        self._arms: Sequence[Arm] = arms_of(spec, space=read_space(study.space), num_configs=study.num_configs)
        known = configs_of(trials.values())
        self._samplers: dict[str, Sampler] = {
            arm.name: make_sampler(
                spec.sampler, arm.space, spec.objective.mode, [c for c in known if c.arm == arm.name]
            )
            for arm in self._arms
        }
        self._exhausted: set[str] = set()
        self._untold: deque[tuple[str, int, float | None]] = deque()
        """Arm, number and worth of configurations that samplers have not been told of."""

    @property
    def arm_names(self) -> list[str]:
        """Names of the arms, in their order."""
        return [arm.name for arm in self._arms]

    def next(self, trials: Mapping[str, TrialState]) -> NewTrial | None:
        """Return the trial whose turn it is; None if none is left, or none before others have ended.

        Args:
            trials: all trials there are, by id; must not change meanwhile.

        Raises:
            SpaceError: the space holds no valid job.
        """
        while self._untold:
            arm, number, worth = self._untold.popleft()
            self._samplers[arm].tell(number, worth)
        return self._next_seed(trials) or self._next_config(trials) or self._next_confirmation(trials)

    def has_next(self, trials: Mapping[str, TrialState]) -> bool:
        """Return whether a trial is left to be made, without drawing one."""
        return bool(self._next_seed(trials) or self._open_arms(trials) or self._next_confirmation(trials))

    def note_end(self, trial: TrialState, trials: Mapping[str, TrialState]) -> None:
        """Have the sampler told of a configuration once all its seeds have ended."""
        if trial.phase != SEARCH:
            return
        for config in configs_of(trials.values()):
            if (config.arm, config.config) == (trial.arm, trial.config) and self._is_complete(config.trials):
                self._untold.append((trial.arm, trial.config, config.mean))

    def _next_seed(self, trials: Mapping[str, TrialState]) -> NewTrial | None:
        """Return the next trial of a configuration that has not had all its seeds."""
        if self._spec.seeds_per_config == 1:
            return None
        for config in configs_of(trials.values()):
            used = {trial.seed for trial in config.trials}
            for number in range(self._spec.seeds_per_config):
                seed = search_seed(self._spec, number)
                if seed not in used:
                    return self._new(self._arm(config.arm), SEARCH, config.config, seed, config.point)
        return None

    def _next_config(self, trials: Mapping[str, TrialState]) -> NewTrial | None:
        """Return the first trial of a new configuration, of the arm that has had the smallest part of its own."""
        for arm in sorted(self._open_arms(trials), key=lambda arm: len(_numbers(arm, trials)) / arm.num_configs):
            new = self._drawn(arm, first=1 + max(_numbers(arm, trials), default=-1))
            if new is not None:
                return new
            self._exhausted.add(arm.name)
        return None

    def _open_arms(self, trials: Mapping[str, TrialState]) -> list[Arm]:
        """Return the arms that have not had all their configurations."""
        closed = frozenset(self._exhausted)
        return [arm for arm in self._arms if arm.name not in closed and len(_numbers(arm, trials)) < arm.num_configs]

    def _drawn(self, arm: Arm, *, first: int) -> NewTrial | None:
        """Draw points until one makes a valid job; the numbers of those that don't are left out."""
        sampler = self._samplers[arm.name]
        error: ValidationError | None = None
        for number in range(first, first + MAX_INVALID):
            point = sampler.propose(number)
            if point is None:
                return None
            try:
                return self._new(arm, SEARCH, number, search_seed(self._spec, 0), point)
            except ValidationError as e:
                error = e
                sampler.tell(number, None)
        field = blame(arm.space, ".".join(map(str, error.errors()[0]["loc"]))) if error else ""
        raise SpaceError(f"{MAX_INVALID} points in a row make no valid job; the last: {error}", f"space.{field}")

    def _next_confirmation(self, trials: Mapping[str, TrialState]) -> NewTrial | None:
        """Return the next trial that confirms an arm's best configuration, once the whole search has ended."""
        if not self._spec.num_confirm_seeds or any(t.phase == SEARCH and not t.is_over for t in trials.values()):
            return None
        done = {(c.arm, trial.seed) for c in configs_of(trials.values(), phase=CONFIRM) for trial in c.trials}
        for number in range(self._spec.num_confirm_seeds):
            seed = confirm_seed(self._spec, number)
            for arm in self._arms:
                best = self._best(arm, trials)
                if best is not None and (arm.name, seed) not in done:
                    return self._new(arm, CONFIRM, best.config, seed, best.point)
        return None

    def _best(self, arm: Arm, trials: Mapping[str, TrialState]) -> ConfigResult | None:
        seeds = self._spec.seeds_per_config
        return best_config(trials.values(), arm.name, self._spec.objective.mode, num_seeds=seeds)

    def _new(self, arm: Arm, phase: str, config: int, seed: int, point: Point) -> NewTrial:
        job = job_spec(self._spec, arm, point, seed)
        return NewTrial(arm.name, phase, config, seed, point, job, cost_of(job).grad_evals)

    def _arm(self, name: str) -> Arm:
        return next(arm for arm in self._arms if arm.name == name)

    def _is_complete(self, members: Sequence[TrialState]) -> bool:
        return len(members) >= self._spec.seeds_per_config and all(trial.is_over for trial in members)


def _numbers(arm: Arm, trials: Mapping[str, TrialState]) -> set[int]:
    """Return the numbers of the arm's configurations."""
    return {trial.config for trial in trials.values() if trial.arm == arm.name and trial.phase == SEARCH}
