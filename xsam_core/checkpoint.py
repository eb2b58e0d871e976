"""The format of state dicts: what is kept between steps, and how older formats become the present one.

A state dict is torch.optim's own: the base optimizer's `state` and the `param_groups`, whose keys include
ours. The few numbers that live between steps are group keys too, the same in every group, because that is
what survives torch.distributed.checkpoint, which keeps nothing else.

Formats: 0 is a plain torch.optim checkpoint (training goes on with an optimizer of the family); 1 kept the
numbers in an entry of its own; 2 is the present one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from xsam_core.arguments import check_group
from xsam_core.errors import ArgumentError, CheckpointError

FORMAT_VERSION = 2
_FORMAT_1_ENTRY = "sharpness_aware"
# What other implementations of SAM keep in their state, where the base optimizer's should be.
_FOREIGN_STATE = frozenset({"old_p", "old_g", "e_w"})
_FORMAT_1_NAMES = {"step_count": "step_count", "alpha": "xsam_alpha"}


def upgraded(state_dict: dict[str, Any], live_groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return `state_dict` in the present format; the argument stays as it is.

    Args:
        state_dict: Of any format up to the present one.
        live_groups: Groups of the optimizer that will load it; they fill in options it does not know.

    Raises:
        CheckpointError: The format is newer than this library, or the groups do not fit.
    """
    version = format_of(state_dict)
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"state dict has format {version}, this library reads up to {FORMAT_VERSION}; upgrade it to load this"
        )
    saved = state_dict["param_groups"]
    if len(saved) != len(live_groups):
        raise CheckpointError(f"state dict has {len(saved)} param groups, this optimizer has {len(live_groups)}")
    entry = state_dict.get(_FORMAT_1_ENTRY, {})
    extra = {_FORMAT_1_NAMES[k]: v for k, v in entry.items() if k in _FORMAT_1_NAMES and v is not None}
    groups = []
    for group, live in zip(saved, live_groups, strict=True):
        known = {key: value for key, value in live.items() if key not in {"params", "param_names"}}
        groups.append({**known, **extra, **group, "format_version": FORMAT_VERSION})
    return {**{k: v for k, v in state_dict.items() if k != _FORMAT_1_ENTRY}, "param_groups": groups}


def keep_scalar_dtypes(
    state: Mapping[Tensor, Any], param_groups: Sequence[dict[str, Any]], saved: dict[str, Any]
) -> None:
    """Give 0-dim state tensors the dtype they were saved with.

    torch casts all but `step` to the parameter's dtype when it loads, which changes NAdam's running product.

    Args:
        state: State just loaded, changed in place.
        param_groups: Groups of the optimizer that loaded it.
        saved: The state dict it was loaded from.
    """
    saved_ids = chain.from_iterable(group["params"] for group in saved["param_groups"])
    params = chain.from_iterable(group["params"] for group in param_groups)
    for saved_id, param in zip(saved_ids, params, strict=True):
        for key, value in saved["state"].get(saved_id, {}).items():
            if isinstance(value, Tensor) and value.dim() == 0:
                state[param][key] = value.detach().to(state[param][key].device, copy=True)


def check_options_fit(saved: dict[str, Any]) -> None:
    """Refuse options that this library would refuse in a constructor; numbers of ours become floats.

    Raises:
        CheckpointError: An option is out of range, for example maximize=True.
    """
    for index, group in enumerate(saved["param_groups"]):
        try:
            check_group(group)
        except ArgumentError as e:
            raise CheckpointError(f"group {index} of the state dict cannot be trained with: {e}") from e


def check_state_fits(base: Optimizer, live_groups: Sequence[dict[str, Any]], saved: dict[str, Any]) -> None:
    """Refuse the state of another optimizer before the base optimizer trips over what it lacks.

    Args:
        base: The base optimizer that is to go on from it.
        live_groups: Its groups.
        saved: State dict of the present format.

    Raises:
        CheckpointError: The state of a parameter lacks what `base` keeps, or is that of another SAM.
    """
    for group, live in zip(saved["param_groups"], live_groups, strict=True):
        pairs = zip(group["params"], live["params"], strict=False)
        found = [(saved["state"][i], param) for i, param in pairs if saved["state"].get(i)]
        if not found:
            continue
        expected = _state_keys(base, group, min((param for _, param in found), key=lambda param: param.numel()))
        for state, _ in found:
            if expected - state.keys() or _FOREIGN_STATE & state.keys():
                raise CheckpointError(
                    f"the state dict keeps {sorted(map(str, state))} for a parameter, {type(base).__name__} keeps "
                    f"{sorted(map(str, expected))}: it is another optimizer's (a wrapper that saves its own state "
                    "has not saved its base optimizer's)"
                )


def _state_keys(base: Optimizer, group: dict[str, Any], param: Tensor) -> set[str]:
    """Return the names under which `base` keeps state for `param`: as it does, or as it would after one step.

    A twin of `base` takes that step, on zeros of the same shape.
    """
    if base.state.get(param):
        return set(base.state[param])
    stand_in = torch.zeros_like(param, requires_grad=True)
    stand_in.grad = torch.zeros_like(param)
    twin = object.__new__(type(base))
    without: dict[str, Any] = {"_optimizer_step_pre_hooks": OrderedDict(), "_optimizer_step_post_hooks": OrderedDict()}
    twin.__dict__ |= {**base.__dict__, **without, "state": defaultdict(dict)}
    twin.param_groups = [{**group, "params": [stand_in]}]
    try:
        twin.step()
    except Exception:  # somebody else's optimizer on a stand-in: whatever ails it, its own step will say
        return set()
    return set(twin.state[stand_in])


def format_of(state_dict: dict[str, Any]) -> int:
    """Return the format number of a state dict.

    Raises:
        CheckpointError: It is not a state dict of an optimizer.
    """
    if "state" not in state_dict or "param_groups" not in state_dict:
        raise CheckpointError(f"not an optimizer's state dict: keys are {sorted(map(str, state_dict))}")
    if _FORMAT_1_ENTRY in state_dict:
        return int(state_dict[_FORMAT_1_ENTRY]["format_version"])
    return max((int(group.get("format_version", 0)) for group in state_dict["param_groups"]), default=0)
