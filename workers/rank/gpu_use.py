"""Measures what a rank's GPUs do, beside the run: by `nvidia-smi`, from a thread."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from xsam.workers.messages import GpuUse
from xsam.workers.training.gpu_readings import GpuReading, of_devices, read_gpus

FIRST_AFTER_S = 3.0
INTERVAL_S = 15.0


@contextlib.contextmanager
def measured(
    rank: int,
    visible_devices: str,
    report: Callable[[GpuUse], object],
    *,
    read: Callable[[], Sequence[GpuReading]] = read_gpus,
) -> Iterator[None]:
    """Measure while the block runs; where nobody can tell, nothing is reported.

    Args:
        rank: whose they are.
        visible_devices: a value of CUDA_VISIBLE_DEVICES; empty measures nothing.
        report: takes each measurement, from the thread; must not wait.
        read: asks for the readings of all of the node's GPUs.
    """
    if not visible_devices:
        yield
        return
    stopped = threading.Event()

    def watch() -> None:
        pause_s = FIRST_AFTER_S
        while not stopped.wait(pause_s):
            pause_s = INTERVAL_S
            use = use_of(rank, of_devices(read(), visible_devices))
            if use is not None and not stopped.is_set():
                report(use)

    threading.Thread(target=watch, name="gpu use", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def use_of(rank: int, readings: Sequence[GpuReading]) -> GpuUse | None:
    """Return what these GPUs of a rank do together; None where there are none."""
    if not readings:
        return None
    return GpuUse(
        rank=rank,
        utilization=sum(one.utilization for one in readings) / len(readings),
        busiest=max(one.utilization for one in readings),
        used_bytes=sum(one.used_bytes for one in readings),
        total_bytes=sum(one.total_bytes for one in readings),
    )
