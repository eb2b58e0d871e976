"""What a job says about its parameters: which are frozen, and which groups are spared decay or perturbation."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from xsam.services.specs.recipe import Parameters
from xsam.workers.training.errors import UserSpecError

_SHOWN_NAMES = 20
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters that a pattern fits.

    Raises:
        UserSpecError: a pattern fits none, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(names[:_SHOWN_NAMES])
            raise UserSpecError(f"parameters.freeze has {pattern!r}, which fits no parameter; there are {shown}")
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserSpecError(f"parameters.freeze {list(patterns)} leaves nothing to train")


def frozen_norms(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Return the BatchNorm layers that the job has frozen whole, whose statistics are to stay."""
    found: list[nn.Module] = []
    for path, module in model.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            names = [f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)]
            if names and all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names):
                found.append(module)
    return found


def arranged(groups: Sequence[dict[str, Any]], model: nn.Module, spec: Parameters) -> list[dict[str, Any]]:
    """Return the groups, those split whose parameters differ in what they are spared.

    Args:
        groups: of the task.
        model: whose parameters they are.
        spec: what the job says.
    """
    if not spec.no_decay and not spec.no_perturb:
        return list(groups)
    kinds = _kinds(model)
    found: list[dict[str, Any]] = []
    for group in groups:
        parts: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            own = kinds.get(id(parameter), frozenset())
            spared = (not own.isdisjoint(spec.no_decay), not own.isdisjoint(spec.no_perturb))
            parts.setdefault(spared, []).append(parameter)
        for (no_decay, no_perturb), parameters in parts.items():
            options = ({"weight_decay": 0.0} if no_decay else {}) | ({"perturb": False} if no_perturb else {})
            found.append({**group, "params": parameters, **options})
    return found


def _kinds(model: nn.Module) -> dict[int, frozenset[str]]:
    found: dict[int, frozenset[str]] = {}
    for module in model.modules():
        # Also the norms of other libraries, which inherit from none of torch's.
        is_norm = isinstance(module, _NORMS) or type(module).__name__.endswith(("Norm", "Norm2d"))
        for name, parameter in module.named_parameters(recurse=False):
            kinds = ({"norms"} if is_norm else set()) | ({"biases"} if name.endswith("bias") else set())
            found[id(parameter)] = found.get(id(parameter), frozenset()) | kinds
    return found
