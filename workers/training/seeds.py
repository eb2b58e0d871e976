"""Random streams that depend on what they are for, never on how many numbers were drawn before."""

import hashlib

import torch
from torch import Tensor


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
