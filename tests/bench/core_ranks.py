"""Figure 4: scope local against global on two gloo ranks: collectives, bytes and time of a step."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.bench.core_models import CASES, Rig
from tests.bench.core_timing import interleaved_seconds, table
from tests.xsam_core.ranks import on_ranks
from tests.xsam_core.traffic import Traffic

ASCENT_STEPS = (1, 3)
MLP = CASES[-1]
WORLD_SIZE = 2


def _measure() -> dict[tuple[str, int], dict[str, float]]:
    torch.manual_seed(dist.get_rank())
    results = {}
    for num_steps in ASCENT_STEPS:
        steps, optimizers = {}, {}
        for scope in ("global", "local"):
            rig = Rig(MLP)
            rig.model = DistributedDataParallel(rig.model)
            optimizer = rig.xsam(scope=scope, ascent_steps=num_steps, alpha=1.0)
            steps[scope] = lambda rig=rig, optimizer=optimizer: optimizer.step(rig.loss)
            optimizers[scope] = optimizer
        seconds = interleaved_seconds(steps, rounds=50, warm_up=5)
        for scope, step in steps.items():
            with Traffic() as traffic:
                step()
            results[scope, num_steps] = {
                "collectives": sum(len(sizes) for sizes in traffic.sizes.values()),
                "bytes": sum(traffic.num_bytes.values()),
                "seconds": seconds[scope],
            }
    return results


def report() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        first = on_ranks(_measure, Path(folder), WORLD_SIZE)[0]
    rows = []
    for (scope, num_steps), seen in first.items():
        against = first["global", num_steps]
        rows.append(
            (
                num_steps,
                scope,
                seen["collectives"],
                f"{seen['bytes']:,}",
                f"{seen['seconds'] * 1e3:.1f}",
                seen["seconds"] / against["seconds"],
            )
        )
    table(
        f"4. Scopes on 2 gloo ranks of one machine ({MLP.name} each)",
        ("k", "scope", "collectives per step", "bytes per step", "ms per step", "time against global"),
        rows,
    )
