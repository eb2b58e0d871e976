"""The public optimizers: each is SharpnessAware with one direction and the arguments of that direction."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from xsam_core.arguments import check_flag, check_real
from xsam_core.directions import (
    DecoupledWSAMDirection,
    Direction,
    GSAMDirection,
    SAMDirection,
    SlerpDirection,
    WSAMDirection,
)
from xsam_core.errors import ArgumentError
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
        decouple: Keep the sharpness out of the base optimizer's momentum and scaling: it gets the gradient at
            theta_0, and lr * gamma / (1 - gamma) * (g_k - g_0) is taken off the parameters beside it.
            `max_grad_norm` shrinks both by what the gradient at theta_0 needs. Needs `scope="global"`.

    References:
        Yue et al., KDD 2023, arXiv 2305.15817; see WSAMDirection.

    Example:
        On f(w) = w^2 / 2 with rho 0.5 the gradients are 1 and 1.5; lr * (1 + 4 * 0.5) is taken off:

        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor(1.0))
        >>> optimizer = WSAM([w], torch.optim.SGD, rho=0.5, gamma=0.8, decouple=True, lr=0.1)
        >>> _ = optimizer.step(lambda: w.square() / 2)
        >>> round(w.item(), 6)
        0.7
    """

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        *,
        gamma: float = 0.9,
        decouple: bool = False,
        **options: Any,
    ) -> None:
        self.gamma = check_real("gamma", gamma, low=0.0, high=0.999)
        self.decouple = check_flag("decouple", decouple)
        super().__init__(params, base_optimizer, **options)
        if self.decouple and self._replicas.is_local:
            raise ArgumentError("scope must be global with decouple=True: only one gradient is averaged over ranks")
        if self.decouple and not all("lr" in group for group in self.param_groups):
            raise ArgumentError(
                f"decouple must be False: {base_optimizer.__name__} has no lr to take the sharpness with"
            )

    def _direction(self) -> Direction:
        # With gamma 0 there is no sharpness to decouple.
        return DecoupledWSAMDirection(self.gamma) if self.decouple and self.gamma else WSAMDirection(self.gamma)


class GSAM(SharpnessAware):
    """Surrogate gap guided SAM: the gradient at the ascent point, less a share of what g_0 has orthogonal to it.

    Args: those of SharpnessAware, and:
        gap_weight: The paper's alpha, >= 0. 0 is SAM.
        rho_min: Let each group's rho follow its lr, in [0, rho]: from rho at `lr_max` in a straight line to
            rho_min at `lr_min`, and no farther on either side. None keeps rho as it is.
        lr_max: Upper end of the schedule of lr, > lr_min. None is the lr of each group when it is added, which
            is the peak for schedules that multiply it by at most 1, but not for OneCycleLR.
        lr_min: Lower end of the schedule of lr, >= 0.

    References:
        Zhuang et al., ICLR 2022, arXiv 2203.08065, Algorithm 1, see GSAMDirection, and its schedule of rho
        (section 4, rho_t proportional to the learning rate).

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor(1.0))
        >>> optimizer = GSAM([w], torch.optim.SGD, rho=0.5, rho_min=0.1, lr=0.2)
        >>> optimizer.param_groups[0]["lr"] = 0.1
        >>> round(optimizer._rho(optimizer.param_groups[0]), 6)
        0.3
    """

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        *,
        gap_weight: float = 0.4,
        rho_min: float | None = None,
        lr_max: float | None = None,
        lr_min: float = 0.0,
        **options: Any,
    ) -> None:
        self.gap_weight = check_real("gap_weight", gap_weight, low=0.0)
        self.rho_min = None if rho_min is None else check_real("rho_min", rho_min, low=0.0)
        self.lr_min = check_real("lr_min", lr_min, low=0.0)
        self.lr_max = None if lr_max is None else check_real("lr_max", lr_max, low=self.lr_min, open_ends=True)
        if self.rho_min is None and (lr_max is not None or lr_min):
            raise ArgumentError("rho_min must be given with lr_max and lr_min: without it rho does not follow lr")
        super().__init__(params, base_optimizer, **options)
        for group in self.param_groups:
            self._note_peak(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:  # noqa: D102 - as the base class
        super().add_param_group(param_group)
        if "base_optimizer" in self.__dict__:
            self._note_peak(self.param_groups[-1])

    def _note_peak(self, group: dict[str, Any]) -> None:
        """Keep in the group, and so in checkpoints, from which lr its rho comes down."""
        if self.rho_min is None:
            return
        peak = float(group["lr"]) if self.lr_max is None else self.lr_max
        if not peak > self.lr_min:
            raise ArgumentError(f"lr_max must be > lr_min = {self.lr_min}, got {peak}")
        if not self.rho_min <= group["rho"]:
            raise ArgumentError(f"rho_min must be <= rho = {group['rho']}, got {self.rho_min}")
        group["gsam_lr_max"] = peak

    def _rho(self, group: dict[str, Any]) -> float:
        rho = super()._rho(group)
        if self.rho_min is None:
            return rho
        # Groups are open to anybody, and a checkpoint fills them.
        if rho < self.rho_min:
            raise ArgumentError(f"rho_min must be <= rho = {rho}, got {self.rho_min}")
        peak = group["gsam_lr_max"] if self.lr_max is None else self.lr_max
        share: float = (float(group["lr"]) - self.lr_min) / (peak - self.lr_min)
        return self.rho_min + (rho - self.rho_min) * min(max(share, 0.0), 1.0)

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
