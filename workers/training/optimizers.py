"""From an optimizer's specification to the optimizer, and what it has found."""

from collections.abc import Sequence
from typing import Any, assert_never

import torch
from torch import nn

from xsam.services.metrics.records import AlphaRecord
from xsam.services.specs.optimizer import (
    AsamVariant,
    GsamVariant,
    Optimizer,
    SamVariant,
    SgdVariant,
    WsamVariant,
    XsamVariant,
)
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM

BASE_CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def build_optimizer(
    spec: Optimizer,
    model: nn.Module,
    param_groups: Sequence[dict[str, Any]] | None = None,
    *,
    max_grad_norm: float | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer for `model`, which is DDP's wrapper where there are several ranks.

    Args:
        spec: the job's optimizer.
        model: whose parameters it trains.
        param_groups: theirs, with options that replace the specification's; by default one group of all.
        max_grad_norm: to which SAM's family clips its update gradient; others are clipped by the step.
    """
    base_class, base_options = BASE_CLASSES[spec.base.name], spec.base.options()
    # As options of the group, since RMSprop and XSAM both have an argument called alpha.
    groups = [{**base_options, **group} for group in param_groups or [{"params": list(model.parameters())}]]
    if isinstance(spec, SgdVariant):
        groups = [{name: value for name, value in group.items() if name != "perturb"} for group in groups]
    shared: dict[str, Any] = {"model": model, "max_grad_norm": max_grad_norm}
    match spec:
        case SgdVariant():
            return base_class(groups)  # type: ignore[call-arg]  # the abstract base alone asks for defaults
        case SamVariant():
            return SAM(groups, base_class, **shared, **_ascent_options(spec))
        case AsamVariant():
            return ASAM(groups, base_class, **shared, **_ascent_options(spec))
        case WsamVariant():
            own: dict[str, Any] = {"gamma": spec.gamma, "decouple": spec.decouple}
            return WSAM(groups, base_class, **own, **shared, **_ascent_options(spec))
        case GsamVariant():
            own = {"gap_weight": spec.gap_weight, "rho_min": spec.rho_min}
            return GSAM(groups, base_class, **own, **shared, **_ascent_options(spec))
        case XsamVariant():
            return XSAM(
                groups,
                base_class,
                rho_max=spec.probe_radius,
                alpha=spec.alpha,
                alpha_max=spec.alpha_max,
                alpha_delta=spec.alpha_delta,
                alpha_search=spec.alpha_search,
                **shared,
                **_ascent_options(spec),
            )
    assert_never(spec)


def _ascent_options(spec: SamVariant | AsamVariant | WsamVariant | GsamVariant | XsamVariant) -> dict[str, Any]:
    return {
        "rho": spec.rho,
        "ascent_steps": spec.ascent_steps,
        "adaptive": spec.adaptive,
        "scope": spec.scope,
        "rho_warmup_steps": spec.rho_warmup_steps,
    }


def is_search_step(spec: Optimizer, *, step: int, step_in_epoch: int) -> bool:
    """Return whether a step, both counts from 0, searches for alpha*; it depends on the position alone."""
    if not isinstance(spec, XsamVariant) or spec.alpha is not None:
        return False
    return step_in_epoch == 0 if spec.alpha_every == "epoch" else step % spec.alpha_every == 0


def num_search_batches(spec: Optimizer) -> int:
    """Return of how many batches a search for alpha* looks at the loss."""
    return spec.alpha_batches if isinstance(spec, XsamVariant) else 1


def read_alpha(optimizer: torch.optim.Optimizer, *, epoch: int, step: int) -> AlphaRecord:
    """Return what the last step, which searched for alpha*, found; waits for the device."""
    seen = optimizer.telemetry if isinstance(optimizer, XSAM) else None
    if seen is None or seen.curve is None or seen.alpha is None:
        raise RuntimeError(f"step {step} was to search for alpha*, but {type(optimizer).__name__} has no curve")
    return AlphaRecord(
        epoch=epoch,
        step=step,
        alpha=float(seen.alpha),
        angle_rad=float(seen.angle_rad),
        alphas=seen.curve.alphas,
        losses=seen.curve.losses,
    )
