"""Figure 2: alpha* and the angle over training, and how slowly alpha* moves."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from xsam.services.lab.figures.figure import Evidence, Figure
from xsam.services.lab.finding import Estimate, Finding, Panel, Series, Verdict, estimate, is_above, told
from xsam.services.lab.scales import SCALES, job_of
from xsam.services.lab.spec import LabSpec, Stage
from xsam.services.metrics.records import AlphaRecord

CLAIM = "alpha* varies slowly over training: what one search finds is near what the next one would find."
SCATTER = 2.0
"""The ratio of `roughness` for values that have nothing to do with each other (von Neumann, 1941)."""
SLOW = 1.0
"""Below it, neighbours share more than half of the variance."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a group of runs has its own way, against the scale's job."""

    smaller: int = 1
    """By so much the batch."""
    searched: int = 1
    """Batches whose loss a search looks at."""

    def title(self, batch: int) -> str:
        words = f"batch {max(1, batch // self.smaller)}"
        return words if self.searched == 1 else f"{words} searched on {self.searched}"


_KINDS = {"small": _Kind(smaller=4), "usual": _Kind(), "wide": _Kind(searched=4)}


def roughness(values: Sequence[float]) -> float | None:
    """Return the mean squared step from value to value as a share of their variance (von Neumann's ratio).

    2 for independent values, near 0 for a slow curve. None where nothing varies, or for fewer than three values.
    """
    if len(values) < 3 or (variance := statistics.variance(values)) == 0:
        return None
    steps = [(after - before) ** 2 for before, after in pairwise(values)]
    return statistics.fmean(steps) / variance


def _plan(spec: LabSpec) -> list[Stage]:
    """Return a job for each seed of each kind: a smaller batch, and more than one batch to search on."""
    scale = SCALES[spec.scale]
    usual = job_of(spec, {"variant": "xsam", "rho": scale.rho, "alpha_every": scale.search_every})
    stages = []
    for name, kind in _KINDS.items():
        every = usual["optimizer"]["alpha_every"] * kind.smaller  # as many searches an epoch
        optimizer = {**usual["optimizer"], "alpha_every": every}
        if kind.searched > 1:
            optimizer["alpha_batches"] = kind.searched
        for seed in range(spec.seeds):
            batch = max(1, usual["batch_size"] // kind.smaller)
            job = {**usual, "batch_size": batch, "optimizer": optimizer, "seed": seed}
            stages.append(Stage(name=f"{name}-{seed}", kind="job", document=job))
    return stages


def _find(spec: LabSpec, evidence: Mapping[str, Evidence]) -> Finding:
    found: dict[str, Estimate] = {}
    steps: dict[str, float] = {}
    batch = job_of(spec, {"variant": "xsam"})["batch_size"]
    panels = [
        Panel(title="alpha*", x_label="epoch", y_label="alpha*"),
        Panel(title="angle between v0 and v1", x_label="epoch", y_label="rad"),
    ]
    for group, kind in _KINDS.items():
        runs = [list(one.alphas) for name, one in evidence.items() if name.startswith(f"{group}-")]
        title = kind.title(batch)
        if not any(runs):
            continue  # a run that was planned by a release without this kind
        rough = [one for run in runs if (one := roughness([record.alpha for record in run])) is not None]
        if rough:
            found[group] = estimate(f"roughness of alpha*, {title}, over seeds", rough)
        moves = [abs(b.alpha - a.alpha) for run in runs for a, b in pairwise(run)]
        steps[title] = statistics.fmean(moves) if moves else 0.0
        panels[0].series.append(_curve(title, [[(r, r.alpha) for r in run] for run in runs], evidence))
        panels[1].series.append(_curve(title, [[(r, r.angle_rad) for r in run] for run in runs], evidence))
    decisive = found.get("usual")
    slow = is_above(decisive, SLOW)
    opposite = {Verdict.HOLDS: Verdict.DOES_NOT, Verdict.DOES_NOT: Verdict.HOLDS}
    moved = "; ".join(f"{title} {step:.2f}" for title, step in steps.items())
    rough_text = "; ".join(f"{one.name.split(', ')[1]} {told(one)}" for one in found.values())
    return Finding(
        verdict=opposite.get(slow, Verdict.UNDECIDED),
        claim=CLAIM,
        caption=(
            f"alpha* and the angle of each search over training, mean and 95 % interval of {spec.seeds} seeds, rho "
            f"{SCALES[spec.scale].rho:g}, a search every {SCALES[spec.scale].search_every} steps at batch {batch}. "
            f"From one search to the next alpha* moves on average by: {moved}. Mean squared step over variance "
            f"({SCATTER:g} for values without memory, below {SLOW:g} called slow): {rough_text or 'nothing varies'}."
        ),
        estimates=sorted(found.values(), key=lambda one: one is not decisive),
        panels=panels,
        columns=["run", "epoch", "step", "alpha", "angle_rad"],
        rows=[[name, r.epoch, r.step, r.alpha, r.angle_rad] for name, one in evidence.items() for r in one.alphas],
    )


def _curve(title: str, runs: Sequence[Sequence[tuple[AlphaRecord, float]]], evidence: Mapping[str, Evidence]) -> Series:
    by_step: defaultdict[int, list[float]] = defaultdict(list)
    for run in runs:
        for record, value in run:
            by_step[record.step].append(value)
    last = max(by_step, default=1)
    epochs = max((one.num_epochs for one in evidence.values()), default=1)
    means = [(step * epochs / last, estimate("", values)) for step, values in sorted(by_step.items())]
    return Series(
        name=title,
        points=[(x, y.value) for x, y in means],
        band=[(y.value if y.low is None else y.low, y.value if y.high is None else y.high) for _, y in means],
        has_marks=False,
    )


FIGURES = {"2": Figure("alpha* over training", CLAIM, _plan, _find)}
