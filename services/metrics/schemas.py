"""What the doors show of measurements."""

from xsam.services.schemas import Read


class EpochRead(Read):
    """One finished epoch. Losses are means over examples; accuracies are shares in [0, 1]."""

    epoch: int
    """Counted from 1."""
    attempt: int
    step: int
    """Training steps done since the start of the run."""
    train_loss: float
    train_accuracy: float
    eval_loss: float
    eval_accuracy: float
    lr: float
    epoch_s: float
    samples_per_s: float
    grad_evals: int
    """Forward-backward passes since the start of the run."""
    probe_forwards: int
    """Forward passes spent on alpha searches since the start of the run."""


class AlphaRead(Read):
    """One search for alpha*: the probe curve L(theta_0 + rho_max v(alpha)) and its maximum."""

    epoch: int
    step: int
    alpha: float
    angle_rad: float
    """Angle between v0 and v1."""
    alphas: list[float]
    losses: list[float]
    """Mean over ranks, one per entry of `alphas`."""


class MetricsRead(Read):
    """The job's epochs, in order."""

    items: list[EpochRead]


class AlphasRead(Read):
    """The job's alpha estimates, in order."""

    items: list[AlphaRead]
