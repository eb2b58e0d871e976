"""Figure 1a: the loss around a point of training, and where on the circle of rho_max it is highest."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from xsam.services.lab.figures.figure import Evidence, Figure
from xsam.services.lab.finding import Arrow, Finding, Heat, Panel, Series, Verdict, estimate, is_above, told
from xsam.services.lab.scales import SCALES, job_of
from xsam.services.lab.spec import LabSpec, Stage
from xsam.services.metrics.records import PlaneRecord
from xsam.services.specs.plane import PlaneView

CLAIM = "Seen from theta_0, g_1 points closer to the maximum at rho_max than g_0 does, and v(alpha*) closer than g_1."
NUM_CHECKPOINTS = 4
"""Of a run of the scale's own."""
_SHOWN = 4
_JOB_STAGE = "plane"
_COLUMNS = ["run", "checkpoint", "epoch", "what", "x", "y", "loss"]


def _plan(spec: LabSpec) -> list[Stage]:
    """Return a job of SAM for each seed with a look at its checkpoints behind, or a look at a job that is there."""
    view = PlaneView().model_dump(mode="json")
    if spec.job is not None:
        return [Stage(name=_JOB_STAGE, kind="plane", document={"job": spec.job, **view})]
    job = job_of(spec, {"variant": "sam", "rho": SCALES[spec.scale].rho})
    every = -(-int(job.get("epochs", NUM_CHECKPOINTS)) // NUM_CHECKPOINTS)
    job["checkpoint"] = {**job["checkpoint"], "every_epochs": every, "keep_last": NUM_CHECKPOINTS}
    stages = []
    for seed in range(spec.seeds):
        stages.append(Stage(name=f"run-{seed}", kind="job", document={**job, "seed": seed}))
        stages.append(Stage(name=f"plane-{seed}", kind="plane", document=view, after=f"run-{seed}"))
    return stages


def _find(spec: LabSpec, evidence: Mapping[str, Evidence]) -> Finding:
    runs = {
        name: [plane for plane in one.planes if plane.found is not None]
        for name, one in evidence.items()
        if name.startswith("plane")
    }
    of = "checkpoints" if spec.job is not None else "seeds"
    # Checkpoints of one run resemble each other: a seed counts once.
    groups = [[plane] for plane in runs[_JOB_STAGE]] if spec.job is not None else [own for own in runs.values() if own]

    def over(name: str, measure: Any) -> Any:
        return estimate(f"{name} over {of}", [statistics.fmean(map(measure, group)) for group in groups])

    closer = over("degrees that g_1 is closer than g_0", lambda p: _degrees(p, "first") - _degrees(p, "last"))
    closest = over("degrees that v(alpha*) is closer than g_1", lambda p: _degrees(p, "last") - _degrees(p, "chosen"))
    rises = [
        over(f"share of the largest rise along {title}", lambda p, which=which: _rise(p, which))
        for title, which in (("g_0", "first"), ("g_1", "last"), ("v(alpha*)", "chosen"))
    ]
    shown = next((own for own in runs.values() if own), [])
    strip = _spread(shown)
    k = "g_1" if spec.job is None else "g_k"
    return Finding(
        verdict=_both(is_above(closer), is_above(closest)),
        claim=CLAIM,
        caption=(
            f"Loss of one training batch on the plane of g_0 (up) and what {k} has beside it (right) around theta_0, "
            f"{_where(strip)}; arrows of length rho {_found(strip[0])['rho']:g}, v(alpha*) to the circle of rho_max "
            f"{_found(strip[0])['rho_max']:g} with its maximum. The angle to that point is smaller for {k} than "
            f"for g_0 by {told(closer, unit=' degrees')}, for v(alpha*) than for {k} by "
            f"{told(closest, unit=' degrees')}. Of the largest rise on the circle g_0 finds {_share(rises[0].value)}, "
            f"{k} {_share(rises[1].value)}, v(alpha*) {_share(rises[2].value)}; alpha* is searched on this very loss."
            + ("" if spec.job is None or len(shown) > 1 else _KEEP_MORE)
        ),
        estimates=[closer, closest, *rises],
        panels=[_panel(plane) for plane in strip],
        columns=_COLUMNS,
        rows=[
            *(row for name, own in runs.items() for plane in own for row in _vectors(name, plane)),
            *(row for plane in strip for row in _grid(next(n for n, own in runs.items() if own is shown), plane)),
        ],
    )


_KEEP_MORE = (
    " The job has kept one checkpoint; with checkpoint.keep_last and checkpoint.every_epochs it keeps one of every few "
    "epochs."
)


def _both(first: Verdict, second: Verdict) -> Verdict:
    if Verdict.DOES_NOT in (first, second):
        return Verdict.DOES_NOT
    return Verdict.HOLDS if first is second is Verdict.HOLDS else Verdict.UNDECIDED


def _found(plane: PlaneRecord) -> Mapping[str, Any]:
    return plane.found or {}


def _degrees(plane: PlaneRecord, which: str) -> float:
    return math.degrees(_found(plane)[f"{which}_angle_rad"])


def _rise(plane: PlaneRecord, which: str) -> float:
    """Return the rise of the loss along a direction, as a share of the largest one on the circle."""
    found = _found(plane)
    largest = _highest(found) - found["origin_loss"]
    along = found[f"{which}_loss"]
    return 1.0 if largest <= 0 or along is None else (along - found["origin_loss"]) / largest


def _highest(found: Mapping[str, Any]) -> float:
    """Return the highest loss that was seen on the circle: a direction may lie between the angles looked at."""
    seen = [*found["circle"], *(found[f"{which}_loss"] for which in ("first", "last", "chosen"))]
    return float(max(loss for loss in seen if loss is not None))


def _share(value: float) -> str:
    return f"{value:.1%}"


def _spread(planes: Sequence[PlaneRecord]) -> list[PlaneRecord]:
    """Return some planes, the first and the last among them, evenly over training."""
    if len(planes) <= _SHOWN:
        return list(planes)
    return [planes[round(i * (len(planes) - 1) / (_SHOWN - 1))] for i in range(_SHOWN)]


def _where(strip: Sequence[PlaneRecord]) -> str:
    epochs = [str(plane.epoch) for plane in strip]
    return f"after epoch {epochs[0]}" if len(epochs) == 1 else f"after epochs {', '.join(epochs)}"


def _panel(plane: PlaneRecord) -> Panel:
    found = _found(plane)
    rho, radius, (x, y), (across, up) = found["rho"], found["rho_max"], found["last"], found["chosen"]
    return Panel(
        title=f"epoch {plane.epoch}, alpha* {found['alpha']:g}",
        x_label="beside g_0",
        y_label="along g_0",
        series=[Series(name="maximum", points=[tuple(found["highest"])])],
        heat=Heat(xs=found["xs"], ys=found["ys"], values=_finite(plane)),
        arrows=[
            Arrow(name="v(alpha*)", start=(0.0, 0.0), end=(radius * across, radius * up)),
            Arrow(name="g_0", start=(0.0, 0.0), end=(0.0, rho)),
            Arrow(name="g_1" if found.get("ascent_steps", 1) == 1 else "g_k", start=(0.0, 0.0), end=(rho * x, rho * y)),
        ],
        circles=[radius],
        is_square=True,
    )


def _finite(plane: PlaneRecord) -> list[list[float]]:
    """Return the grid with what is not finite as high as the highest loss."""
    top = max((loss for row in plane.losses for loss in row if loss is not None), default=0.0)
    return [[top if loss is None else loss for loss in row] for row in plane.losses]


def _vectors(run: str, plane: PlaneRecord) -> list[list[str | float | int | None]]:
    found = _found(plane)
    radius, at = found["rho_max"], [run, plane.checkpoint, plane.epoch]
    return [
        [*at, "theta_0", 0.0, 0.0, found["origin_loss"]],
        [*at, "g_0", 0.0, radius, found["first_loss"]],
        [*at, "g_1", *(radius * one for one in found["last"]), found["last_loss"]],
        [*at, "v(alpha*)", *(radius * one for one in found["chosen"]), found["chosen_loss"]],
        [*at, "highest", *found["highest"], _highest(found)],
    ]


def _grid(run: str, plane: PlaneRecord) -> list[list[str | float | int | None]]:
    found = _found(plane)
    return [
        [run, plane.checkpoint, plane.epoch, "grid", x, y, loss]
        for y, row in zip(found["ys"], plane.losses, strict=True)
        for x, loss in zip(found["xs"], row, strict=True)
    ]


FIGURES = {"1a": Figure("Loss around a point of training", CLAIM, _plan, _find)}
