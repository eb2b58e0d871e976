"""Random numbers: streams that depend on what they are for, never on how many were drawn before, and a rank's states.

The states of the global generators belong to one rank alone and must survive an interruption.
"""

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xsam.workers.messages import RankContext


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a 63-bit seed for one purpose, e.g. `derive_seed(seed, "order", epoch)`."""
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_for(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """Return a CPU generator for one purpose: the same numbers on every rank and every device."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *numbers))


def epoch_order(num_examples: int, seed: int, epoch: int) -> Tensor:
    """Return the shuffled example indices of one epoch, `(num_examples,)` int64, the same on every rank."""
    return torch.randperm(num_examples, generator=generator_for(seed, "order", epoch))


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


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
