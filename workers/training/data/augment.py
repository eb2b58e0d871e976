"""The paper's augmentation on whole batches: crop, flip and cutout from numbers drawn per example and epoch.

The numbers of an epoch are one table, a row for each example, so an example looks the same in an epoch
whatever rank, batch or loader process it falls to, and whether or not the run was interrupted before it.
"""

import torch
from torch import Tensor

from xsam.workers.training.random_state import generator_for

CROP_PADDING_DIVISOR = 8
"""Pad by an eighth of the side: 4 pixels for 32-pixel images, as usual for CIFAR (arXiv 1512.03385, 4.2)."""
CUTOUT_DIVISOR = 2
"""The square's side is half of the image's: 16 pixels for CIFAR-10 (arXiv 1708.04552, 4.1)."""
_NUM_DRAWS = 5
_CROP_Y, _CROP_X, _FLIP, _CUTOUT_Y, _CUTOUT_X = range(_NUM_DRAWS)


class Augmentation:
    """Applies the named steps, always in the order crop, flip, cutout.

    Args:
        names: any of "crop", "flip", "cutout".
        seed: the job's seed.
    """

    def __init__(self, names: tuple[str, ...], seed: int) -> None:
        self._names = frozenset(names)
        self._seed = seed

    def draws(self, epoch: int, num_examples: int) -> Tensor | None:
        """Return the epoch's random numbers, `(num_examples, 5)` float32 in [0, 1) on the CPU, or None."""
        if not self._names:
            return None
        return torch.rand(num_examples, _NUM_DRAWS, generator=generator_for(self._seed, "augment", epoch))

    def move(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crop and flip raw pixels, `(n, c, side, side)`; a crop's padding is 0, that is black."""
        if not self._names & {"crop", "flip"}:
            return images
        side = images.shape[-1]
        steps = torch.arange(side, device=images.device)
        rows = steps.expand(len(images), side)
        columns = rows
        if "flip" in self._names:
            is_flipped = (draws[:, _FLIP] < 0.5).unsqueeze(1)
            columns = torch.where(is_flipped, side - 1 - columns, columns)
        if "crop" in self._names:
            padding = max(side // CROP_PADDING_DIVISOR, 1)
            images = torch.nn.functional.pad(images, (padding,) * 4)
            offsets = (draws[:, [_CROP_Y, _CROP_X]] * (2 * padding + 1)).long()
            rows = rows + offsets[:, :1]
            columns = columns + offsets[:, 1:]
        examples = torch.arange(len(images), device=images.device)[:, None, None]
        # Advanced indices around a slice put the channels last.
        return images[examples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def cut_out(self, images: Tensor, draws: Tensor) -> Tensor:
        """Set a square of normalised pixels to 0, the mean colour; squares over the edge are clipped."""
        if "cutout" not in self._names:
            return images
        side = images.shape[-1]
        length = max(side // CUTOUT_DIVISOR, 1)
        centres = (draws[:, [_CUTOUT_Y, _CUTOUT_X]] * side).long()
        steps = torch.arange(side, device=images.device)
        starts = centres - length // 2
        is_inside = (steps >= starts[:, :, None]) & (steps < starts[:, :, None] + length)
        is_cut = is_inside[:, 0, :, None] & is_inside[:, 1, None, :]
        return images.masked_fill(is_cut.unsqueeze(1), 0.0)
