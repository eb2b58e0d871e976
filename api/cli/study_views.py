"""Studies as people read them in a terminal: facts, arms, a sparkline of the best so far, a map of two fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from xsam.api import formats
from xsam.api.cli import states
from xsam.api.cli.show import fact_table, table
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.studies.schemas import ArmRead, StudyBrief, StudyPreview, StudyRead, TrialRead

_BARS = "▁▂▃▄▅▆▇█"
_SHADES = ("grey19", "grey27", "dark_green", "green4", "green3", "chartreuse3", "bright_green")
_SPARK_WIDTH = 60


def state_text(state: JobState, hold: str | None = None) -> str:
    """Return a state, coloured, with what the study was told."""
    is_told = not is_terminal(state) and state is not JobState.PAUSED
    return states.state_text(state, hold if is_told else None)


def best_first(study: StudyRead) -> str:
    """Return the order of trials that begins with the best."""
    return "-value" if study.spec.objective.mode == "max" else "value"


def picture(
    study: StudyRead, best: Sequence[TrialRead], running: Sequence[TrialRead], plots: Mapping[str, Any]
) -> Group:
    """Return everything about a study as one block."""
    parts: list[RenderableType] = [_facts(study)]
    points = [p for p in plots["points"] if p["arm"] == study.arms[0].arm and p["best"] is not None]
    if points:
        parts.append(Text(f"best so far  {sparkline([p['best'] for p in points])}  {points[-1]['best']:.4g}"))
    parts.append(_arm_table(study.arms))
    parts += [Text(f"  {comparison.sentence}", style="bold") for comparison in study.comparisons]
    if running:
        parts += [Text("running", style="dim"), trial_table(running)]
    if any(trial.value is not None for trial in best):
        parts += [Text("best trials", style="dim"), trial_table(best)]
    if plots["importances"]:
        shares = ", ".join(f"{path} {100 * share:.0f} %" for path, share in plots["importances"].items())
        parts.append(Text(f"importance   {shares}"))
    if plots["map"] is not None:
        parts.append(value_map(plots["map"], study.spec.objective.mode))
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """Return values as a line of bars."""
    step = max(1, -(-len(values) // _SPARK_WIDTH))
    shown = values[::step]
    low, high = min(shown), max(shown)
    if high == low:
        return _BARS[-1] * len(shown)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in shown)


def value_map(found: Mapping[str, Any], mode: str) -> Table:
    """Return a map of two fields, the best value in each cell, better ones brighter."""
    grid = Table(title=f"{found['down']} (down) x {found['across']} (across): best value", box=None, padding=(0, 1))
    grid.add_column("")
    for column in found["columns"]:
        grid.add_column(column, justify="right")
    cells = {(cell["row"], cell["column"]): cell["best"] for cell in found["cells"]}
    ordered = sorted(cells.values(), reverse=mode == "min")
    for row, name in enumerate(found["rows"]):
        shown = [_cell(cells.get((row, column)), ordered) for column in range(len(found["columns"]))]
        grid.add_row(name, *shown)
    return grid


def trial_table(trials: Sequence[TrialRead]) -> Table:
    """Return trials as a table, a column for each searched field."""
    paths = list(dict.fromkeys(path for trial in trials for path in trial.params))
    fields = (path.removeprefix("optimizer.") for path in paths)
    numbers = ("value", "grad evals", "seconds")
    rows = (
        (
            str(trial.number),
            trial.id,
            trial.arm + (" (confirm)" if trial.phase == "confirm" else ""),
            *(_param(trial.params.get(path)) for path in paths),
            str(trial.seed),
            state_text(trial.state) + (" early" if trial.is_stopped_early else ""),
            f"{trial.epochs_done}/{trial.num_epochs}",
            formats.number(trial.value, 4),
            f"{trial.grad_evals:,}" if trial.grad_evals else formats.NOTHING,
            formats.number(trial.train_s, 1),
        )
        for trial in trials
    )
    return table(("#", "id", "arm", *fields, "seed", "state", "epochs", *numbers), rows, right=numbers)


def study_table(studies: Sequence[StudyBrief]) -> Table:
    """Return a list of studies as a table."""
    rows = (
        (
            study.id,
            escape(study.name or formats.NOTHING),
            state_text(study.state, study.hold),
            f"{_num_done(study.num_by_state)}/{study.num_trials}",
            formats.number(study.best_value, 4),
            escape(study.submitted_by),
            formats.age(study.created_at),
        )
        for study in studies
    )
    return table(("id", "name", "state", "trials", "best", "by", "age"), rows, right=("trials", "best", "age"))


def preview_table(preview: StudyPreview) -> Group:
    """Return what a study would take."""
    columns = ("configurations", "trials", "confirmation", "gradient evaluations", "probes")
    counts = ("num_configs", "num_trials", "num_confirm_trials", "grad_evals", "probe_forwards")
    rows = ((arm.arm, *(_count(getattr(arm, count)) for count in counts)) for arm in preview.arms)
    lines = [f"{preview.num_trials} trials, about {_count(preview.grad_evals)} gradient evaluations."]
    if preview.wall_s is None:
        lines.append("No comparable run yet, so no time is predicted.")
    else:
        hours = f", {preview.gpu_hours:.1f} GPU-hours" if preview.gpu_hours else ""
        lines.append(
            f"About {formats.duration(preview.wall_s)}{hours}, from {preview.num_comparable} comparable runs; "
            "nothing was queued."
        )
    return Group(table(("arm", *columns), rows, right=columns, wrapped=("arm", *columns)), *map(Text, lines))


def _facts(study: StudyRead) -> Table:
    counts = ", ".join(f"{num} {state}" for state, num in sorted(study.num_by_state.items()))
    spent = study.spent
    facts = [
        ("study", f"[bold]{study.id}[/]" + (f"  {escape(study.name)}" if study.name else "")),
        ("state", state_text(study.state, study.hold) + (f", ended by {study.ended_by}" if study.ended_by else "")),
        (
            "trials",
            f"{_num_done(study.num_by_state)} of {study.num_trials} done ({counts}); "
            f"{study.num_stopped_early} stopped early",
        ),
        ("at once", str(study.concurrency)),
        (
            "spent",
            f"{spent.grad_evals:,} gradient evaluations, {spent.probe_forwards:,} probes, "
            f"{formats.duration(spent.train_s)} of training, {formats.duration(spent.wall_s)} in all"
            + (f", {spent.gpu_hours:.2f} GPU-hours" if spent.gpu_hours else ""),
        ),
    ]
    if study.prediction is not None:
        left = study.prediction
        facts.append(("left", f"{left.num_trials_left} trials, about {formats.duration(left.left_s)}"))
    if study.failure is not None:
        facts.append(("failure", f"[red]{escape(study.failure.message)}[/]"))
    return fact_table(facts)


def _arm_table(arms: Sequence[ArmRead]) -> Table:
    columns = ("arm", "configurations", "best", "seeds", "confirmed", "best parameters")
    return table(columns, map(_arm_row, arms), wrapped=columns)


def _arm_row(arm: ArmRead) -> tuple[str, ...]:
    best = arm.best
    params = {} if best is None else best.params
    return (
        arm.arm,
        f"{arm.num_configs_done}/{arm.num_configs}",
        formats.number(None if best is None else best.mean, 4),
        formats.NOTHING if best is None else str(best.num_seeds),
        _confirmed(arm),
        ", ".join(f"{path.removeprefix('optimizer.')} {_param(value)}" for path, value in params.items()),
    )


def _confirmed(arm: ArmRead) -> str:
    if arm.confirmed is not None:
        return f"{arm.confirmed.mean:.4f} on {arm.confirmed.num_seeds} new seeds"
    on = arm.confirmation
    if on is None or not (on.values or on.num_running or on.num_failed):
        return formats.NOTHING
    so_far = f"{on.mean:.4f} on " if on.mean is not None else ""
    return f"{so_far}{len(on.values)} of {on.num_seeds} new seeds" + (f", {on.num_failed} failed" * bool(on.num_failed))


def _num_done(num_by_state: Mapping[JobState, int]) -> int:
    return sum(num for state, num in num_by_state.items() if is_terminal(state))


def _cell(value: float | None, ordered: Sequence[float]) -> Text:
    if value is None:
        return Text("·", style="grey35")
    shade = _SHADES[round(ordered.index(value) / max(len(ordered) - 1, 1) * (len(_SHADES) - 1))]
    return Text(f"{value:.3f}", style=shade)


def _param(value: Any) -> str:
    if value is None:
        return formats.NOTHING
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"
