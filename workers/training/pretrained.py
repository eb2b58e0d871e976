"""Pretrained weights out of the operator's model folder."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from xsam.workers.messages import RankContext
from xsam.workers.training.errors import UserSpecError

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_SHOWN_NAMES = 8
_UNIMPORTANT = "num_batches_tracked"
"""Old files lack it, and only BatchNorm without momentum reads it."""

log = logging.getLogger("training")


def load_pretrained(model: nn.Module, name: str, context: RankContext) -> None:
    """Overwrite a network's first weights with those of a file.

    Its first and its last layer keep theirs where shapes differ; everything else must fit.

    Raises:
        UserSpecError: there is no such file, it is none, or it is of another network.
    """
    tensors = _read(_path_of(name, context), name)
    own = model.state_dict()
    fitting = {key: tensor for key, tensor in tensors.items() if key in own and tensor.shape == own[key].shape}
    ends = _ends(model)
    left = [key for key in own if key not in fitting and not key.endswith(_UNIMPORTANT)]
    wrong = [key for key in left if not key.startswith(ends)]
    of_ends = {end.partition(".")[0] for end in ends}
    unknown = [key for key in tensors if key not in own and key.partition(".")[0] not in of_ends]
    if wrong or unknown:
        what = "; ".join([*_listed("no such shape for", wrong), *_listed("nothing to do with", unknown)])
        raise UserSpecError(f"model.weights {name} is of another network or image size: it has {what}")
    model.load_state_dict(fitting, strict=False)
    log.info("weights of %s; started anew: %s", name, ", ".join(left) or "nothing")


def _path_of(name: str, context: RankContext) -> Path:
    root = context.model_root
    path = None if root is None else root / name
    if root is None or path is None or not path.is_file():
        there = sorted(str(p.relative_to(root)) for p in root.rglob("*.*") if p.is_file()) if root else []
        shown = ", ".join(there[:_SHOWN_NAMES]) or "no file"
        raise UserSpecError(
            f"model.weights {name} is not in the model folder {root} (there: {shown}); "
            "the operator puts files there, or sets XSAM_TRAINING__MODEL_ROOT"
        )
    return path


def _read(path: Path, name: str) -> dict[str, Tensor]:
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as e:  # whatever the readers make of a damaged or foreign file
        raise UserSpecError(f"model.weights {name} can't be read as weights: {' '.join(str(e).split())[:300]}") from e
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserSpecError(f"model.weights {name} holds no tensors by name")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def _ends(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the first and the last layer, each with its dot."""
    layers = [path for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return tuple(f"{path}." for path in {layers[0], layers[-1]}) if layers else ()


def _listed(what: str, names: Iterable[str]) -> list[str]:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN_NAMES} more" if len(shown) > _SHOWN_NAMES else ""
    return [f"{what} {', '.join(shown[:_SHOWN_NAMES])}{more}"] if shown else []
