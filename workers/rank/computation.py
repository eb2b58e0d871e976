"""What figures of the lab need computed: directions and paths on a loss of two parameters whose answer is known."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from xsam_core import SAM, XSAM, ascent_quality, quadratic_rho_0, radius_profile, trajectory, two_basins
from xsam_core.surfaces import Point, is_in_flat_basin

_LOW, _HIGH = (-2.0, -1.2), (2.0, 1.2)
"""Corners of the part of the surface where starts are drawn."""
_KS = (1, 2, 5)
_GRID = (41, 25)
_DIMENSIONS = 8
_STEPS_TO_RHO_0 = 20
_TRAINING_STEPS = 100
_RADII = tuple(round(0.001 * 1.25**i, 6) for i in range(30))
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


def _proposition(*, num_quadratics: int, num_networks: int, rho: float) -> dict[str, Any]:
    return {
        "quadratics": [found for seed in range(num_quadratics) if (found := _quadratic(seed, rho)) is not None],
        "networks": [_network(seed, rho) for seed in range(num_networks)],
    }


def _quadratic(seed: int, rho: float) -> dict[str, float] | None:
    """Return where the losses of a random quadratic cross, found and in closed form; None where they never do."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(_DIMENSIONS, _DIMENSIONS, generator=generator, dtype=torch.float64)
    hessian = root @ root.T / _DIMENSIONS
    model = nn.Linear(_DIMENSIONS, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, _DIMENSIONS, generator=generator, dtype=torch.float64))
    rho_0 = quadratic_rho_0(hessian, hessian @ model.weight.detach()[0], rho=rho)
    if not rho_0:
        return None
    step = rho_0 / _STEPS_TO_RHO_0
    radii = [(i + 0.5) * step for i in range(2 * _STEPS_TO_RHO_0)]
    profile = radius_profile(model, lambda: (model.weight @ hessian @ model.weight.T).sum() / 2, rho=rho, radii=radii)
    return None if profile.crossing is None else {"rho_0": rho_0, "found": profile.crossing, "step": step}


def _network(seed: int, rho: float) -> dict[str, Any]:
    """Return the losses along g_0 and g_1 around the weights of a network that SGD has trained for a while."""
    torch.manual_seed(seed)
    inputs = torch.randn(128, 4)
    targets = inputs.prod(1, keepdim=True) + 0.1 * torch.randn(128, 1)
    network = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.9)

    def loss() -> Tensor:
        return (network(inputs) - targets).square().mean()

    for _ in range(_TRAINING_STEPS):
        optimizer.zero_grad()
        torch.autograd.backward(loss())
        optimizer.step()
    profile = radius_profile(network, loss, rho=rho, radii=_RADII)
    first, last = list(profile.first), list(profile.last)
    at_rest = {"loss": float(loss().detach()), "crossing": profile.crossing}
    return {**at_rest, "radii": list(profile.radii), "first": first, "last": last}


def _surface() -> dict[str, Any]:
    xs, ys = (torch.linspace(low, high, num) for low, high, num in zip(_LOW, _HIGH, _GRID, strict=True))
    across, up = torch.meshgrid(xs, ys, indexing="xy")
    values = two_basins(torch.stack([across, up], -1))
    return {"xs": xs.tolist(), "ys": ys.tolist(), "values": values.tolist()}


_COMPUTATIONS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "ascent_quality": _qualities,
    "trajectories": _trajectories,
    "proposition": _proposition,
}
