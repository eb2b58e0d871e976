"""What figures of the lab need computed: directions and paths on a loss of two parameters whose answer is known."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from xsam_core import SAM, XSAM, ascent_quality, trajectory, two_basins
from xsam_core.surfaces import Point, is_in_flat_basin

_LOW, _HIGH = (-2.0, -1.2), (2.0, 1.2)
"""Corners of the part of the surface where starts are drawn."""
_KS = (1, 2, 5)
_GRID = (41, 25)
_NUM_SHOWN = 4
_THINNED = 3
"""Every so many-th point of a path is drawn."""


def compute(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a computation finds, as plain values; the same document gives the same values.

    Args:
        document: its `name` and what it is told.
    """
    torch.set_num_threads(1)
    options = {name: value for name, value in document.items() if name != "name"}
    return _COMPUTATIONS[document["name"]](**options)


def _qualities(*, rho: float, rho_max: float, num_starts: int, ascent_steps: list[int]) -> dict[str, Any]:
    rows = []
    for number, start in enumerate(_starts(num_starts)):
        for found in ascent_quality(two_basins, start, rho=rho, rho_max=rho_max, ascent_steps=ascent_steps):
            rows.append({"start": number, "x": start[0], "y": start[1], **asdict(found)})
    return {"rows": rows}


def _trajectories(*, rho: float, rho_max: float, lr: float, num_steps: int, num_starts: int) -> dict[str, Any]:
    paths, ends = [], []
    for number, start in enumerate(_starts(num_starts)):
        for method, make in _methods(rho, rho_max, lr).items():
            path = trajectory(two_basins, start, make, num_steps=num_steps)
            x, y = path[-1]
            is_flat = is_in_flat_basin(path[-1])
            ends.append({"start": number, "method": method, "x": x, "y": y, "is_flat": is_flat})
            if number < _NUM_SHOWN:
                points = [[round(x, 4), round(y, 4)] for x, y in path[::_THINNED]]
                paths.append({"start": number, "method": method, "points": points})
    return {"paths": paths, "ends": ends, "surface": _surface()}


def _methods(rho: float, rho_max: float, lr: float) -> dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]]:
    made: dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]] = {"SGD": partial(SGD, lr=lr)}
    searched: dict[str, Any] = {"rho_max": rho_max, "alpha_every": 1, "alpha_search": "adaptive"}
    for k in _KS:
        ascent: dict[str, Any] = {"base_optimizer": SGD, "rho": rho, "ascent_steps": k, "lr": lr}
        made[f"SAM, k = {k}"] = partial(SAM, **ascent)
        made[f"XSAM, k = {k}"] = partial(XSAM, **ascent, **searched)
    return made


def _starts(number: int) -> list[Point]:
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(_LOW), torch.tensor(_HIGH)
    points = low + (high - low) * torch.rand(number, 2, generator=generator)
    return [(round(x, 4), round(y, 4)) for x, y in points.tolist()]


def _surface() -> dict[str, Any]:
    xs, ys = (torch.linspace(low, high, num) for low, high, num in zip(_LOW, _HIGH, _GRID, strict=True))
    across, up = torch.meshgrid(xs, ys, indexing="xy")
    values = two_basins(torch.stack([across, up], -1))
    return {"xs": xs.tolist(), "ys": ys.tolist(), "values": values.tolist()}


_COMPUTATIONS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "ascent_quality": _qualities,
    "trajectories": _trajectories,
}
