"""Whether the GPUs that a node announces work, found out by a rank process that is used for nothing else afterwards."""

import os
from pathlib import Path

import torch

from xsam.services.cluster.traits import BYTES_PER_GB
from xsam.workers.messages import DeviceFinding
from xsam.workers.training.gpu_readings import read_gpus

_DEVICES = "CUDA_VISIBLE_DEVICES"
_HINT = "XSAM_TRAINING__DEVICE=cpu trains on GPUs that are only announced"
_IN_USE = ("out of memory", "busy or unavailable")
"""What a GPU answers that works and that others have to the full."""


def check(num_announced: int) -> DeviceFinding:
    """Return why jobs could not train on this node's GPUs, if they could not, and how much memory those have.

    Args:
        num_announced: GPUs that Ray gives out here.
    """
    total = min((reading.total_bytes for reading in read_gpus()), default=0)
    return DeviceFinding(_find_fault(num_announced), total / BYTES_PER_GB)


def _find_fault(num_announced: int) -> str | None:
    _see_all()
    if torch.version.cuda is None and torch.version.hip is None:
        return f"it announces {num_announced} GPUs, but its torch {torch.__version__} is built for CPUs; {_HINT}"
    num_seen = torch.cuda.device_count()
    if num_seen < num_announced:
        return f"it announces {num_announced} GPUs, of which torch sees {num_seen}; {_HINT}"
    for number in range(num_announced):
        fault = _fault_of(torch.device("cuda", number))
        if fault is not None:
            return f"its GPU {number} does not work: {fault}"
    return None


def _see_all() -> None:
    """Undo Ray's own setting, which hides all GPUs from a process that asked for none."""
    started_with = Path("/proc/self/environ").read_text("utf-8", "replace").split("\0")
    some = next((entry.partition("=")[2] for entry in started_with if entry.startswith(f"{_DEVICES}=")), "")
    os.environ.pop(_DEVICES, None)
    if some:
        os.environ[_DEVICES] = some  # the node was started with a part of the machine


def _fault_of(device: torch.device) -> str | None:
    try:
        total = torch.ones(8, device=device).sum().item()
    except Exception as e:  # whatever a driver raises is what is wrong with it
        lines = str(e).strip().splitlines() or [type(e).__name__]
        return None if any(words in lines[0].lower() for words in _IN_USE) else lines[0]
    return None if total == 8 else f"the sum of eight ones is {total}"
