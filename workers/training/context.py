"""Where a run happens: what the caller knows of its process that the job's specification does not say."""

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class RankContext:
    """One rank's process. The process group is already initialised where `world_size` is above 1."""

    rank: int
    world_size: int
    device: torch.device | str
    dataset_root: Path | None
    """Folder below which every dataset that is read from files must lie; None where there is none."""
    checkpoint_dir: Path
    """The job's checkpoint folder, on storage that all ranks share; weights go to `weights` beside it."""
    allow_download: bool = False
    """Whether torchvision may download a missing dataset."""
    allowed_packages: tuple[str, ...] = ()
    """Top-level packages from which a `target` may be imported."""
    num_threads: int = 1
    """CPU threads for torch; image decoding gets as many processes less one.

    It decides the order in which floats are added up, so bit-equal runs need the same number.
    """
