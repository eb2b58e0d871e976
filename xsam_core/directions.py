"""How an update gradient is made of what one ascent saw; each family member is one small class.

After k ascent steps there are three vectors: the displacement theta_k - theta_0, the gradient g_0 at
theta_0 and the gradient g_k at theta_k. Every method here is a linear combination of them, so a direction
only answers with three weights, computed from norms and inner products. It never touches a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from xsam_core.functional import Scalar, positive_or, slerp_weights

# Added to denominators that may be zero; vanishes next to any other.
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Geometry:
    """Norms and angles of one ascent; floats on the CPU, 0-dim tensors on one device elsewhere.

    `displacement_norm`, `last_norm` and `angle_rad` are over the perturbed parameters; `first_dot_last`
    and `last_square` are over all parameters, and there only for directions that mix in g_0.
    """

    displacement_norm: Scalar
    last_norm: Scalar
    angle_rad: Scalar
    first_dot_last: Scalar | None = None
    last_square: Scalar | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """Update gradient = displacement * (theta_k - theta_0) + first * g_0 + last * g_k.

    With `decoupled` the update gradient is g_0, and lr * decoupled * (g_k - g_0) is taken off the parameters
    after the base optimizer's step, past its momentum and its scaling; the others are not read then.
    """

    displacement: Scalar = 0.0
    first: Scalar = 0.0
    last: Scalar = 0.0
    decoupled: float = 0.0


@dataclass(frozen=True)
class Direction:
    """A rule for the update gradient.

    Parameters that are not perturbed have no displacement. Directions made of gradients alone
    (`mixes_first_gradient`) use the same weights for them; the others hand them g_k as it is.
    """

    mixes_first_gradient: ClassVar[bool] = False

    def weights(self, geometry: Geometry) -> Weights:
        """Return the weights of the three vectors."""
        raise NotImplementedError


@dataclass(frozen=True)
class SAMDirection(Direction):
    """g_k.

    References:
        Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
        arXiv 2010.01412, eq. 3. ASAM changes the ascent (its eq. 8), not this.
    """

    def weights(self, geometry: Geometry) -> Weights:  # noqa: D102
        return Weights(last=1.0)


@dataclass(frozen=True)
class SlerpDirection(Direction):
    """norm(g_k) * v(alpha), where v turns from the displacement (alpha 0) to g_k (alpha 1) and beyond.

    Args:
        alpha: 0 is SGD+, 1 is SAM.

    References:
        Chen and Zhou, "Revisiting Sharpness-Aware Minimization", ICLR 2026, arXiv 2603.10048; the authors'
        code is Cccjl219/XSAM. Where the displacement is zero we return g_k, they divide by eps.
    """

    alpha: float = 0.0

    def weights(self, geometry: Geometry) -> Weights:  # noqa: D102
        c0, c1 = slerp_weights(geometry.angle_rad, self.alpha)
        distance = geometry.displacement_norm
        # The smallest normal float32 keeps the quotient defined where nothing moved and it is not used.
        scale = geometry.last_norm / (distance + _TINY)
        return Weights(displacement=positive_or(distance, c0 * scale, 0.0), last=positive_or(distance, c1, 1.0))


@dataclass(frozen=True)
class WSAMDirection(Direction):
    """(1 - 2 gamma) / (1 - gamma) * g_0 + gamma / (1 - gamma) * g_k.

    Args:
        gamma: Weight of the sharpness, in [0, 1): 0 is the base optimizer alone, 1/2 is SAM.

    References:
        Yue et al., "Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization Term",
        KDD 2023, arXiv 2305.15817: the gradient of its weighted loss, handed to the base optimizer
        (the coupled form; the other one is DecoupledWSAMDirection).
    """

    gamma: float = 0.9
    mixes_first_gradient: ClassVar[bool] = True

    def weights(self, geometry: Geometry) -> Weights:  # noqa: D102
        return Weights(first=(1 - 2 * self.gamma) / (1 - self.gamma), last=self.gamma / (1 - self.gamma))


@dataclass(frozen=True)
class DecoupledWSAMDirection(Direction):
    """g_0 for the base optimizer, and gamma / (1 - gamma) * (g_k - g_0) beside it, with the plain learning rate.

    Args:
        gamma: Weight of the sharpness, in (0, 1).

    References:
        Yue et al., KDD 2023, arXiv 2305.15817, Algorithm 1, which keeps the sharpness term out of the base
        optimizer's momentum and scaling.
    """

    gamma: float = 0.9
    mixes_first_gradient: ClassVar[bool] = True

    def weights(self, geometry: Geometry) -> Weights:  # noqa: D102
        return Weights(decoupled=self.gamma / (1 - self.gamma))


@dataclass(frozen=True)
class GSAMDirection(Direction):
    """g_k - gap_weight * (the part of g_0 orthogonal to g_k).

    Args:
        gap_weight: The paper's alpha, >= 0; how hard the surrogate gap is pushed down. 0 is SAM.

    References:
        Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training", ICLR 2022,
        arXiv 2203.08065, Algorithm 1. Its schedule of rho is the optimizer's (`rho_min`).
    """

    gap_weight: float = 0.4
    mixes_first_gradient: ClassVar[bool] = True

    def weights(self, geometry: Geometry) -> Weights:  # noqa: D102
        if geometry.first_dot_last is None or geometry.last_square is None:
            raise ValueError("GSAM needs the inner product of g_0 and g_k, which this geometry does not hold")
        square = geometry.last_square
        parallel = positive_or(square, geometry.first_dot_last / (square + _TINY), 0.0)
        return Weights(first=-self.gap_weight, last=1 + self.gap_weight * parallel)
