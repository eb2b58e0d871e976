"""Draws the replays of one trace under several policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.scheduling.report import SIZE_CLASSES, Summary
from tests.bench.scheduling.simulator import Record

COLOURS = ("#0072b2", "#999999", "#d55e00")  # told apart by colour-blind people too
_TICKS_H = (1 / 60, 10 / 60, 1, 10, 100)
_TICK_LABELS = ("1 min", "10 min", "1 h", "10 h", "100 h")
_DAY_S = 86_400.0
_MIN_SHOWN_H = 1 / 60  # waits are in steps of a minute; 0 has no place on a logarithmic axis


def draw(replays: Mapping[str, Sequence[Record]], summaries: Sequence[Summary], num_gpus: float, path: Path) -> None:
    """Write one PNG: GPUs in use over time, waits of all and of large jobs, waits by class, fairness."""
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    axes = figure.subplots(2, 2)
    colour = dict(zip(replays, COLOURS, strict=False))
    _draw_usage(axes[0][0], replays, colour, num_gpus)
    _draw_waits(axes[0][1], replays, colour)
    _draw_classes(axes[1][0], summaries, colour)
    _draw_teams(axes[1][1], summaries, colour)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=11)
    figure.savefig(path, dpi=110)


def _draw_usage(
    axes: Axes, replays: Mapping[str, Sequence[Record]], colour: Mapping[str, str], num_gpus: float
) -> None:
    for policy, records in replays.items():
        end_s = max(record.end_s for record in records)
        step_s = 3 * 3_600.0
        used = [0.0] * (int(end_s // step_s) + 1)
        for record in records:
            for start, end in record.intervals_s:
                for bucket in range(int(start // step_s), int(end // step_s) + 1):
                    overlap_s = min(end, (bucket + 1) * step_s) - max(start, bucket * step_s)
                    used[bucket] += record.job.gpus * max(0.0, overlap_s) / step_s
        days = [(bucket + 0.5) * step_s / _DAY_S for bucket in range(len(used))]
        axes.plot(days, used, color=colour[policy], label=policy, linewidth=1.6)
    axes.axhline(num_gpus, color="black", linewidth=0.8, linestyle=":")
    axes.set(title="GPUs in use (mean of 3 hours)", xlabel="day", ylabel="GPUs", ylim=(0, num_gpus * 1.05))


def _draw_waits(axes: Axes, replays: Mapping[str, Sequence[Record]], colour: Mapping[str, str]) -> None:
    for policy, records in replays.items():
        for style, is_large in (("-", False), ("--", True)):
            waits = sorted(max(_MIN_SHOWN_H, r.wait_s / 3_600.0) for r in records if (r.job.gpus > 8) or not is_large)
            parts = [(rank + 1) / len(waits) for rank in range(len(waits))]
            axes.plot(waits, parts, color=colour[policy], linestyle=style, linewidth=1.6)
    axes.plot([], [], color="black", linestyle="-", label="all jobs")
    axes.plot([], [], color="black", linestyle="--", label="16 to 64 GPUs")
    axes.legend(loc="lower right", frameon=False)
    axes.set(title="Part of the jobs that waited at most ...", xlabel="log scale", xscale="log", ylim=(0, 1.02))
    axes.set_xticks(_TICKS_H, _TICK_LABELS)
    axes.grid(alpha=0.3)


def _draw_classes(axes: Axes, summaries: Sequence[Summary], colour: Mapping[str, str]) -> None:
    names = [name for name, _ in SIZE_CLASSES]
    width = 0.8 / len(summaries)
    for number, summary in enumerate(summaries):
        places = [place + (number - (len(summaries) - 1) / 2) * width for place in range(len(names))]
        means = [max(_MIN_SHOWN_H, summary.waiting[name].mean_h) for name in names]
        highs = [max(_MIN_SHOWN_H, summary.waiting[name].max_h) for name in names]
        axes.bar(places, means, width * 0.9, color=colour[summary.policy])
        axes.plot(places, highs, linestyle="", marker="_", markersize=12, color="black")
    axes.plot([], [], linestyle="", marker="_", markersize=12, color="black", label="longest wait")
    axes.legend(loc="upper left", frameon=False)
    axes.set_xticks(range(len(names)), names)
    axes.set(title="Mean and longest wait by size of the job", ylabel="log scale", yscale="log")
    _label_hours(axes)


def _draw_teams(axes: Axes, summaries: Sequence[Summary], colour: Mapping[str, str]) -> None:
    teams = list(summaries[0].team_wait_h)
    width = 0.8 / len(summaries)
    for number, summary in enumerate(summaries):
        places = [place + (number - (len(summaries) - 1) / 2) * width for place in range(len(teams))]
        waits = [max(_MIN_SHOWN_H, summary.team_wait_h[team]) for team in teams]
        axes.bar(places, waits, width * 0.9, color=colour[summary.policy])
    labels = [f"{team}\n{summaries[0].team_gpu_part[team]:.0%}" for team in teams]
    axes.set_xticks(range(len(teams)), labels)
    axes.set(title="Mean wait by team (below: its part of all GPU time asked for)", ylabel="log scale", yscale="log")
    _label_hours(axes)


def _label_hours(axes: Axes) -> None:
    axes.set_ylim(_MIN_SHOWN_H / 1.5, 900.0)  # room for the legend above 100 h
    axes.set_yticks(_TICKS_H, _TICK_LABELS)
    axes.grid(axis="y", alpha=0.3)
