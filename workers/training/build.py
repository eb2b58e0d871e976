"""Puts the parts of a run together: data feeds, the model with or without DDP, the optimizer."""

import inspect
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.training.data.batches import EvalFeed, TrainFeed
from xsam.workers.training.optimizers import build_optimizer
from xsam.workers.training.param_groups import arranged, freeze, frozen_norms
from xsam.workers.training.random_state import derive_seed, seed_everything
from xsam.workers.training.ranks import Ranks
from xsam.workers.training.tasks.image_classification import ImageClassification
from xsam.workers.training.tasks.own_task import OwnTask
from xsam.workers.training.tasks.running import RunningTask
from xsam.workers.training.weight_average import WeightAverage

_IS_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if _IS_RENAMED else "broadcast_buffers": False}
"""torch 2.14 renames the argument and warns of the old name."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What one rank trains with."""

    task: RunningTask
    train_feed: TrainFeed
    eval_feeds: dict[str, EvalFeed]
    model: nn.Module
    """The network itself, on the rank's device."""
    wrapped: nn.Module
    """What training forwards go through: the network in DDP's wrapper where there are several ranks, and compiled
    where the job says so."""
    optimizer: torch.optim.Optimizer
    scaler: GradScaler | None
    """Scales losses where the precision is fp16."""
    average: WeightAverage | None
    """The averaged weights where the recipe wants them."""
    frozen_norms: list[nn.Module]
    """Layers whose statistics stay as they are."""

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return self.model if self.average is None else self.average.model

    def train_mode(self) -> None:
        """Put the network into training mode, without what is frozen."""
        self.model.train()
        for module in self.frozen_norms:
            module.eval()


def build_parts(spec: JobSpec, context: RankContext, ranks: Ranks) -> Parts:
    """Build everything from the specification; equal specifications give equal weights and data on every rank."""
    _prepare_process(spec, context)
    task: RunningTask = OwnTask(spec, context) if spec.task is not None else ImageClassification(spec, context, ranks)
    seed_everything(derive_seed(spec.seed, "weights"))
    model = task.model()
    freeze(model, spec.parameters.freeze)
    model = model.to(context.device)
    if spec.speed.channels_last:
        model = model.to(memory_format=torch.channels_last)
    recipe, wrapped = spec.recipe, _with_ddp(model, context)
    if spec.speed.compile:
        wrapped = cast(nn.Module, torch.compile(wrapped))
    groups = arranged(task.param_groups(model), model, spec.parameters)
    parts = Parts(
        task=task,
        train_feed=task.train_feed(),
        eval_feeds=task.eval_feeds(),
        model=model,
        wrapped=wrapped,
        optimizer=build_optimizer(spec.optimizer, wrapped, groups, max_grad_norm=recipe.max_grad_norm),
        scaler=GradScaler(torch.device(context.device).type) if spec.precision == "fp16" else None,
        average=None if recipe.ema_decay is None else WeightAverage(model, recipe.ema_decay),
        frozen_norms=frozen_norms(model, spec.parameters.freeze),
    )
    # From here on random numbers are drawn by dropout alone, which each rank must draw for itself.
    seed_everything(derive_seed(spec.seed, "rank", context.rank))
    return parts


def _prepare_process(spec: JobSpec, context: RankContext) -> None:
    torch.set_num_threads(context.num_threads)
    if torch.device(context.device).type == "cuda":
        torch.cuda.set_device(context.device)
        torch.set_float32_matmul_precision("high" if spec.speed.tf32 else "highest")
        # A resumed run must take the same kernels as one that was not interrupted.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


def _with_ddp(model: nn.Module, context: RankContext) -> nn.Module:
    if context.world_size == 1:
        return model
    is_cuda = torch.device(context.device).type == "cuda"
    # DDP would broadcast buffers before every forward pass. Training does not read BatchNorm's statistics,
    # so once before each evaluation is enough (see `loop`), and passes that only probe stay free of collectives.
    return DistributedDataParallel(model, device_ids=[context.device] if is_cuda else None, **_NO_BUFFER_SYNC)
