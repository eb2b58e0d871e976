"""Runs a function on several gloo ranks in processes of their own and returns what each of them returned."""

import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT_S = 60


def _entry(rank: int, world_size: int, work: Callable[[], Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    try:
        torch.save(work(), Path(folder) / f"result_{rank}.pt")
    except Exception:
        (Path(folder) / f"error_{rank}.txt").write_text(traceback.format_exc())
        raise
    finally:
        dist.destroy_process_group()


def on_ranks(work: Callable[[], Any], folder: Path, world_size: int = 2) -> list[Any]:
    """Return what `work`, a module-level function, returns on each rank (tensors and plain containers)."""
    try:
        mp.start_processes(_entry, (world_size, work, str(folder)), nprocs=world_size, start_method="spawn")
    except mp.ProcessRaisedException as e:
        errors = "\n".join(path.read_text() for path in sorted(folder.glob("error_*.txt")))
        raise AssertionError(f"a rank failed:\n{errors or e}") from e
    return [torch.load(folder / f"result_{rank}.pt", weights_only=False) for rank in range(world_size)]
