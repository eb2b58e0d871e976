"""Figures 3b, 3c and 4: accuracy over rho, method by method, and over how often alpha* is searched."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from xsam.services.lab.figures.figure import Evidence, Figure
from xsam.services.lab.finding import (
    Estimate,
    Finding,
    Panel,
    Series,
    Verdict,
    estimate,
    is_above,
    is_within,
    paired,
    told,
)
from xsam.services.lab.scales import SCALES, held_out, job_of, rho_max_ratio, search_of
from xsam.services.lab.spec import LabSpec, Stage
from xsam.services.metrics.records import VALIDATION
from xsam.services.specs.job import JobSpec
from xsam.services.studies.analysis import ConfigResult, best_config, configs_of
from xsam.services.studies.trials import CONFIRM, SEARCH, TrialState

COUNTERPARTS = ("asam", "wsam", "gsam")
MARGIN = 0.005
"""Half a point: accuracies that differ by less are called the same."""
SHOWN_BELOW = 5.0
"""Points below the weakest method's best: a run that broke down would press all others into one line."""
_RHO = "optimizer.rho"
_EVERY = "optimizer.alpha_every"
_METHODS = "methods"
_PERCENT = 100.0
_COLUMNS = ["method", "phase", "setting", "seed", "test accuracy", "objective", "gradient evaluations", "job"]


def _study(spec: LabSpec, name: str, job: Mapping[str, Any], space: Mapping[str, Any], **more: Any) -> Stage:
    document: dict[str, Any] = {
        "name": f"lab {spec.figure} {name}",
        "base": dict(job),
        "space": dict(space),
        "sampler": {"name": "grid"},
        "objective": {"metric": _metric(job), "at": "last"},
        "seeds_per_config": spec.seeds,
        "compute": spec.compute,
        "concurrency": SCALES[spec.scale].concurrency,
        **more,
    }
    return Stage(name=name, kind="study", document=document)


def _metric(job: Mapping[str, Any]) -> str:
    """Return what trials are compared by: the held-out examples' accuracy where there are some, or else the test's."""
    is_validated = (job.get("dataset") or {}).get("validation_size") is not None
    return VALIDATION[0] if is_validated else "eval_accuracy"


def _plan_sweep(num_steps: int, spec: LabSpec) -> list[Stage]:
    """Return XSAM's study with SGD and SAM as its control arms, and a study of each counterpart."""
    job, space = search_of(spec, "xsam", num_steps)
    stages = [_study(spec, _METHODS, held_out(spec, job), space, control=True, confirm_seeds=spec.seeds)]
    has_counterparts = SCALES[spec.scale].has_counterparts if spec.counterparts is None else spec.counterparts
    for variant in COUNTERPARTS if has_counterparts else ():
        job, space = search_of(spec, variant, num_steps)
        stages.append(_study(spec, variant, held_out(spec, job), space, confirm_seeds=spec.seeds))
    return stages


def _find_sweep(num_steps: int, claim: str, spec: LabSpec, evidence: Mapping[str, Evidence]) -> Finding:
    trials = [trial for part in evidence.values() for trial in part.trials]
    arms = list(dict.fromkeys(trial.arm for trial in trials))
    best = {arm: best_config(trials, arm, "max", num_seeds=spec.seeds) for arm in arms}
    tested = _tested(trials)
    confirmed = {arm: _confirmed(tested, won) for arm, won in best.items() if won is not None}
    found = {other: _ahead(other, confirmed) for other in arms if other != "xsam"}
    ahead = {other: one for other, one in sorted(found.items(), key=lambda item: item[0] != "sam") if one is not None}
    decisive = ahead.get("sam")
    places = ", ".join(f"{arm.upper()} {_place(won)}" for arm, won in best.items() if won is not None)
    is_validated = any(t.final_accuracy is not None and t.value not in (None, t.final_accuracy) for t in trials)
    seen = "on held-out examples" if is_validated else "of it"
    chosen_by = "training examples that were held out" if is_validated else "the same test set, with other seeds"
    lost = sum(trial.value is None for trial in trials)
    against = "; ".join(f"{other.upper()} {_points(one)}" for other, one in ahead.items())
    caption = (
        f"Test accuracy in the last epoch over rho at k = {num_steps}: {_setting(spec)}, {spec.seeds} seeds a point, "
        f"bands are 95 % intervals, rho_max of XSAM is {rho_max_ratio(spec):g} rho. "
        f"Best mean {seen}: {places}. XSAM less the others, each at its best rho, on fresh seeds: "
        f"{against or 'no seed has both'}. rho was chosen by {chosen_by}."
        + (f" {lost} trials diverged or failed and have no value." if lost else "")
    )
    verdict = is_above(decisive)
    loser = {Verdict.HOLDS: "sam", Verdict.DOES_NOT: "xsam"}.get(verdict)
    if loser is not None and _is_at_an_end(best[loser], trials):
        verdict = Verdict.UNDECIDED
        caption += f" {loser.upper()} was best at an end of the radii tried; beyond it it may be better: not decided."
    panel, is_cut = _panel(tested, arms, f"k = {num_steps}")
    if is_cut:
        caption += " Means below the lower edge are drawn on it; the table has them."
    return Finding(
        verdict=verdict,
        claim=claim,
        caption=caption,
        estimates=list(ahead.values()),
        panels=[panel],
        columns=_COLUMNS,
        rows=_rows(trials, _RHO),
    )


def _tested(trials: Sequence[TrialState]) -> list[TrialState]:
    """Return the trials with their test accuracy as the value, whatever they were chosen by."""
    return [t if t.value is None or t.final_accuracy is None else replace(t, value=t.final_accuracy) for t in trials]


def _confirmed(trials: Sequence[TrialState], won: ConfigResult) -> dict[int, float]:
    found = [c for c in configs_of(trials, phase=CONFIRM) if (c.arm, c.config) == (won.arm, won.config)]
    return found[0].values if found else {}


def _ahead(other: str, confirmed: Mapping[str, Mapping[int, float]]) -> Estimate | None:
    return paired(f"XSAM - {other.upper()} over fresh seeds", confirmed.get("xsam", {}), confirmed.get(other, {}))


def _is_at_an_end(won: ConfigResult | None, trials: Sequence[TrialState]) -> bool:
    """Return whether a method's best radius is the smallest or largest one of its grid, if that has several."""
    if won is None or _RHO not in won.point:
        return False
    rhos = {trial.point[_RHO] for trial in trials if trial.arm == won.arm and _RHO in trial.point}
    return len(rhos) > 1 and won.point[_RHO] in (min(rhos), max(rhos))


def _points(found: Estimate) -> str:
    return told(found, scale=_PERCENT, unit=" points")


def _place(won: ConfigResult) -> str:
    where = f" at {won.point[_RHO]:g}" if _RHO in won.point else ""
    return f"{(won.mean or 0.0) * _PERCENT:.1f} %{where}"


def _panel(trials: Sequence[TrialState], arms: Sequence[str], title: str) -> tuple[Panel, bool]:
    """Return accuracy over rho, method by method, and whether a mean lies below what is shown."""
    searched = [config for config in configs_of(trials) if config.values]
    rhos = sorted({c.point[_RHO] for c in searched if _RHO in c.point and c.arm != "asam"})
    means: dict[str, list[tuple[float, Estimate]]] = {}
    for arm in arms:
        own = [(c.point.get(_RHO), estimate(arm, list(c.values.values()))) for c in searched if c.arm == arm]
        points = sorted(((float(rho), found) for rho, found in own if rho is not None), key=lambda one: one[0])
        if not points and own and rhos:  # no rho: a level
            points = [(rhos[0], own[0][1]), (rhos[-1], own[0][1])]
        means[arm] = points
    best = [max(found.value for _, found in points) for points in means.values() if points]
    edge = max(min(best, default=0.0) * _PERCENT - SHOWN_BELOW, 0.0)
    has_rho = {config.arm for config in searched if _RHO in config.point}
    series = [_line(a.upper(), points, is_dashed=a not in has_rho, edge=edge) for a, points in means.items()]
    is_cut = any(found.value * _PERCENT < edge for points in means.values() for _, found in points)
    return Panel(title=title, x_label="rho", y_label="test accuracy, %", series=series, has_log_x=True), is_cut


def _line(name: str, points: Sequence[tuple[float, Estimate]], *, is_dashed: bool = False, edge: float = 0.0) -> Series:
    def shown(accuracy: float) -> float:
        return min(max(accuracy * _PERCENT, edge), _PERCENT)

    def band(found: Estimate) -> tuple[float, float]:
        if found.low is None or found.high is None or found.value * _PERCENT < edge:  # of a mean that is not shown none
            return shown(found.value), shown(found.value)
        return shown(found.low), shown(found.high)

    return Series(
        name=name,
        points=[(x, shown(y.value)) for x, y in points],
        band=[band(y) for _, y in points],
        is_dashed=is_dashed,
        has_marks=not is_dashed,
    )


def _rows(trials: Sequence[TrialState], path: str) -> list[list[str | float | int | None]]:
    pairs = zip(_tested(trials), trials, strict=True)
    return [[t.arm, t.phase, t.point.get(path), t.seed, t.value, o.value, t.grad_evals, t.job_id] for t, o in pairs]


def _setting(spec: LabSpec) -> str:
    job = JobSpec.model_validate(job_of(spec, {"variant": "sgd"}))
    noise = f" with {job.dataset.label_noise:.0%} of the labels redrawn" if job.dataset.label_noise else ""
    same = "gradient evaluations" if spec.compute == "grad_evals" else "epochs"
    return f"{job.model.name} on {job.dataset.name}{noise}, {job.epochs} epochs, batch {job.batch_size}, equal {same}"


def _plan_frequencies(spec: LabSpec) -> list[Stage]:
    scale = SCALES[spec.scale]
    job = job_of(spec, {"variant": "xsam", "rho": scale.rho})
    space = {_EVERY: {"type": "choice", "values": list(scale.update_frequencies)}}
    return [_study(spec, "frequencies", job, space)]


def _find_frequencies(spec: LabSpec, evidence: Mapping[str, Evidence]) -> Finding:
    trials = [trial for part in evidence.values() for trial in part.trials if trial.phase == SEARCH]
    by_setting = {config.point[_EVERY]: config.values for config in configs_of(trials) if config.values}
    usual = by_setting.get("epoch", {})
    estimates = [
        found
        for setting, values in by_setting.items()
        if setting != "epoch"
        and (found := paired(f"every {setting} steps - once an epoch over seeds", values, usual)) is not None
    ]
    job = JobSpec.model_validate(job_of(spec, {"variant": "xsam"}))
    per_epoch = (job.num_train or job.batch_size) // job.batch_size
    at = [(float(per_epoch if s == "epoch" else s), estimate("", list(v.values()))) for s, v in by_setting.items()]
    against = "; ".join(f"{one.name.split(' - ')[0]} {_points(one)}" for one in estimates)
    rho = SCALES[spec.scale].rho
    return Finding(
        verdict=is_within(estimates, MARGIN),
        claim=FREQUENCY_CLAIM,
        caption=(
            f"Test accuracy of XSAM in the last epoch over how many steps alpha* is kept, rho {rho:g}, "
            f"{_setting(spec)}, {spec.seeds} seeds a point. Against a search once an epoch ({per_epoch} steps): "
            f"{against or 'nothing to compare'}. Settings within {MARGIN * _PERCENT:g} points are called the same."
        ),
        estimates=estimates,
        panels=[
            Panel(
                title=f"rho {rho:g}",
                x_label="steps between searches",
                y_label="test accuracy, %",
                series=[_line("XSAM", sorted(at, key=lambda one: one[0]))],
                has_log_x=True,
            )
        ],
        columns=_COLUMNS,
        rows=_rows(trials, _EVERY),
    )


FREQUENCY_CLAIM = "XSAM reaches the same accuracy however often alpha* is searched."
_CLAIMS = {
    1: "With one ascent step, each method at its best rho, XSAM reaches a higher test accuracy than SAM.",
    3: "With three ascent steps, each method at its best rho, XSAM reaches a higher test accuracy than SAM.",
}


def _sweep(num_steps: int) -> Figure:
    return Figure(
        title=f"Accuracy over rho, k = {num_steps}",
        claim=_CLAIMS[num_steps],
        plan=partial(_plan_sweep, num_steps),
        find=partial(_find_sweep, num_steps, _CLAIMS[num_steps]),
    )


FIGURES = {
    "3b": _sweep(1),
    "3c": _sweep(3),
    "4": Figure("How often alpha* is searched", FREQUENCY_CLAIM, _plan_frequencies, _find_frequencies),
}
