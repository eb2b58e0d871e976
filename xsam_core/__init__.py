"""The SAM family of optimizers for PyTorch."""

from xsam_core.types import AlphaCurve, StepTelemetry
from xsam_core.variants import SAM, XSAM

__all__ = ["SAM", "XSAM", "AlphaCurve", "StepTelemetry"]
