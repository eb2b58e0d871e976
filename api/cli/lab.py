"""`xsam lab ...`: the paper's figures from the service's own jobs, each with a verdict."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from xsam.api.cli import spec_files
from xsam.api.cli.options import DEFAULT_URL, CommandError, UrlOption, connected
from xsam.api.cli.show import Output, OutputOption, err, fact_table, out, print_next, show, table
from xsam.api.cli.watching import patiently
from xsam.api.client import Client
from xsam.services.lab import report as reports
from xsam.services.lab.schemas import LabPreview, LabRunRead, LabRunRow

app = typer.Typer(help="The paper's figures from your own jobs: run, read, report.", no_args_is_help=True)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `xsam lab list` shows it.")]
_POLL_S = 2.0
_COLOURS = {"running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "dim"}


@app.command("list")
def list_lab(
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many runs, newest first.")] = 20,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """List the figures that can be made, and the runs that there are."""
    with connected(url) as client:
        figures, runs = client.lab.figures(), client.lab.page(limit=limit).items
    if output is Output.TABLE:
        out.print(table(("figure", "claim"), ([one.name, escape(one.claim)] for one in figures), wrapped=("claim",)))
    show(output, runs, _run_table, nothing="No runs yet: xsam lab run FIGURE")


@app.command()
def run(  # noqa: PLR0913, PLR0917 - options of a command line
    figure: Annotated[str, typer.Argument(metavar="FIGURE", help="A name of `xsam lab list`: 3b, say.")],
    scale: Annotated[str, typer.Option(help="digits (minutes), laptop (hours) or paper (GPUs).")] = "laptop",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each setting; at least 3.")] = 3,
    compute: Annotated[str, typer.Option(help="What methods get the same of: grad_evals or epochs.")] = "grad_evals",
    counterparts: Annotated[
        bool | None, typer.Option("--counterparts/--no-counterparts", help="ASAM, WSAM and GSAM as well.")
    ] = None,
    rhos: Annotated[
        list[float] | None,
        typer.Option("--rho", help="Of 3b and 3c: a radius to try instead of the scale's; repeated."),
    ] = None,
    rho_max_ratio: Annotated[
        float | None, typer.Option(help="Of 3b and 3c: how far XSAM looks, in units of its rho; 2 if not said.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change the job under it; may be repeated."),
    ] = None,
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Of figure 1a: look at this job's checkpoints, train nothing.")
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only print what it would take.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A name for this run; sent again, it returns the same run.")
    ] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Make a figure: queue its jobs and studies, end with a picture and a verdict."""
    base = spec_files.from_overrides(overrides or ())
    spec: dict[str, Any] = {"figure": figure, "scale": scale, "seeds": seeds, "compute": compute, "base": base}
    said = {"counterparts": counterparts, "rhos": rhos or None, "rho_max_ratio": rho_max_ratio, "job": job}
    spec |= {name: value for name, value in said.items() if value is not None}
    with connected(url) as client:
        if preview:
            show(output, client.lab.preview(spec), _preview)
            return
        begun = client.lab.submit(spec, idempotency_key=idempotency_key)
        show(output, begun, lambda one: f"Lab run [bold]{one.id}[/] of figure {one.figure} is {_state(one)}.")
        if output is Output.JSON:
            return
        if follow:
            _follow(client, begun.id)
        else:
            print_next((f"xsam lab show {begun.id} -f", "watch it"), ("xsam lab report", "all verdicts, one file"))


@app.command("show")
def show_run(
    run_id: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write its data.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write its picture.")] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show a run: stages, verdict, caption; with --csv and --svg its data and picture as files."""
    with connected(url) as client:
        if follow and output is Output.TABLE:
            _follow(client, run_id)
        else:
            show(output, client.lab.get(run_id), _picture)
        if csv is not None:
            csv.write_bytes(client.lab.table(run_id))
        if svg is not None:
            svg.write_bytes(client.lab.picture(run_id))


@app.command()
def cancel(run_id: RunArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Cancel a run with its jobs and studies."""
    with connected(url) as client:
        out.print(f"Lab run {run_id} is {_state(client.lab.cancel(run_id))}.")


@app.command()
def resume(run_id: RunArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Try the failed jobs of a failed run once more, and go on."""
    with connected(url) as client:
        out.print(f"Lab run {run_id} is {_state(client.lab.resume(run_id))}.")


@app.command()
def report(
    run_ids: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="By default the newest of each figure.")
    ] = None,
    path: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="FILE.html.")] = Path("lab.html"),
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Write verdicts, pictures and data of runs as one HTML file that needs nothing else."""
    if path.suffix != ".html":
        raise typer.BadParameter(f"{path} ends in {path.suffix or 'nothing'}; allowed is .html", param_hint="--output")
    with connected(url) as client:
        found = [client.lab.get(run_id) for run_id in run_ids or _newest(client)]
        if not found:
            raise CommandError("no run has succeeded yet; xsam lab run FIGURE makes one")
    path.write_text(reports.as_html(found), encoding="utf-8")
    out.print(f"Wrote {path}: {len(found)} runs")


def _newest(client: Client) -> list[str]:
    newest: dict[str, str] = {}
    for one in client.lab.page(limit=200).items:
        if one.state == "succeeded":
            newest.setdefault(one.figure, one.id)
    return list(newest.values())


def _follow(client: Client, run_id: str) -> None:
    with Live(console=out, refresh_per_second=2) as live:
        try:
            while True:
                found = patiently(partial(client.lab.get, run_id))
                live.update(_picture(found))
                if found.state != "running":
                    break
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            err.print(f"\nDetached; lab run {run_id} goes on.")
            return
    if found.state != "succeeded":
        sys.exit(1)


def _picture(found: LabRunRead) -> RenderableType:
    facts = [
        ("figure", f"{found.figure}, scale {found.scale}"),
        ("state", _state(found) + (f": {escape(found.failure)}" if found.failure else "")),
    ]
    if found.finding is not None:
        facts.append(("claim", escape(found.finding.claim)))
        facts.append(("verdict", f"[bold]{reports.VERDICTS[found.finding.verdict]}[/]"))
    stages = table(
        ("stage", "kind", "id", "state"),
        ([one.name, one.kind, one.job_id or "-", one.state] for one in found.stages),
    )
    parts: list[RenderableType] = [fact_table(facts), stages]
    if found.finding is not None:
        parts += [escape(found.finding.caption), *(escape(reports.interval(one)) for one in found.finding.estimates)]
    return Group(*parts)


def _run_table(runs: list[LabRunRow]) -> Table:
    rows = (
        [one.id, one.figure, one.scale, _state(one), one.verdict or "-", f"{one.num_done}/{one.num_stages}"]
        for one in runs
    )
    return table(("run", "figure", "scale", "state", "verdict", "stages"), rows)


def _preview(found: LabPreview) -> RenderableType:
    rows = (
        [one.name, one.kind, str(one.num_trials), _number(one.grad_evals), _number(one.probe_forwards)]
        for one in found.stages
    )
    columns = ("stage", "kind", "trials", "gradient evaluations", "probes")
    hours = (
        "unknown before a comparable job has run"
        if found.work_s is None
        else f"{found.work_s / 3600:.1f} h of training"
    )
    gpus = "" if not found.gpu_hours else f", {found.gpu_hours:,.0f} GPU hours"
    said = f"{found.num_trials} trials, {_number(found.grad_evals)} gradient evaluations; {hours}{gpus}."
    return Group(table(columns, rows, right=columns[2:]), said)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _state(one: LabRunRow) -> str:
    return f"[{_COLOURS[one.state]}]{one.state}[/]"
