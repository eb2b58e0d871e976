"""How the learning rate moves over a run: a pure factor of the base rate, evaluated at every step."""

import math
from typing import Annotated, Literal

from pydantic import Field

from xsam.services.specs.base import Spec


class _Schedule(Spec):
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Epochs of linear warm-up from zero; the schedule proper starts after them."""

    def factor(self, epoch: float, epochs: int) -> float:
        """Return lr / base lr at a point of the run.

        Args:
            epoch: epochs done so far, fractions included, from 0 to `epochs`.
            epochs: length of the whole run.
        """
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        return self._after_warmup(epoch - self.warmup_epochs, max(epochs - self.warmup_epochs, 1e-9))

    def _after_warmup(self, epoch: float, epochs: float) -> float:
        return 1.0


class ConstantSchedule(_Schedule):
    """The base rate throughout."""

    name: Literal["constant"] = "constant"


class CosineSchedule(_Schedule):
    """Half a cosine from the base rate down to `final_factor` of it (arXiv 1608.03983, without restarts)."""

    name: Literal["cosine"] = "cosine"
    final_factor: Annotated[float, Field(ge=0, le=1)] = 0.0

    def _after_warmup(self, epoch: float, epochs: float) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1.0)))
        return self.final_factor + (1 - self.final_factor) * cosine


class StepSchedule(_Schedule):
    """Multiply by `gamma` at each milestone, counted in epochs from the start of the run."""

    name: Literal["step"] = "step"
    milestones: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=100)]
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    def _after_warmup(self, epoch: float, epochs: float) -> float:
        passed = sum(1 for milestone in self.milestones if epoch + self.warmup_epochs >= milestone)
        return float(self.gamma**passed)


class LinearSchedule(_Schedule):
    """A straight line from the base rate down to `final_factor` of it."""

    name: Literal["linear"] = "linear"
    final_factor: Annotated[float, Field(ge=0, le=1)] = 0.0

    def _after_warmup(self, epoch: float, epochs: float) -> float:
        return 1.0 - (1.0 - self.final_factor) * min(epoch / epochs, 1.0)


class OneCycleSchedule(Spec):
    """Half a cosine up to the base rate and a longer one down, far below the start (arXiv 1708.07120)."""

    name: Literal["one_cycle"] = "one_cycle"
    peak_at: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the run after which the base rate is reached."""
    start_factor: Annotated[float, Field(gt=0, le=1)] = 0.04
    """Rate of the first step, of the base rate."""
    final_factor: Annotated[float, Field(ge=0, le=1)] = 4e-6
    """Rate at the end, of the base rate."""

    def factor(self, epoch: float, epochs: int) -> float:
        """Return lr / base lr at a point of the run; see `_Schedule.factor`."""
        done = min(epoch / epochs, 1.0)
        if done < self.peak_at:
            return _on_cosine(self.start_factor, 1.0, done / self.peak_at)
        return _on_cosine(1.0, self.final_factor, (done - self.peak_at) / (1.0 - self.peak_at))


def _on_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


Schedule = Annotated[
    ConstantSchedule | LinearSchedule | CosineSchedule | StepSchedule | OneCycleSchedule,
    Field(discriminator="name"),
]
