"""Studies as people read them in a terminal: facts, arms, a sparkline of the best so far, a map of two fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from xsam.api.cli import formats
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.studies.schemas import ArmRead, StudyPreview, StudyRead, TrialRead

_BARS = "▁▂▃▄▅▆▇█"
_SHADES = ("grey19", "grey27", "dark_green", "green4", "green3", "chartreuse3", "bright_green")
_SPARK_WIDTH = 60
_COLORS = {
    JobState.QUEUED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.PAUSED: "magenta",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "bright_black",
}


def state_text(state: JobState, hold: str | None = None) -> str:
    """Return a state, coloured, with what the study was told."""
    held = f" ({hold})" if hold is not None and not is_terminal(state) and state is not JobState.PAUSED else ""
    return f"[{_COLORS[state]}]{state}{held}[/]"


def best_first(study: StudyRead) -> str:
    """Return the order of trials that begins with the best."""
    return "-value" if study.spec.objective.mode == "max" else "value"


def picture(
    study: StudyRead, best: Sequence[TrialRead], running: Sequence[TrialRead], plots: Mapping[str, Any]
) -> Group:
    """Return everything about a study as one block."""
    parts: list[RenderableType] = [_facts(study)]
    points = [p for p in plots["points"] if p["arm"] == study.arms[0].arm]
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
    table = Table(title=f"{found['down']} (down) x {found['across']} (across): best value", box=None, padding=(0, 1))
    table.add_column("")
    for column in found["columns"]:
        table.add_column(column, justify="right")
    cells = {(cell["row"], cell["column"]): cell["best"] for cell in found["cells"]}
    ordered = sorted(cells.values(), reverse=mode == "min")
    for row, name in enumerate(found["rows"]):
        shown = [_cell(cells.get((row, column)), ordered) for column in range(len(found["columns"]))]
        table.add_row(name, *shown)
    return table


def trial_table(trials: Sequence[TrialRead]) -> Table:
    """Return trials as a table, a column for each searched field."""
    paths = list(dict.fromkeys(path for trial in trials for path in trial.params))
    table = Table(box=None, pad_edge=False)
    for column in ("#", "id", "arm", *(path.removeprefix("optimizer.") for path in paths), "seed", "state", "epochs"):
        table.add_column(column, no_wrap=True)
    for column in ("value", "grad evals", "seconds"):
        table.add_column(column, no_wrap=True, justify="right")
    for trial in trials:
        ending = " early" if trial.is_stopped_early else ""
        table.add_row(
            str(trial.number),
            trial.id,
            trial.arm + (" (confirm)" if trial.phase == "confirm" else ""),
            *(_param(trial.params.get(path)) for path in paths),
            str(trial.seed),
            state_text(trial.state) + ending,
            f"{trial.epochs_done}/{trial.num_epochs}",
            formats.number(trial.value, 4),
            f"{trial.grad_evals:,}" if trial.grad_evals else formats.NOTHING,
            formats.number(trial.train_s, 1),
        )
    return table


def preview_table(preview: StudyPreview) -> Group:
    """Return what a study would take."""
    table = Table(box=None, pad_edge=False)
    for column in ("arm", "configurations", "trials", "confirmation", "gradient evaluations", "probes"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm in preview.arms:
        counts = (arm.num_configs, arm.num_trials, arm.num_confirm_trials, arm.grad_evals, arm.probe_forwards)
        table.add_row(arm.arm, *(_count(count) for count in counts))
    lines = [f"{preview.num_trials} trials, about {_count(preview.grad_evals)} gradient evaluations."]
    if preview.wall_s is None:
        lines.append("No comparable run yet, so no time is predicted.")
    else:
        hours = f", {preview.gpu_hours:.1f} GPU-hours" if preview.gpu_hours else ""
        lines.append(
            f"About {formats.duration(preview.wall_s)}{hours}, from {preview.num_comparable} comparable runs; "
            "nothing was queued."
        )
    return Group(table, *map(Text, lines))


def _facts(study: StudyRead) -> Table:
    done = sum(num for state, num in study.num_by_state.items() if is_terminal(state))
    counts = ", ".join(f"{num} {state}" for state, num in sorted(study.num_by_state.items()))
    spent = study.spent
    facts = [
        ("study", f"[bold]{study.id}[/]" + (f"  {escape(study.name)}" if study.name else "")),
        ("state", state_text(study.state, study.hold) + (f", ended by {study.ended_by}" if study.ended_by else "")),
        ("trials", f"{done} of {study.num_trials} done ({counts}); {study.num_stopped_early} stopped early"),
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
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        table.add_row(f"[dim]{name}[/]", value)
    return table


def _arm_table(arms: Sequence[ArmRead]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("arm", "configurations", "best", "seeds", "confirmed", "best parameters"):
        table.add_column(column)
    for arm in arms:
        best, confirmed = arm.best, arm.confirmed
        params = {} if best is None else best.params
        table.add_row(
            arm.arm,
            f"{arm.num_configs_done}/{arm.num_configs}",
            formats.number(None if best is None else best.mean, 4),
            formats.NOTHING if best is None else str(best.num_seeds),
            formats.NOTHING if confirmed is None else f"{confirmed.mean:.4f} on {confirmed.num_seeds} new seeds",
            ", ".join(f"{path.removeprefix('optimizer.')} {_param(value)}" for path, value in params.items()),
        )
    return table


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
