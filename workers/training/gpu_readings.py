"""What `nvidia-smi` says of this node's GPUs. No torch: asking CUDA would make the asking process hold memory there."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_COMMAND = "nvidia-smi"
_FIELDS = ("index", "uuid", "utilization.gpu", "memory.used", "memory.total")
_MIB = 2**20
ANSWER_WITHIN_S = 10.0
"""A driver that hangs answers nothing."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment."""

    index: int
    uuid: str
    utilization: float
    """Part of the last moments in which anything ran on it, 0 to 1."""
    used_bytes: int
    """Of its memory, by whatever process."""
    total_bytes: int


def read_gpus() -> Sequence[GpuReading]:
    """Return all GPUs of the node; none where there is no `nvidia-smi`, or where it fails or does not answer in time.

    GPUs that do not tell all of it, such as slices of one, are left out.
    """
    command = shutil.which(_COMMAND)
    if command is None:
        return []
    query = [command, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_WITHIN_S, check=True)  # noqa: S603 - our own words
    except (OSError, subprocess.SubprocessError):
        return []
    return [reading for line in answer.stdout.splitlines() if (reading := _parsed(line)) is not None]


def of_devices(readings: Sequence[GpuReading], visible: str) -> Sequence[GpuReading]:
    """Return those that a value of CUDA_VISIBLE_DEVICES names, by index or by the beginning of a UUID."""
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return [one for one in readings if any(name == str(one.index) or _is_of(name, one.uuid) for name in names)]


def _is_of(name: str, uuid: str) -> bool:
    return name.startswith("GPU-") and uuid.startswith(name)


def _parsed(line: str) -> GpuReading | None:
    index, uuid, utilization, used_mib, total_mib = (part.strip() for part in (line.split(",") + [""] * 5)[:5])
    try:
        return GpuReading(int(index), uuid, int(utilization) / 100, int(used_mib) * _MIB, int(total_mib) * _MIB)
    except ValueError:
        return None
