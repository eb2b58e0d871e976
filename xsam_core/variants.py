"""The public optimizers: each is SharpnessAware with one direction and the arguments of that direction."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from xsam_core.arguments import check_real
from xsam_core.directions import Direction, GSAMDirection, SAMDirection, SlerpDirection, WSAMDirection
from xsam_core.optimizer import SharpnessAware


class SAM(SharpnessAware):
    """Sharpness-aware minimization: the base optimizer gets the gradient at the ascent point.

    Args: those of SharpnessAware.

    References:
        Foret et al., ICLR 2021, arXiv 2010.01412, eq. 2 (ascent) and 3 (update). With ascent_steps > 1 the
        steps share rho, as in arXiv 2603.10048.

    Example:
        On f(w) = w^2 / 2 the ascent from w = 1 ends at 1 + rho, whose gradient is 1 + rho:

        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor(1.0))
        >>> optimizer = SAM([w], torch.optim.SGD, rho=0.5, lr=0.1)
        >>> optimizer.step(lambda: w.square() / 2)
        tensor(0.5000)
        >>> w.item()  # 1 - 0.1 * 1.5
        0.8500000238418579
    """

    def _direction(self) -> Direction:
        return SAMDirection()


class ASAM(SAM):
    """Adaptive SAM: the perturbation of each weight is scaled by its size, so rescaled weights climb alike.

    The same as SAM with adaptive=True; rho is usually an order of magnitude larger than SAM's.

    Args: those of SharpnessAware; `adaptive` starts as True.

    References:
        Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
        Networks", ICML 2021, arXiv 2102.11600, eq. 8 with T_w = |w| + eta. The authors leave biases unscaled;
        give them a group with adaptive=False for that.
    """

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        *,
        rho: float = 0.5,
        adaptive: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(params, base_optimizer, rho=rho, adaptive=adaptive, **options)


class WSAM(SharpnessAware):
    """Weighted SAM: a fixed mixture of the gradients at theta_0 and at the ascent point.

    Args: those of SharpnessAware, and:
        gamma: Weight of the sharpness, in [0, 1). 0 is the base optimizer alone, 0.5 is SAM.

    References:
        Yue et al., KDD 2023, arXiv 2305.15817; see WSAMDirection.
    """

    def __init__(self, params: ParamsT, base_optimizer: type[Optimizer], *, gamma: float = 0.9, **options: Any) -> None:
        check_real("gamma", gamma, low=0.0, high=0.999)
        super().__init__(params, base_optimizer, **options)
        self.gamma = gamma

    def _direction(self) -> Direction:
        return WSAMDirection(self.gamma)


class GSAM(SharpnessAware):
    """Surrogate gap guided SAM: the gradient at the ascent point, less a share of what g_0 has orthogonal to it.

    Args: those of SharpnessAware, and:
        gap_weight: The paper's alpha, >= 0. 0 is SAM.

    References:
        Zhuang et al., ICLR 2022, arXiv 2203.08065, Algorithm 1; see GSAMDirection.
    """

    def __init__(
        self, params: ParamsT, base_optimizer: type[Optimizer], *, gap_weight: float = 0.4, **options: Any
    ) -> None:
        check_real("gap_weight", gap_weight, low=0.0)
        super().__init__(params, base_optimizer, **options)
        self.gap_weight = gap_weight

    def _direction(self) -> Direction:
        return GSAMDirection(self.gap_weight)


class SGDPlus(SharpnessAware):
    """SGD+: the direction of the ascent with the length of the gradient at its end; XSAM with alpha 0.

    Args: those of SharpnessAware.

    References:
        Chen and Zhou, ICLR 2026, arXiv 2603.10048; the authors' code calls it so (alpha = 0).
    """

    def _direction(self) -> Direction:
        return SlerpDirection(0.0)
