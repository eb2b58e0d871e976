"""From an exception to the kind of failure and a message that a person can use."""

import errno

import torch

from xsam.services.jobs.states import FailureKind
from xsam.workers.isolation.team_user import IsolationError
from xsam.workers.training import errors

_DEVICE_LOST = (
    "no cuda-capable device",
    "cuda-capable device(s) is/are busy or unavailable",
    "cuda driver initialization failed",
    "cuda unknown error",
    "uncorrectable ecc error",
    "hardware stack error",
    "gpu is lost",
    "system not yet initialized",
)
_STORAGE_LOST = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.ESTALE,
        errno.ENODEV,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EFBIG,
    }
)
_NOT_WRITTEN = ("no space left on device", "disk quota exceeded", "file too large", "inline_container.cc")
"""As torch and safetensors tell of it, which know no OSError; the last names torch's file that finds a cut-off one."""
_PEER_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "read timeout", "socket timeout")


def classify(error: BaseException) -> tuple[FailureKind, str]:
    """Return why an attempt failed and what to tell people about it."""
    message = str(error).strip() or type(error).__name__
    if isinstance(error, errors.DivergenceError):
        return FailureKind.DIVERGED, message
    if isinstance(error, MemoryError | torch.OutOfMemoryError | errors.OutOfMemoryError):
        return FailureKind.OUT_OF_MEMORY, f"{message}; try a smaller batch_size, bf16, or more workers"
    is_lost = is_of_device(error) or is_of_storage(error) or is_echo(error)
    if isinstance(error, IsolationError | errors.CheckpointError | torch.distributed.DistError) or is_lost:
        return FailureKind.INFRASTRUCTURE, message
    if isinstance(error, errors.TrainingError):
        return FailureKind.USER, message
    return FailureKind.USER, f"{type(error).__name__}: {message}"


def is_of_device(error: BaseException) -> bool:
    """Return whether a GPU failed, not what ran on it; a kernel's own faults (an index out of range) are the job's."""
    text = str(error).lower()
    return isinstance(error, errors.DeviceError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _DEVICE_LOST)
    )


def is_of_storage(error: BaseException) -> bool:
    """Return whether a disk is full, gone or broken, whatever was to be written there."""
    if isinstance(error, OSError):
        return error.errno in _STORAGE_LOST
    return any(words in str(error).lower() for words in _NOT_WRITTEN)


def is_echo(error: BaseException) -> bool:
    """Return whether the error is what a rank sees when another one has died or failed."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _PEER_LOST)
