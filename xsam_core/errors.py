"""Every error xsam_core raises on purpose, so that a caller can catch one kind and let the rest through."""

from __future__ import annotations


class ArgumentError(ValueError):
    """An option has a value the optimizer cannot work with; the message names it and what is allowed."""


class CheckpointError(ValueError):
    """A state dict cannot be loaded: a newer format, or one that does not fit this optimizer."""


class StepError(RuntimeError):
    """A step could not be finished; the parameters are where they were before it."""


class ClosureError(StepError):
    """The closure is missing, or returned something that is no scalar loss with a graph."""


class NonFiniteError(StepError):
    """A loss or a gradient was NaN or infinite.

    Attributes:
        step: Number of the step, counted from 0.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message, step)
        self.message = message
        self.step = step

    def __str__(self) -> str:
        return self.message


class SparseGradientError(StepError):
    """A gradient is sparse; norms and directions over all parameters need dense ones."""


class ReplicaDriftError(StepError):
    """Ranks that must hold the same parameters do not.

    Attributes:
        step: Number of the step after which the difference was seen, counted from 0.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message, step)
        self.message = message
        self.step = step

    def __str__(self) -> str:
        return self.message
