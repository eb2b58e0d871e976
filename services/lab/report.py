"""A report: runs of the lab with their verdicts, captions and pictures, as one HTML file that needs nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import yaml

from xsam.services.lab.figures.catalog import FIGURES
from xsam.services.lab.finding import Estimate, Verdict
from xsam.services.lab.picture import draw
from xsam.services.lab.schemas import LabRunRead

VERDICTS = {Verdict.HOLDS: "holds", Verdict.DOES_NOT: "does not hold", Verdict.UNDECIDED: "undecided"}
_STYLE = (
    "body{max-width:62rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color-scheme:light dark}"
    "svg{max-width:100%;height:auto}table{border-collapse:collapse}td,th{padding:.2rem .7rem;text-align:left;"
    "border-bottom:1px solid #8885}figure{margin:1rem 0}pre{overflow:auto;padding:.6rem;background:#8881}"
)


def as_html(runs: Sequence[LabRunRead]) -> str:
    """Return the report on some runs, in the order of their figures; one without a finding is told as it stands."""
    ordered = sorted(runs, key=lambda run: (list(FIGURES).index(run.figure), run.created_at))
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>XSAM: figures from own runs</title>'
        f"<style>{_STYLE}</style><h1>XSAM: the paper's figures from own runs</h1>",
        "<p>Claims of arXiv 2603.10048 and what these runs say. Intervals are of 95 %, by Student's t over seeds.</p>",
        "<table><tr><th>figure<th>scale<th>changed<th>claim<th>verdict<th>interval</tr>",
        *(_row(run) for run in ordered),
        "</table>",
        *(part for run in ordered for part in _section(run)),
        "</html>\n",
    ]
    return "\n".join(parts)


def interval(found: Estimate) -> str:
    """Return an estimate in numbers."""
    ends = "no interval" if found.low is None or found.high is None else f"{found.low:+.4f} to {found.high:+.4f}"
    return f"{found.name}: {found.value:+.4f} ({ends}, n = {found.num})"


def _row(run: LabRunRead) -> str:
    claim = FIGURES[run.figure].claim
    first = interval(run.finding.estimates[0]) if run.finding is not None and run.finding.estimates else ""
    cells = (run.figure, run.scale, _changed(run), claim, _verdict(run), first)
    return "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells) + "</tr>"


def _changed(run: LabRunRead) -> str:
    return ", ".join(_settings("", run.spec.base))


def _settings(path: str, changes: Mapping[str, Any]) -> Iterable[str]:
    for name, value in changes.items():
        if isinstance(value, Mapping):
            yield from _settings(f"{path}{name}.", value)
        else:
            yield f"{path}{name}={value}"


def _verdict(run: LabRunRead) -> str:
    return run.state if run.verdict is None else VERDICTS[run.verdict]


def _section(run: LabRunRead) -> Iterable[str]:
    changed = f" ({_changed(run)})" if run.spec.base else ""
    yield f"<h2>Figure {run.figure}: {escape(FIGURES[run.figure].title + changed)}</h2>"
    yield f"<p>{escape(FIGURES[run.figure].claim)} <strong>{escape(_verdict(run))}</strong></p>"
    if run.failure is not None:
        yield f"<p>{escape(run.failure)}</p>"
    if run.finding is not None:
        yield f"<figure>{draw(run.finding.panels)}<figcaption>{escape(run.finding.caption)}</figcaption></figure>"
        yield "<ul>" + "".join(f"<li>{escape(interval(one))}" for one in run.finding.estimates) + "</ul>"
        yield f"<details><summary>Data</summary><pre>{escape(run.finding.as_csv())}</pre></details>"
    asked = yaml.safe_dump(run.spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    jobs = ", ".join(f"{stage.kind} {stage.job_id}" for stage in run.stages if stage.job_id is not None)
    yield f"<details><summary>How it was made</summary><pre>{escape(asked)}</pre><p>Run {run.id}. {jobs}</p></details>"
