"""What a job may say about its optimizer: the base optimizers of torch.optim and the variants above them.

Nothing is built here; `xsam.workers.training.optimizers` turns a specification into an optimizer.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from xsam.services.specs.base import Spec, field_error

DEFAULT_RHO_MAX_RATIO = 2.0
"""The paper probes at twice the ascent radius (arXiv 2603.10048, appendix on hyperparameters)."""

Rate = Annotated[float, Field(gt=0, le=100)]
Decay = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Radius = Annotated[float, Field(gt=0, le=100)]


class _Base(Spec):
    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for the class of the same name in torch.optim."""
        return self.model_dump(exclude={"name"})


class SgdBase(_Base):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"] = "sgd"
    lr: Rate = 0.05
    momentum: Beta = 0.9
    weight_decay: Decay = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise field_error(
                "optimizer.base.nesterov",
                "nesterov is true but momentum is 0; Nesterov's step needs momentum > 0",
            )
        return self


class _AdamLike(_Base):
    lr: Rate = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    weight_decay: Decay = 0.0


class AdamBase(_AdamLike):
    """Adam (torch.optim.Adam); weight decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    amsgrad: bool = False


class AdamWBase(_AdamLike):
    """Adam with decoupled weight decay (torch.optim.AdamW)."""

    name: Literal["adamw"] = "adamw"
    weight_decay: Decay = 0.01
    amsgrad: bool = False


class NAdamBase(_AdamLike):
    """Adam with Nesterov momentum (torch.optim.NAdam)."""

    name: Literal["nadam"] = "nadam"
    lr: Rate = 2e-3


class RAdamBase(_AdamLike):
    """Adam with a rectified adaptive rate (torch.optim.RAdam)."""

    name: Literal["radam"] = "radam"


class RMSpropBase(_Base):
    """RMSprop (torch.optim.RMSprop)."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: Rate = 0.01
    alpha: Beta = 0.99
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    weight_decay: Decay = 0.0
    momentum: Beta = 0.0


class AdagradBase(_Base):
    """Adagrad (torch.optim.Adagrad)."""

    name: Literal["adagrad"] = "adagrad"
    lr: Rate = 0.01
    lr_decay: Decay = 0.0
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-10
    weight_decay: Decay = 0.0


BaseOptimizer = Annotated[
    SgdBase | AdamBase | AdamWBase | NAdamBase | RAdamBase | RMSpropBase | AdagradBase,
    Field(discriminator="name"),
]


class SgdVariant(Spec):
    """No perturbation: the base optimizer alone, one gradient evaluation a step."""

    variant: Literal["sgd"] = "sgd"
    base: BaseOptimizer = SgdBase()

    @property
    def grad_evals_per_step(self) -> int:
        """Forward-backward passes of one training step."""
        return 1


class _SharpnessAware(Spec):
    rho: Radius = 0.05
    """Total ascent length in parameter space, shared by all ascent steps."""
    ascent_steps: Annotated[int, Field(ge=1, le=20)] = 1
    """k, the number of ascent steps; a training step costs k + 1 gradient evaluations."""
    adaptive: bool = False
    """Scale the perturbation by the size of each weight, as ASAM does."""
    scope: Literal["global", "local"] = "global"
    """global: gradients are averaged over ranks before each ascent step. local: every rank climbs its own batch."""
    rho_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which rho, and rho_max with it, grow in a straight line from rho / steps; 0: rho from the start."""
    base: BaseOptimizer = SgdBase()

    @property
    def grad_evals_per_step(self) -> int:
        """Forward-backward passes of one training step."""
        return self.ascent_steps + 1


class SamVariant(_SharpnessAware):
    """Sharpness-Aware Minimization: step along the gradient at the ascent point (arXiv 2010.01412)."""

    variant: Literal["sam"] = "sam"


class AsamVariant(_SharpnessAware):
    """Adaptive SAM: each weight's perturbation is scaled by its size (arXiv 2102.11600); rho is larger than SAM's."""

    variant: Literal["asam"] = "asam"
    rho: Radius = 0.5
    """Total ascent length in scaled parameter space."""
    adaptive: Literal[True] = True
    """What makes it ASAM."""


class WsamVariant(_SharpnessAware):
    """Weighted SAM: a fixed mixture of the gradients at the start and at the ascent point (arXiv 2305.15817)."""

    variant: Literal["wsam"] = "wsam"
    gamma: Annotated[float, Field(ge=0, le=0.999)] = 0.9
    """Weight of the sharpness: 0 is the base optimizer alone, 0.5 is SAM."""
    decouple: bool = False
    """Keep the sharpness out of the base optimizer's momentum and scaling; needs scope global."""

    @model_validator(mode="after")
    def _decoupled_is_global(self) -> Self:
        if self.decouple and self.scope == "local":
            raise field_error("optimizer.decouple", "decouple is true with scope local; allowed is scope global")
        return self


class GsamVariant(_SharpnessAware):
    """Surrogate gap guided SAM: also lowers the gap between the loss and its perturbed value (arXiv 2203.08065)."""

    variant: Literal["gsam"] = "gsam"
    gap_weight: Annotated[float, Field(ge=0, le=10)] = 0.4
    """The paper's alpha: 0 is SAM."""
    rho_min: Annotated[float, Field(ge=0, le=100)] | None = None
    """Let rho follow the learning rate in a straight line, from rho at base.lr to rho_min at 0; by default it stays."""

    @model_validator(mode="after")
    def _rho_comes_down(self) -> Self:
        if self.rho_min is not None and self.rho_min > self.rho:
            raise field_error(
                "optimizer.rho_min", f"rho_min is {self.rho_min}, larger than rho {self.rho}; rho comes down to it"
            )
        return self


class XsamVariant(_SharpnessAware):
    """eXplicit SAM: step along the direction v(alpha*) of the largest loss at radius rho_max (arXiv 2603.10048)."""

    variant: Literal["xsam"] = "xsam"
    rho_max: Radius | None = None
    """Radius at which alpha is probed; by default twice rho, the paper's ratio."""
    alpha: Annotated[float, Field(ge=0, le=4)] | None = None
    """A fixed alpha; by default alpha* is searched."""
    alpha_max: Annotated[float, Field(gt=0, le=4)] = 2.0
    """Upper end of the search interval."""
    alpha_delta: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Spacing of the paper's grid."""
    alpha_search: Literal["grid", "adaptive"] = "grid"
    """grid: every point, as in the paper. adaptive: the same maximum in a few forward passes."""
    alpha_every: Literal["epoch"] | Annotated[int, Field(ge=1)] = "epoch"
    """Search on the first step of each epoch, or every N steps."""
    alpha_batches: Annotated[int, Field(ge=1, le=100)] = Field(default=1, exclude_if=lambda value: value == 1)
    """Batches whose loss a search looks at: the step's own, and those that come next in the epoch."""

    @model_validator(mode="after")
    def _grid_has_points(self) -> Self:
        if self.alpha_delta > self.alpha_max:
            raise field_error(
                "optimizer.alpha_delta",
                f"alpha_delta is {self.alpha_delta}, larger than alpha_max {self.alpha_max}; "
                "the grid needs at least two points",
            )
        return self

    @property
    def probe_radius(self) -> float:
        """rho_max with its default filled in."""
        return self.rho_max if self.rho_max is not None else DEFAULT_RHO_MAX_RATIO * self.rho

    def grid_probes(self) -> int:
        """Forward passes of one search on the paper's grid, for each batch that it looks at."""
        return round(self.alpha_max / self.alpha_delta) + 1


Optimizer = Annotated[
    SgdVariant | SamVariant | AsamVariant | WsamVariant | GsamVariant | XsamVariant, Field(discriminator="variant")
]

OPTIMIZERS: dict[str, type[Spec]] = {
    "sgd": SgdVariant,
    "sam": SamVariant,
    "asam": AsamVariant,
    "wsam": WsamVariant,
    "gsam": GsamVariant,
    "xsam": XsamVariant,
}
BASE_OPTIMIZERS: dict[str, type[Spec]] = {
    "sgd": SgdBase,
    "adam": AdamBase,
    "adamw": AdamWBase,
    "nadam": NAdamBase,
    "radam": RAdamBase,
    "rmsprop": RMSpropBase,
    "adagrad": AdagradBase,
}
