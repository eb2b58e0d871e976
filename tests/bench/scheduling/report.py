"""What a replay says about a policy: utilisation, waiting, fairness, as numbers and as a markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.bench.scheduling.simulator import Record, TraceJob

_Key = TypeVar("_Key", str, int)

HOUR_S = 3_600.0
SIZE_CLASSES: tuple[tuple[str, Callable[[TraceJob], bool]], ...] = (
    ("all", lambda job: True),
    ("no GPU", lambda job: job.gpus == 0),
    ("up to 1 GPU", lambda job: 0 < job.gpus <= 1),
    ("2 to 8 GPUs", lambda job: 1 < job.gpus <= 8),
    ("16 to 64 GPUs", lambda job: job.gpus > 8),
)


NOTES = """\
Waiting is from submit to first start. Utilisation is GPU-seconds in use up to the last submit by those the cluster has.
Jain's index of x_1..x_n is (sum x)^2 / (n sum x^2). Shares: x is the GPU time of each team in one hour, over the teams
that had a GPU job waiting all that hour; the mean over the hours with two or more such teams (their number in brackets,
it differs by policy). Slowdown: x is each team's mean of max(1, (end - submit) / max(run time, 10 min)); equal misery
counts as fair there, which is why FIFO, where all wait for days, comes out best."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Hours from submit to first start, over one class of jobs."""

    num_jobs: int
    mean_h: float
    p50_h: float
    p95_h: float
    p99_h: float
    max_h: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything reported about one policy.

    Args:
        policy: Its name.
        utilisation: GPU-seconds in use up to the last submit, by those the cluster has in that time.
        useful: The same without the restarts that preemption costs, as a part of the GPU-seconds used.
        makespan_d: Days from the first submit to the end of the last job.
        jain_share: Jain's index of the GPU-seconds that teams get per hour while they compete (see `jain_by_hour`).
        jain_slowdown: Jain's index of the teams' mean bounded slowdown.
        num_contended_hours: Hours that `jain_share` is the mean over.
        num_preemptions: Attempts sent back to the queue.
        waiting: By size class.
        team_wait_h: Mean by team.
        team_gpu_part: GPU time that the team's jobs need, as a part of all.
        priority_wait_h: Mean by priority.
    """

    policy: str
    utilisation: float
    useful: float
    makespan_d: float
    jain_share: float
    jain_slowdown: float
    num_contended_hours: int
    num_preemptions: int
    waiting: Mapping[str, Waiting]
    team_wait_h: Mapping[str, float]
    team_gpu_part: Mapping[str, float]
    priority_wait_h: Mapping[int, float]


def summarise(policy: str, records: Sequence[Record], num_gpus: float) -> Summary:
    """Return the numbers of one replay; every job must have ended.

    Raises:
        ValueError: A job of the trace never ended, so that its wait has no value.
    """
    unfinished = [record.job.job_id for record in records if not record.is_done]
    if unfinished:
        raise ValueError(f"{policy}: {len(unfinished)} jobs never ended, first {unfinished[0]}; all must end")
    last_submit_s = max(record.job.submit_s for record in records)
    used = sum(_gpu_s(record, 0.0, last_submit_s) for record in records)
    all_used = sum(_gpu_s(record, 0.0, float("inf")) for record in records)
    hours = jain_by_hour(records, last_submit_s)
    return Summary(
        policy=policy,
        utilisation=used / (num_gpus * last_submit_s),
        useful=sum(record.job.gpus * record.job.run_s for record in records) / all_used,
        makespan_d=max(record.end_s for record in records) / 86_400.0,
        jain_share=statistics.fmean(hours.values()) if hours else 1.0,
        jain_slowdown=jain(_mean_by(records, lambda r: r.job.team, slowdown).values()),
        num_contended_hours=len(hours),
        num_preemptions=sum(record.num_preemptions for record in records),
        waiting={name: _waiting([r for r in records if belongs(r.job)]) for name, belongs in SIZE_CLASSES},
        team_wait_h=_mean_by(records, lambda r: r.job.team, lambda r: r.wait_s / HOUR_S),
        team_gpu_part=_gpu_parts(records),
        priority_wait_h=_mean_by(records, lambda r: r.job.priority, lambda r: r.wait_s / HOUR_S),
    )


def jain(values: Iterable[float]) -> float:
    """Return (sum x)^2 / (n sum x^2): 1 if all are equal, 1/n if one has everything."""
    values = list(values)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def slowdown(record: Record) -> float:
    """Return the bounded slowdown: (end - submit) / max(run time, 10 minutes), at least 1."""
    return max(1.0, (record.end_s - record.job.submit_s) / max(record.job.run_s, 600.0))


def jain_by_hour(records: Sequence[Record], until_s: float) -> dict[int, float]:
    """Return Jain's index of the GPU-seconds of each competing team, for each hour in which teams compete.

    A team competes in an hour if, all hour long, it had a GPU job waiting that had never started: it wanted more than
    it got. Hours with fewer than two such teams are left out; teams have equal weights.
    """
    num_hours = int(until_s // HOUR_S)
    used: dict[str, list[float]] = {}
    waits: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        if not record.job.gpus:
            continue
        by_hour = used.setdefault(record.job.team, [0.0] * (num_hours + 1))
        for hour in _hours_of(record, num_hours):
            by_hour[hour] += _gpu_s(record, hour * HOUR_S, (hour + 1) * HOUR_S)
        waits.setdefault(record.job.team, []).append((record.job.submit_s, record.intervals_s[0][0]))
    backlog = {team: _covered_hours(spans, num_hours) for team, spans in waits.items()}
    indices = {}
    for hour in range(num_hours):
        competing = [team for team, hours in backlog.items() if hour in hours]
        if len(competing) >= 2:
            indices[hour] = jain(used[team][hour] for team in competing)
    return indices


def _hours_of(record: Record, num_hours: int) -> list[int]:
    hours: list[int] = []
    for start, end in record.intervals_s:
        hours += range(int(start // HOUR_S), min(num_hours, int(end // HOUR_S)) + 1)
    return sorted({hour for hour in hours if hour <= num_hours})


def _covered_hours(spans: list[tuple[float, float]], num_hours: int) -> set[int]:
    """Return the hours that the union of the spans covers completely."""
    covered: set[int] = set()
    start, end = 0.0, 0.0
    for next_start, next_end in [*sorted(spans), (float("inf"), float("inf"))]:
        if next_start > end:
            covered.update(range(-int(-start // HOUR_S), min(num_hours, int(end // HOUR_S))))
            start = next_start
            end = next_end
        end = max(end, next_end)
    return covered


def _gpu_s(record: Record, from_s: float, to_s: float) -> float:
    held_s = sum(max(0.0, min(end, to_s) - max(start, from_s)) for start, end in record.intervals_s)
    return record.job.gpus * held_s


def _waiting(records: Sequence[Record]) -> Waiting:
    hours = sorted(record.wait_s / HOUR_S for record in records)
    if not hours:
        return Waiting(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    at = [hours[min(len(hours) - 1, int(len(hours) * part))] for part in (0.5, 0.95, 0.99)]
    return Waiting(len(hours), statistics.fmean(hours), at[0], at[1], at[2], hours[-1])


def _gpu_parts(records: Sequence[Record]) -> dict[str, float]:
    needed: dict[str, float] = {}
    for record in records:
        needed[record.job.team] = needed.get(record.job.team, 0.0) + record.job.gpus * record.job.run_s
    return {team: needed[team] / sum(needed.values()) for team in sorted(needed)}


def _mean_by(
    records: Sequence[Record], key: Callable[[Record], _Key], value: Callable[[Record], float]
) -> dict[_Key, float]:
    groups: dict[_Key, list[float]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(value(record))
    return {name: statistics.fmean(groups[name]) for name in sorted(groups)}


def overview_table(summaries: Sequence[Summary]) -> str:
    """Return one line per policy."""
    rows = [
        "| policy | GPU utilisation | useful part | makespan, days | Jain, shares | Jain, slowdown | preemptions |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows += [
        f"| {s.policy} | {s.utilisation:.1%} | {s.useful:.1%} | {s.makespan_d:.2f} | "
        f"{s.jain_share:.3f} ({s.num_contended_hours} h) | {s.jain_slowdown:.3f} | {s.num_preemptions} |"
        for s in summaries
    ]
    return "\n".join(rows)


def waiting_table(summaries: Sequence[Summary]) -> str:
    """Return one line per size class and policy."""
    rows = [
        "| waiting, hours | policy | jobs | mean | p50 | p95 | p99 | max |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, _ in SIZE_CLASSES:
        for s in summaries:
            w = s.waiting[name]
            rows.append(
                f"| {name} | {s.policy} | {w.num_jobs} | {w.mean_h:.2f} | {w.p50_h:.2f} | {w.p95_h:.2f} | "
                f"{w.p99_h:.2f} | {w.max_h:.1f} |"
            )
    return "\n".join(rows)


def groups_table(summaries: Sequence[Summary]) -> str:
    """Return mean waits by team and by priority, one line per policy."""
    teams, priorities = list(summaries[0].team_wait_h), list(summaries[0].priority_wait_h)
    heads = [*teams, *(f"priority {priority}" for priority in priorities)]
    rows = [f"| mean wait, hours | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for s in summaries:
        values = [*(s.team_wait_h[team] for team in teams), *(s.priority_wait_h[p] for p in priorities)]
        rows.append(f"| {s.policy} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(rows)
