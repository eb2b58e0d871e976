"""`xsam submit, list, show, logs`: jobs of a running service."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from xsam.api import formats
from xsam.api.cli import spec_files, states
from xsam.api.cli.check import check_before_submit
from xsam.api.cli.code import with_code
from xsam.api.cli.options import (
    DEFAULT_URL,
    DatasetOption,
    FailuresOption,
    JobIdArgument,
    LabelsOption,
    ModelOption,
    NameOption,
    OptimizerOption,
    QOption,
    SinceOption,
    StatesOption,
    UntilOption,
    UrlOption,
    UserOption,
    connected,
    key_values,
)
from xsam.api.cli.show import Output, OutputOption, err, fact_table, out, print_next, printable, show
from xsam.api.cli.watching import Watched, numbers, watch
from xsam.api.client import Client
from xsam.api.client.jobs import JobsWanted
from xsam.services.jobs.listing import CountBy, JobSort
from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.states import JobState
from xsam.services.reports.job_rows import JobCount

_PAGE_LIMIT = 200
_MOST_LINES = 5000
_COLUMNS = {"id": 12, "name": None, "state": 9, "epochs": 6, "accuracy": 8, "optimizer": None, "by": 4, "age": 8}
"""Of a list, with the width each needs; the others wrap on a narrow screen."""


def submit(  # noqa: PLR0913, PLR0917 - options of a command line
    source: Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - reads standard input.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field; may be repeated.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A name for this submit; sent again, it returns the same job.")
    ] = None,
    is_checked: Annotated[
        bool, typer.Option("--check/--no-check", help="Try the code that the job brings before it is queued.")
    ] = True,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Queue the job that a file describes."""
    with connected(url) as client:
        spec = with_code(client, spec_files.load(source, overrides or ()), source)
        if is_checked and spec.get("code") is not None:
            check_before_submit(client, spec)
        job = client.submit(spec, idempotency_key=idempotency_key)
        show(output, job, lambda job: f"Job [bold]{job.id}[/] is {states.state(job)}.")
        if output is Output.JSON:
            return
        if follow:
            _follow(client, job, url)
        else:
            _print_next(job, url, ("show", "state, progress and result"), ("logs -f", "its log as it comes"))


def list_jobs(  # noqa: PLR0913, PLR0917 - options of a command line
    state: StatesOption = None,
    label: LabelsOption = None,
    name: NameOption = None,
    q: QOption = None,
    user: UserOption = None,
    team: Annotated[str | None, typer.Option(help="Only this team's jobs.")] = None,
    optimizer: OptimizerOption = None,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    failure: FailuresOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    study: Annotated[str | None, typer.Option(metavar="STUDY", help="Trials of this study instead.")] = None,
    sort: Annotated[JobSort, typer.Option(help="Order; a minus descends.")] = JobSort.CREATED_DESC,
    count: Annotated[list[CountBy] | None, typer.Option(help="Count them by this instead; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE_LIMIT, help="At most so many.")] = 20,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """List jobs, newest first, or count them."""
    wanted: JobsWanted = {
        "states": state or (),
        "labels": key_values(label or [], "--label"),
        "failures": failure or (),
        "name": name,
        "q": q,
        "user": user,
        "team": team,
        "optimizer": optimizer,
        "model": model,
        "dataset": dataset,
        "since": since,
        "until": until,
        "study": study,
    }
    with connected(url) as client:
        if count:
            show(output, client.count(by=count, **wanted), lambda found: _counted(found, count))
            return
        page = client.page(sort=sort, limit=limit, **wanted)
        # Trials are jobs too, but listed with their study: whoever has only studies should not think them gone.
        has_studies = not page.items and bool(client.studies.page(team=team, limit=1).items)
    remark = None if page.next_cursor is None else f"There are more; --limit shows up to {_PAGE_LIMIT}."
    nothing = "No jobs. There are studies: `xsam study list`." if has_studies else "No jobs."
    show(output, page.items, _table, nothing=nothing, remark=remark)


def _counted(found: JobCount, by: Sequence[CountBy]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in (*by, "jobs"):
        table.add_column(column, justify="right" if column == "jobs" else "left")
    for group in found.groups:
        table.add_row(*(escape(str(getattr(group, one))) for one in by), _many(group.num, is_exact=group.is_exact))
    table.add_row(
        *("all" if number == 0 else "" for number in range(len(by))), _many(found.num, is_exact=found.is_exact)
    )
    return table


def _many(num: int, *, is_exact: bool) -> str:
    return f"{num:,}" if is_exact else f"{num:,}+"


def show_job(job_id: JobIdArgument, output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """Show a job: state, progress, result and what happened."""
    with connected(url) as client:
        watched = Watched(client.get(job_id))
        if output is Output.TABLE:
            watched.update(client)
        events = client.events(job_id) if output is Output.TABLE else ()
    show(output, watched.job, lambda job: fact_table(_facts(watched)))
    for event in events:
        out.print(f"[dim]{event.at:%Y-%m-%d %H:%M:%S}[/]  {event.kind:<16} {escape(event.message)}")


def logs(  # noqa: PLR0913, PLR0917 - options of a command line
    job_id: JobIdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt.", show_default="the latest")] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="Of this rank.", show_default="all")] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last N lines.", show_default="all")] = None,
    find: Annotated[str | None, typer.Option(help="Only lines with this text in any case, numbered.")] = None,
    from_line: Annotated[int | None, typer.Option(min=1, help="From this line on, with numbers.")] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Print a job's log, all ranks merged by time."""
    with connected(url) as client:
        if find is not None or from_line is not None:
            _print_lines(client, job_id, attempt=attempt, rank=rank, find=find, from_line=from_line, limit=tail)
            return
        if not follow:
            sys.stdout.write(printable(client.logs(job_id, attempt=attempt, rank=rank, tail=tail)))
            return
        try:
            for line in client.follow_logs(job_id, attempt=attempt, rank=rank, tail=tail):
                sys.stdout.write(f"{printable(line)}\n")
                sys.stdout.flush()
        except KeyboardInterrupt:
            err.print("\nDetached.")


def _print_lines(client: Client, job_id: str, *, limit: int | None, **which: Any) -> None:
    most = _MOST_LINES if limit is None else min(limit, _MOST_LINES)
    found = client.log_lines(job_id, limit=most, **which)
    for line in found.items:
        sys.stdout.write(f"{line.number:>7}  {line.at} [rank {line.rank}] {printable(line.text)}\n")
    num = found.last_number if found.num_found is None else found.num_found
    err.print(f"{len(found.items)} of {num} lines{'' if found.num_found is None else ' with it'}.")


def _follow(client: Client, job: JobRead, url: str) -> None:
    watched = Watched(job)
    try:
        watch(client, [watched], out)
    except KeyboardInterrupt:
        err.print(f"\nDetached; job {job.id} goes on.")
        _print_next(job, url, ("show", "where it stands"), ("cancel", "stop it"))
        return
    out.print(f"Job [bold]{job.id}[/] {states.state(watched.job)}: {escape(_outcome(watched))}")
    if watched.job.state is not JobState.SUCCEEDED:
        raise typer.Exit(1)


def _outcome(watched: Watched) -> str:
    job = watched.job
    if job.failure is not None:
        return f"{job.failure.kind}: {job.failure.message}"
    if job.summary is None:
        return f"after {job.progress.epochs_done} of {job.progress.num_epochs} epochs"
    result = job.summary
    return (
        f"{formats.result(result)} "
        f"in epoch {result.best_epoch}, {formats.duration(result.train_s)}, {result.grad_evals:,} gradient evaluations"
    )


def _facts(watched: Watched) -> list[tuple[str, str]]:
    job = watched.job
    resources = job.spec.resources
    facts = [
        ("job", f"[bold]{job.id}[/]" + (f"  {escape(job.name)}" if job.name else "")),
        ("state", states.state(job)),
        ("submitted", f"{job.created_at:%Y-%m-%d %H:%M:%S} UTC by {escape(job.submitted_by)} ({escape(job.team)})"),
        ("training", f"{escape(formats.work(job.spec))}, {formats.optimizer(job)}"),
        ("resources", formats.request(resources)),
        ("epochs", f"{job.progress.epochs_done} of {job.progress.num_epochs}"),
    ]
    if job.summary is not None and job.summary.data_wait_s is not None and job.summary.train_s:
        facts.append(
            ("data", f"steps waited {formats.percent(job.summary.data_wait_s / job.summary.train_s)} of the time")
        )
    if job.attempt > 1:
        facts.append(("attempt", str(job.attempt)))
    if job.labels:
        facts.append(("labels", escape(", ".join(f"{key}={value}" for key, value in job.labels.items()))))
    if watched.epochs:
        facts.append(("latest", numbers(watched)))
    if watched.is_over:
        facts.append(("outcome", escape(_outcome(watched))))
    return facts


def _table(jobs: Sequence[JobRead]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column, width in _COLUMNS.items():
        table.add_column(column, no_wrap=width is not None, min_width=width)
    for job in jobs:
        table.add_row(*_row(job))
    return table


def _row(job: JobRead) -> list[str]:
    progress = job.progress
    return [
        job.id,
        escape(job.name or formats.NOTHING),
        states.state(job),
        f"{progress.epochs_done}/{progress.num_epochs}",
        formats.percent(job.summary.final_accuracy if job.summary else None),
        formats.optimizer(job),
        escape(job.submitted_by),
        formats.age(job.created_at),
    ]


def _print_next(job: JobRead, url: str, *commands: tuple[str, str]) -> None:
    option = "" if url == DEFAULT_URL else f" --url {url}"
    print_next(*((f"xsam {command} {job.id}{option}", meaning) for command, meaning in commands))
