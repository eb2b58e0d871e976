"""Figure 7 of bench-core: a loss plane against the bare passes that it needs."""

from __future__ import annotations

import torch

from tests.bench.core_models import Case, Rig
from tests.bench.core_timing import interleaved_seconds, table
from xsam_core import loss_plane
from xsam_core.batch_norm import frozen_running_stats

# A small grid costs as much a point as a large one, more if anything: its rows are shorter.
NUM_POINTS = 5


def report(cases: tuple[Case, ...]) -> None:
    """Print the table."""
    rows = []
    for case in cases:
        rig, calls = Rig(case), 0

        def counted(rig: Rig = rig) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return rig.loss()

        def plane(rig: Rig = rig, closure=counted) -> None:
            loss_plane(rig.model, closure, rho=0.05, num_points=NUM_POINTS)

        plane()
        num_forwards = calls - 2

        def bare(rig: Rig = rig, num_forwards: int = num_forwards) -> None:
            params = list(rig.model.parameters())
            with frozen_running_stats(rig.model):
                for _ in range(2):
                    torch.autograd.grad(rig.loss(), params)
                with torch.no_grad():
                    for _ in range(num_forwards):
                        rig.loss().item()

        seconds = interleaved_seconds({"plane": plane, "bare": bare}, max(3, case.rounds // 4), warm_up=1)
        per_point = seconds["bare"] / calls * 1e3
        rows.append((case.name, calls, f"{per_point:.1f}", seconds["plane"] / seconds["bare"], "1.10"))
    table("7. Loss plane, against its passes alone", ("case", "passes", "ms a pass", "ratio", "target"), rows)
