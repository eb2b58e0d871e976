"""Evaluation over all ranks, every example counted once."""

import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xsam.workers.messages import StopReason
from xsam.workers.sdk.sums import Collected, Sum
from xsam.workers.training.data.batches import EvalFeed
from xsam.workers.training.errors import TargetError
from xsam.workers.training.ranks import Ranks
from xsam.workers.training.stopping import StopSignal
from xsam.workers.training.tasks.running import RunningTask

log = logging.getLogger("training")

Measured = dict[str, float]
_T = TypeVar("_T")


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    task: RunningTask,
    feeds: Mapping[str, EvalFeed],
    ranks: Ranks,
    stop_signal: StopSignal,
    autocast: AbstractContextManager[object],
) -> Measured | StopReason:
    """Return every metric by name, the same on every rank; the second and further sets' as `set/name`.

    Returns:
        A reason to stop instead, if one came that is final; others wait for the end of the evaluation.

    Args:
        model: without DDP's wrapper; its buffers must be equal on all ranks.
        task: what to measure.
        feeds: this rank's shares, by the name of the set.
        ranks: the collectives.
        stop_signal: of evaluation batches.
        autocast: context of the forward passes, entered once per batch.

    Raises:
        TargetError: a set has no examples, or the task's metrics are unusable.
    """
    model.eval()
    device = next(model.parameters()).device
    found: Measured = {}
    for number, (set_name, feed) in enumerate(feeds.items()):
        totals = _Totals(device)
        stop_signal.start()
        for batch in feed.batches():
            if batch is not None:
                with autocast:
                    totals.add(task.evaluate(model, batch))
            reason, _ = stop_signal.check()
            if reason is not None and reason.is_final:
                return reason
        stop_signal.pause()
        measured = totals.over(ranks, task, set_name)
        found |= measured if number == 0 else {f"{set_name}/{name}": value for name, value in measured.items()}
    return found


class _Totals:
    """What one rank has measured of one set."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._collected: dict[str, list[Collected]] = {}

    def add(self, measured: Mapping[str, Sum | Collected]) -> None:
        """Take a batch."""
        for name, value in measured.items():
            if isinstance(value, Sum):
                if name not in self._sums:
                    self._sums[name] = torch.zeros(2, dtype=torch.float64, device=self._device)
                self._sums[name][0] += value.total
                self._sums[name][1] += value.weight
            else:
                on_cpu = Collected(value.prediction.cpu(), value.target.cpu())
                self._collected.setdefault(name, []).append(on_cpu)

    def over(self, ranks: Ranks, task: RunningTask, set_name: str) -> Measured:
        """Return the metrics over all ranks."""
        names = _of_all_ranks(ranks, (sorted(self._sums), sorted(self._collected)))
        found: Measured = {}
        sums = sorted({name for added, _ in names for name in added})
        if not sums:
            raise TargetError(f"evaluation set {set_name!r} has no examples")
        zero = torch.zeros(2, dtype=torch.float64, device=self._device)
        flat = ranks.sums(*[part for name in sums for part in self._sums.get(name, zero)])
        for number, name in enumerate(sums):
            total, weight = flat[2 * number], flat[2 * number + 1]
            found[name] = total / weight if weight else math.nan
        collected = sorted({name for _, kept in names for name in kept})
        if collected:
            found |= task.metrics(self._gathered(ranks, collected))
        return {name: value for name, value in found.items() if _is_kept(name, value)}

    def _gathered(self, ranks: Ranks, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
        own = {
            name: (torch.cat([c.prediction for c in parts]), torch.cat([c.target for c in parts]))
            for name, parts in self._collected.items()
        }
        of_ranks = [part for part in _of_all_ranks(ranks, own) if part]
        return {
            name: (torch.cat([part[name][0] for part in of_ranks]), torch.cat([part[name][1] for part in of_ranks]))
            for name in names
        }


def _is_kept(name: str, value: float) -> bool:
    """Return whether a value can be stored; the loss is looked at by the loop."""
    if math.isfinite(value) or name == "loss":
        return True
    log.warning("metric %s is %g in this epoch and is left out", name, value)
    return False


def _of_all_ranks(ranks: Ranks, value: _T) -> list[_T]:
    if ranks.world_size == 1:
        return [value]
    gathered: list[_T] = [value] * ranks.world_size
    dist.all_gather_object(gathered, value)
    return gathered
