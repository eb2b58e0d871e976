"""Mixup and cutmix of whole batches, from numbers that depend on the position in the run alone."""

import numpy as np
import torch
from torch import Tensor

from xsam.workers.training.random_state import derive_seed


class Mixing:
    """Mixes each batch with itself in another order.

    Args:
        mixup: Beta's parameter for mixup; 0 does none.
        cutmix: likewise for cutmix; with both, each batch gets one of them at even odds.
        seed: the job's seed.
    """

    def __init__(self, mixup: float, cutmix: float, seed: int) -> None:
        self._mixup, self._cutmix = mixup, cutmix
        self._seed = seed

    @property
    def is_on(self) -> bool:
        """Whether batches are mixed at all."""
        return bool(self._mixup or self._cutmix)

    def mix(self, images: Tensor, labels: Tensor, *position: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the mixed images, their labels, the partners' labels, and each image's own share.

        Args:
            images: `(n, channels, side, side)`.
            labels: `(n,)`.
            position: epoch, step and rank, which fix what is drawn.
        """
        draw = np.random.default_rng(derive_seed(self._seed, "mixing", *position))
        partners = torch.from_numpy(draw.permutation(len(images))).to(images.device)
        is_cut = self._cutmix > 0 and (not self._mixup or draw.random() < 0.5)
        share = float(draw.beta(self._cutmix, self._cutmix) if is_cut else draw.beta(self._mixup, self._mixup))
        if is_cut:
            images, share = _pasted(images, images[partners], share, draw.random(2))
        else:
            images = torch.lerp(images[partners], images, share)
        return images, labels, labels[partners], torch.full(labels.shape, share, device=images.device)


def _pasted(images: Tensor, others: Tensor, share: float, centre: np.ndarray) -> tuple[Tensor, float]:
    """Put a rectangle of the others in, clipped at the edge; return also what share is left."""
    side = images.shape[-1]
    length = side * (1 - share) ** 0.5
    top, left = (int(max(0, round(side * at - length / 2))) for at in centre)
    bottom, right = (int(min(side, round(side * at + length / 2))) for at in centre)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / side**2
