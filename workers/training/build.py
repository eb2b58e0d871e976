"""Puts the parts of a run together: data feeds, the model with or without DDP, the optimizer."""

import inspect
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.training.data.feeds import Data, EvalFeed, TrainFeed
from xsam.workers.training.data.sources import prepare_data
from xsam.workers.training.errors import TooFewExamplesError
from xsam.workers.training.models import build_model
from xsam.workers.training.optimizers import build_optimizer
from xsam.workers.training.random_state import derive_seed
from xsam.workers.training.ranks import Ranks

_IS_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if _IS_RENAMED else "broadcast_buffers": False}
"""torch 2.14 renames the argument and warns of the old name."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What one rank trains with."""

    train_feed: TrainFeed
    eval_feed: EvalFeed
    model: nn.Module
    """The network itself, on the rank's device."""
    wrapped: nn.Module
    """What training forwards go through: DDP's wrapper where there are several ranks, else the network."""
    optimizer: torch.optim.Optimizer
    num_classes: int


def build_parts(spec: JobSpec, context: RankContext, ranks: Ranks) -> Parts:
    """Build everything from the specification; equal specifications give equal weights and data on every rank."""
    _prepare_process(context)
    data = prepare_data(spec.dataset, context, ranks, seed=spec.seed)
    _check_batch_size(spec, data)
    _seed_everything(derive_seed(spec.seed, "weights"))
    model = build_model(
        spec.model,
        context,
        image_size=data.image_size,
        channels=data.channels,
        num_classes=data.num_classes,
    ).to(context.device)
    wrapped = _with_ddp(model, context)
    parts = Parts(
        train_feed=TrainFeed(data, context, batch_size=spec.batch_size, augment=spec.dataset.augment, seed=spec.seed),
        eval_feed=EvalFeed(data, context, batch_size=spec.batch_size),
        model=model,
        wrapped=wrapped,
        optimizer=build_optimizer(spec.optimizer, wrapped),
        num_classes=data.num_classes,
    )
    # From here on random numbers are drawn by dropout alone, which each rank must draw for itself.
    _seed_everything(derive_seed(spec.seed, "rank", context.rank))
    return parts


def _prepare_process(context: RankContext) -> None:
    torch.set_num_threads(context.num_threads)
    if torch.device(context.device).type == "cuda":
        torch.cuda.set_device(context.device)
        # A resumed run must take the same kernels as one that was not interrupted.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _check_batch_size(spec: JobSpec, data: Data) -> None:
    available = len(data.train.labels)
    if available < spec.batch_size:
        raise TooFewExamplesError(
            f"batch_size is {spec.batch_size}, but dataset {spec.dataset.name} has {available} training examples; "
            "an epoch needs at least one whole batch"
        )


def _with_ddp(model: nn.Module, context: RankContext) -> nn.Module:
    if context.world_size == 1:
        return model
    is_cuda = torch.device(context.device).type == "cuda"
    # DDP would broadcast buffers before every forward pass. Training does not read BatchNorm's statistics,
    # so once before each evaluation is enough (see `loop`), and passes that only probe stay free of collectives.
    return DistributedDataParallel(model, device_ids=[context.device] if is_cuda else None, **_NO_BUFFER_SYNC)
