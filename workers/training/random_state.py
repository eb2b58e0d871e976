"""What belongs to one rank alone and must survive an interruption: its random states."""

import random
from typing import Any

import numpy as np
import torch

from xsam.workers.training.context import RankContext


def random_states(context: RankContext) -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's generators, in types that load with weights only."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.device(context.device).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(context.device)
    return states


def restore_random_states(states: dict[str, Any], context: RankContext) -> None:
    """Set every generator to where it was."""
    random.setstate(states["python"])
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if torch.device(context.device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], context.device)
