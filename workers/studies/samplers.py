"""Where points come from: functions of a configuration's number, or Optuna's samplers through Tune's OptunaSearch.

Either kind is rebuilt from what the rows hold, so that no state of a sampler has to survive a crash.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from ray.tune.search.optuna import OptunaSearch
from scipy.stats import qmc

from xsam.services.studies import space as spaces
from xsam.services.studies.algorithms import (
    CmaEsSampler,
    GpSampler,
    GridSampler,
    QuasiRandomSampler,
    RandomSampler,
    SamplerSpec,
    TpeSampler,
)
from xsam.services.studies.analysis import ConfigResult, Mode
from xsam.services.studies.space import Axis, Choice, Dimension, IntRange, LogUniform, Point

OptunaSpec = TpeSampler | GpSampler | CmaEsSampler
_VALUE = "value"
_MIN_WARM_START = 10
"""CMA-ES starts from the best tenth of the configurations it is given."""


class Sampler(Protocol):
    """Proposes the points of one arm's search, configuration after configuration."""

    def propose(self, config: int) -> Point | None:
        """Return the point of a new configuration; None where there is nothing left to propose."""

    def tell(self, config: int, value: float | None) -> None:
        """Say what a proposed configuration was worth; None if it has no value, because it diverged or failed."""


def make_sampler(
    sampler: SamplerSpec, space: Mapping[str, Dimension], mode: Mode, known: Sequence[ConfigResult]
) -> Sampler:
    """Return a sampler that knows all configurations there are so far.

    Args:
        sampler: how points are chosen.
        space: what is searched; without any axis there is one point.
        mode: whether more or less is better.
        known: the arm's configurations, those that still run included.
    """
    if not spaces.axes(space):
        return _OnePoint()
    match sampler:
        case RandomSampler():
            return _RandomPoints(space, sampler.seed)
        case QuasiRandomSampler():
            return _SobolPoints(space, sampler.seed)
        case GridSampler():
            return _GridPoints(space, sampler.points, [config.point for config in known])
        case TpeSampler() | GpSampler() | CmaEsSampler():
            return _OPTUNAS[sampler.name](sampler, space, mode, known)


class _OnePoint:
    def propose(self, config: int) -> Point | None:
        return {}

    def tell(self, config: int, value: float | None) -> None:
        pass


class _RandomPoints:
    """Configuration N has a random stream of its own: the same point whenever and wherever it is asked for."""

    def __init__(self, space: Mapping[str, Dimension], seed: int) -> None:
        self._space = space
        self._seed = seed

    def propose(self, config: int) -> Point | None:
        draws = np.random.default_rng([self._seed, config]).random(len(spaces.axes(self._space)))
        return spaces.point_at(self._space, draws.tolist())

    def tell(self, config: int, value: float | None) -> None:
        pass


class _SobolPoints:
    """Point N of a scrambled Sobol sequence (the generator that Optuna's QMCSampler uses), by its number."""

    def __init__(self, space: Mapping[str, Dimension], seed: int) -> None:
        self._space = space
        self._seed = seed

    def propose(self, config: int) -> Point | None:
        sequence = qmc.Sobol(len(spaces.axes(self._space)), scramble=True, rng=np.random.default_rng(self._seed))
        if config:
            sequence.fast_forward(config)
        with warnings.catch_warnings():  # "balance properties require n to be a power of 2"; one point is asked for
            warnings.simplefilter("ignore", UserWarning)
            return spaces.point_at(self._space, sequence.random(1)[0].tolist())

    def tell(self, config: int, value: float | None) -> None:
        pass


class _GridPoints:
    """The grid in order, without the points that are there already; so a widened grid only adds."""

    def __init__(self, space: Mapping[str, Dimension], points: int, used: Sequence[Point]) -> None:
        self._left = [point for point in spaces.grid(space, points) if point not in used]
        self._left.reverse()

    def propose(self, config: int) -> Point | None:
        return self._left.pop() if self._left else None

    def tell(self, config: int, value: float | None) -> None:
        pass


class _OptunaPoints(ABC):
    """Optuna's model-based samplers, through OptunaSearch, told of every past configuration.

    Configurations that still run are asked for again, so the sampler counts them as running: it does not propose next
    to them as if nobody were there. One more of Optuna's samplers is one more class with `_new`.
    """

    def __init__(
        self, options: OptunaSpec, space: Mapping[str, Dimension], mode: Mode, known: Sequence[ConfigResult]
    ) -> None:
        self._axes = spaces.axes(space)
        running = [config for config in known if not config.is_over]
        self._search = OptunaSearch(
            space={path: _distribution(axis) for path, axis in self._axes.items()},
            metric=_VALUE,
            mode=mode,
            points_to_evaluate=[self._encoded(config.point) for config in running] or None,
            sampler=self._made(options, known),
        )
        self._told: set[int] = set()
        self._asked = {config.config for config in running}
        for config in known:
            if config.is_over:
                self._tell_past(config)
        for config in running:
            self._search.suggest(str(config.config))

    @abstractmethod
    def _new(self, options: OptunaSpec, seed: int, past: Sequence[FrozenTrial]) -> BaseSampler:
        """Return Optuna's sampler; `past` are the configurations that have a value."""

    def _made(self, options: OptunaSpec, known: Sequence[ConfigResult]) -> BaseSampler:
        # A rebuilt sampler must not repeat the draws that it made before: its stream depends on how far the search is.
        seed = int(np.random.default_rng([options.seed, len(known)]).integers(2**31))
        distributions = {path: _distribution(axis) for path, axis in self._axes.items()}
        past = [
            optuna.trial.create_trial(params=self._encoded(one.point), distributions=distributions, value=one.mean)
            for one in known
            if one.is_over and one.mean is not None
        ]
        with _quiet_optuna():
            return self._new(options, seed, past)

    def propose(self, config: int) -> Point | None:
        """Return the sampler's next point."""
        with _quiet_optuna():
            proposed = self._search.suggest(str(config))
        self._asked.add(config)
        return self._decoded(proposed or {})

    def tell(self, config: int, value: float | None) -> None:
        """Let the sampler learn from a configuration, once."""
        if config in self._told or config not in self._asked:
            return
        self._told.add(config)
        # Without a value Optuna takes a trial as pruned, and TPE counts those among the bad ones.
        self._search.on_trial_complete(str(config), result=None if value is None else {_VALUE: value})

    def _tell_past(self, config: ConfigResult) -> None:
        self._told.add(config.config)
        value = config.mean
        self._search.add_evaluated_point(self._encoded(config.point), value, pruned=value is None)

    def _encoded(self, point: Point) -> dict[str, Any]:
        return {path: _encoded(axis, point[path]) for path, axis in self._axes.items()}

    def _decoded(self, proposed: Mapping[str, Any]) -> Point:
        return {path: _decoded(axis, proposed[path]) for path, axis in self._axes.items()}


class TpePoints(_OptunaPoints):
    """Tree-structured Parzen estimator."""

    def _new(self, options: OptunaSpec, seed: int, past: Sequence[FrozenTrial]) -> BaseSampler:
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=options.startup_trials, multivariate=True, constant_liar=True
        )


class GpPoints(_OptunaPoints):
    """Gaussian process."""

    def _new(self, options: OptunaSpec, seed: int, past: Sequence[FrozenTrial]) -> BaseSampler:
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=options.startup_trials)


class CmaEsPoints(_OptunaPoints):
    """CMA-ES. Its covariance is in no row, so a rebuilt one is warm-started from the configurations of before."""

    def _new(self, options: OptunaSpec, seed: int, past: Sequence[FrozenTrial]) -> BaseSampler:
        return optuna.samplers.CmaEsSampler(
            seed=seed,
            n_startup_trials=options.startup_trials,
            independent_sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=options.startup_trials),
            warn_independent_sampling=False,
            source_trials=list(past) if len(past) >= _MIN_WARM_START else None,
        )


_OPTUNAS: dict[str, Callable[..., Sampler]] = {"tpe": TpePoints, "gp": GpPoints, "cma_es": CmaEsPoints}


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Leave out Optuna's remarks that a feature is experimental."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _distribution(axis: Axis) -> BaseDistribution:
    if isinstance(axis, Choice):
        return CategoricalDistribution(tuple(range(len(axis.values))))
    if isinstance(axis, IntRange):
        return IntDistribution(axis.low, axis.low + axis.step * (axis.count - 1), step=axis.step)
    return FloatDistribution(axis.low, axis.high, log=isinstance(axis, LogUniform))


def _encoded(axis: Axis, value: Any) -> Any:
    """Return a value as Optuna knows it: of a choice the index, since values may be whole documents."""
    return axis.values.index(value) if isinstance(axis, Choice) else value


def _decoded(axis: Axis, value: Any) -> Any:
    return axis.values[value] if isinstance(axis, Choice) else value
