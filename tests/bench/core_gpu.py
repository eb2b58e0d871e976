"""Figure 5: step time, memory and host synchronisation on a CUDA device, in fp32, bf16 and fp16."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from tests.bench.core_models import CASES, Rig
from tests.bench.core_timing import interleaved_seconds, table

RESNET = CASES[0]
# CUDA runtime calls that make the host wait for the device.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def count_waits(step: Callable[[], object]) -> int:
    """Return how often the host waits for the device during one step."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        step()
    # The profiler itself synchronises once when it stops.
    return sum(event.count for event in trace.key_averages() if event.key in WAITS) - 1


def peak_bytes(step: Callable[[], object]) -> int:
    """Return the allocator's peak during one step."""
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def report() -> None:
    """Print the table, or that there is nothing to measure on."""
    if not torch.cuda.is_available():
        print("\n### 5. On a GPU\n\nno CUDA device here")
        return
    rows = []
    for name, dtype in (("fp32", None), ("bf16 autocast", torch.bfloat16), ("fp16 + GradScaler", torch.float16)):
        rig = Rig(RESNET, "cuda", dtype)
        optimizer = rig.xsam()
        scaler = torch.amp.GradScaler("cuda") if dtype is torch.float16 else None

        def step(search: bool = False, rig: Rig = rig, optimizer=optimizer, scaler=scaler) -> None:
            optimizer.step(rig.loss, search_alpha=search, grad_scaler=scaler)
            if scaler is not None:
                scaler.update()

        seconds = interleaved_seconds({"ideal": rig.ideal_step, "xsam": step}, rounds=50, device="cuda")
        model_bytes = sum(p.numel() * p.element_size() for p in rig.model.parameters())
        base_peak = peak_bytes(rig.ideal_step)
        rows.append(
            (
                name,
                seconds["xsam"] / seconds["ideal"],
                (peak_bytes(step) - base_peak) / model_bytes,
                (peak_bytes(lambda step=step: step(search=True)) - base_peak) / model_bytes,
                count_waits(step),
            )
        )
    table(
        f"5. On {torch.cuda.get_device_name()}: {RESNET.name}",
        ("precision", "step time / ideal", "extra model copies", "in a step with search", "host waits in a step"),
        rows,
    )
