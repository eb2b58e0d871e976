"""Which training examples are used and what they are labelled: class-balanced subsets and label noise."""

import torch
from torch import Tensor

from xsam.workers.training.random_state import generator_for


def balanced_subset(labels: Tensor, size: int, seed: int) -> Tensor:
    """Return sorted indices of `size` examples, drawn so that class counts differ by one at most.

    Classes with too few examples give all they have, and the others fill up. The draw is fixed by the seed.
    """
    generator = generator_for(seed, "train_size")
    shuffled = torch.randperm(len(labels), generator=generator)
    tie_break = torch.randperm(len(labels), generator=generator)
    turn = torch.empty_like(shuffled)
    for label in torch.unique(labels):
        members = shuffled[labels[shuffled] == label]
        turn[members] = torch.arange(len(members))
    # Every class gives its first example, then every class its second, and so on.
    order = torch.argsort(turn * len(labels) + tie_break)
    return order[:size].sort().values


def with_label_noise(labels: Tensor, share: float, num_classes: int, seed: int) -> Tensor:
    """Return a copy in which `share` of the labels is redrawn uniformly over all classes, the true one included."""
    generator = generator_for(seed, "label_noise")
    chosen = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    noisy = labels.clone()
    noisy[chosen] = torch.randint(num_classes, (len(chosen),), generator=generator)
    return noisy
