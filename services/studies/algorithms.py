"""How points are chosen and which trials end early: the options of samplers and early stoppers in a StudySpec."""

from typing import Annotated, Literal

from pydantic import Field

from xsam.services.specs.base import Spec


class RandomSampler(Spec):
    """Independent draws; trial N's draw depends on the seed and on N alone."""

    name: Literal["random"] = "random"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class QuasiRandomSampler(Spec):
    """A scrambled Sobol sequence: fills the space more evenly than random draws."""

    name: Literal["quasi_random"] = "quasi_random"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class GridSampler(Spec):
    """Every combination of values, in order."""

    name: Literal["grid"] = "grid"
    points: Annotated[int, Field(ge=2, le=100)] = 5
    """Values of each continuous range, its ends included; choices give all theirs."""


class TpeSampler(Spec):
    """Optuna's tree-structured Parzen estimator: proposes where good trials were dense; for any space."""

    name: Literal["tpe"] = "tpe"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    startup_trials: Annotated[int, Field(ge=1, le=1000)] = 10
    """Configurations drawn at random before the first proposal."""


class GpSampler(Spec):
    """Optuna's Gaussian process: few trials, few axes, expensive training."""

    name: Literal["gp"] = "gp"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    startup_trials: Annotated[int, Field(ge=1, le=1000)] = 10
    """Configurations drawn at random before the first proposal."""


class CmaEsSampler(Spec):
    """Optuna's CMA-ES: many cheap trials over two ranges or more, no choices. An arm with one range gets TPE."""

    name: Literal["cma_es"] = "cma_es"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    startup_trials: Annotated[int, Field(ge=1, le=1000)] = 10
    """Configurations drawn at random before the first proposal."""


SamplerSpec = Annotated[
    RandomSampler | QuasiRandomSampler | GridSampler | TpeSampler | GpSampler | CmaEsSampler,
    Field(discriminator="name"),
]


class NoStopping(Spec):
    """Every trial runs to its end."""

    name: Literal["none"] = "none"


class AshaStopping(Spec):
    """Asynchronous successive halving: at each rung only the best share of the trials goes on (arXiv 1810.05934)."""

    name: Literal["asha"] = "asha"
    unit: Literal["grad_evals", "epochs"] = "grad_evals"
    """What rungs count. Gradient evaluations, so that k = 3 gets no more compute than k = 1 before it is judged."""
    grace: Annotated[float, Field(gt=0, le=1)] = 0.1
    """First rung, as a share of the base job's whole run."""
    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 3.0
    """One in so many goes on, for so many times as long."""


class MedianStopping(Spec):
    """Stop a trial whose best is worse than the median of the others' running means."""

    name: Literal["median"] = "median"
    unit: Literal["grad_evals", "epochs"] = "grad_evals"
    """What time counts."""
    grace: Annotated[float, Field(gt=0, le=1)] = 0.2
    """No trial is judged before this share of the base job's whole run."""
    min_trials: Annotated[int, Field(ge=1, le=1000)] = 3
    """Others that must have got as far."""


class HyperbandStopping(Spec):
    """Several ASHA brackets beside each other: each spares its trials one rung longer, in case good ones start slowly.

    A trial's bracket is drawn from its id; brackets with more rungs get more trials (Tune's softmax).
    """

    name: Literal["hyperband"] = "hyperband"
    unit: Literal["grad_evals", "epochs"] = "grad_evals"
    """What rungs count, as with asha."""
    grace: Annotated[float, Field(gt=0, le=1)] = 0.1
    """First rung of the first bracket, as a share of the base job's whole run."""
    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 3.0
    """One in so many goes on, for so many times as long; also by how much later the next bracket begins."""
    brackets: Annotated[int, Field(ge=2, le=10)] = 3
    """Each must have a rung: grace times reduction_factor ** (brackets - 1) is at most 1."""


EarlyStopping = Annotated[NoStopping | AshaStopping | MedianStopping | HyperbandStopping, Field(discriminator="name")]
