"""Figures 1b and 3a and Proposition 1: what has a known answer, on a function of two parameters and on quadratics."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from xsam.services.lab.figures.figure import Evidence, Figure
from xsam.services.lab.finding import Finding, Heat, Panel, Series, estimate, is_above, told
from xsam.services.lab.spec import LabSpec, Stage

NUM_STARTS = 20
NUM_PATHS = 10
"""Starts of the paths, which take a hundred times as long."""
ASCENT_STEPS = (1, 2, 3, 5, 7, 10)
_RHO, _RHO_MAX = 0.6, 1.2
_SHOWN = 4
"""Paths that are drawn."""
DIRECTIONS = {"g_k (SAM)": "gradient", "theta_k - theta_0": "displacement", "v(alpha*) (XSAM)": "chosen"}
DIRECTION_CLAIM = "On a function of two parameters g_2 is a worse direction at theta_0 than g_1."
PATH_CLAIM = "On a function of two parameters XSAM ends in the flat minimum from more starts than SAM."


def _plan_directions(spec: LabSpec) -> list[Stage]:
    told_: dict[str, Any] = {"name": "ascent_quality", "rho": _RHO, "rho_max": _RHO_MAX, "num_starts": NUM_STARTS}
    return [Stage(name="quality", kind="computation", document={**told_, "ascent_steps": list(ASCENT_STEPS)})]


def _find_directions(spec: LabSpec, evidence: Mapping[str, Evidence]) -> Finding:
    rows: Sequence[Mapping[str, Any]] = evidence["quality"].computed["rows"]

    def of(direction: str, num_steps: int) -> dict[int, float]:
        return {row["start"]: row[direction] for row in rows if row["ascent_steps"] == num_steps}

    def difference(name: str, first: Mapping[int, float], second: Mapping[int, float]) -> Any:
        return estimate(name, [first[start] - second[start] for start in sorted(first)])

    decisive = difference("g_1 - g_2 over starts", of("gradient", 1), of("gradient", 2))
    last = ASCENT_STEPS[-1]
    others = [
        difference(f"g_1 - g_{last} over starts", of("gradient", 1), of("gradient", last)),
        difference("v(alpha*) - g_k at k = 5 over starts", of("chosen", 5), of("gradient", 5)),
    ]
    series = []
    for title, direction in DIRECTIONS.items():
        means = [(float(k), estimate("", list(of(direction, k).values()))) for k in ASCENT_STEPS]
        band = [(y.low if y.low is not None else y.value, y.high if y.high is not None else y.value) for _, y in means]
        series.append(Series(name=title, points=[(x, y.value) for x, y in means], band=band))
    return Finding(
        verdict=is_above(decisive),
        claim=DIRECTION_CLAIM,
        caption=(
            f"How much of the largest rise of the loss at rho_max = {_RHO_MAX:g} each direction finds after k ascent "
            f"steps that share rho = {_RHO:g}; mean and 95 % interval of {NUM_STARTS} starts on a loss with a sharp "
            f"and a flat basin. g_1 is ahead of g_2 by {told(decisive)}, of g_{last} by {told(others[0])}; at k = 5 "
            f"v(alpha*) is ahead of g_5 by {told(others[1])}."
        ),
        estimates=[decisive, *others],
        panels=[Panel(title="quality at theta_0", x_label="k", y_label="share of the largest rise", series=series)],
        columns=["start", "x", "y", "k", *DIRECTIONS.values(), "alpha"],
        rows=[
            [row[name] for name in ("start", "x", "y", "ascent_steps", *DIRECTIONS.values(), "alpha")] for row in rows
        ],
    )


def _plan_paths(spec: LabSpec) -> list[Stage]:
    document: dict[str, Any] = {"name": "trajectories", "rho": _RHO, "rho_max": _RHO_MAX, "lr": 0.1, "num_steps": 100}
    return [Stage(name="paths", kind="computation", document={**document, "num_starts": NUM_PATHS})]


def _find_paths(spec: LabSpec, evidence: Mapping[str, Evidence]) -> Finding:
    computed = evidence["paths"].computed
    ends: Sequence[Mapping[str, Any]] = computed["ends"]

    def flat_of(variant: str) -> dict[int, float]:
        own: dict[int, list[float]] = {}
        for end in ends:
            if end["method"].startswith(f"{variant},"):
                own.setdefault(end["start"], []).append(float(end["is_flat"]))
        return {start: statistics.fmean(values) for start, values in own.items()}

    sam, xsam = flat_of("SAM"), flat_of("XSAM")
    decisive = estimate("XSAM - SAM over starts", [xsam[start] - sam[start] for start in sorted(sam)])
    shares = {
        name: statistics.fmean(float(end["is_flat"]) for end in ends if end["method"] == name)
        for name in dict.fromkeys(end["method"] for end in ends)
    }
    panels = [
        Panel(
            title=f"start {start}",
            x_label="x",
            y_label="y",
            heat=Heat.model_validate(computed["surface"]),
            series=[
                Series(name=path["method"], points=path["points"], has_marks=False)
                for path in computed["paths"]
                if path["start"] == start
            ],
            is_square=True,
        )
        for start in range(_SHOWN)
    ]
    reached = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Finding(
        verdict=is_above(decisive),
        claim=PATH_CLAIM,
        caption=(
            f"Ways of the methods on a loss with a sharp basin on the left and a flat one on the right, rho {_RHO:g}, "
            f"rho_max {_RHO_MAX:g}; {_SHOWN} of {NUM_PATHS} starts. Share that ends in the flat basin: {reached}. "
            f"XSAM against SAM, over k = 1, 2, 5: {told(decisive)}."
        ),
        estimates=[decisive],
        panels=panels,
        columns=["start", "method", "x", "y", "is_flat"],
        rows=[[end[name] for name in ("start", "method", "x", "y", "is_flat")] for end in ends],
    )


FIGURES = {
    "1b": Figure("Directions after k ascent steps", DIRECTION_CLAIM, _plan_directions, _find_directions),
    "3a": Figure("Ways on a function of two parameters", PATH_CLAIM, _plan_paths, _find_paths),
}
