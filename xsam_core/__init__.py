"""The SAM family of optimizers for PyTorch: SAM, ASAM, WSAM, GSAM, SGD+ and XSAM over any torch.optim optimizer."""

from xsam_core.batch_norm import frozen_running_stats
from xsam_core.errors import (
    ArgumentError,
    CheckpointError,
    ClosureError,
    NonFiniteError,
    ReplicaDriftError,
    SparseGradientError,
    StepError,
)
from xsam_core.landscape import LossPlane, RadiusProfile, loss_plane, radius_profile
from xsam_core.optimizer import SharpnessAware
from xsam_core.surfaces import AscentQuality, ascent_quality, quadratic_rho_0, trajectory, two_basins
from xsam_core.types import AlphaCurve, Closure, Closures, StepTelemetry
from xsam_core.variants import ASAM, GSAM, SAM, WSAM, SGDPlus
from xsam_core.xsam import XSAM

__all__ = [
    "ASAM",
    "GSAM",
    "SAM",
    "WSAM",
    "XSAM",
    "AlphaCurve",
    "ArgumentError",
    "AscentQuality",
    "CheckpointError",
    "Closure",
    "ClosureError",
    "Closures",
    "LossPlane",
    "NonFiniteError",
    "RadiusProfile",
    "ReplicaDriftError",
    "SGDPlus",
    "SharpnessAware",
    "SparseGradientError",
    "StepError",
    "StepTelemetry",
    "ascent_quality",
    "frozen_running_stats",
    "loss_plane",
    "quadratic_rho_0",
    "radius_profile",
    "trajectory",
    "two_basins",
]
