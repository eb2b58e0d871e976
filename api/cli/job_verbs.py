"""`xsam cancel, pause, resume, retry, set, clone`: change jobs of a running service, one or several at once."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape

from xsam.api.cli import spec_files, states
from xsam.api.cli.options import DEFAULT_URL, JobIdArgument, UrlOption, connected, key_values
from xsam.api.cli.show import err, out
from xsam.services.jobs.schemas import BulkRead, JobRead
from xsam.services.jobs.states import JobState

JobIds = Annotated[
    list[str] | None, typer.Argument(metavar="JOB...", help="Ids of jobs; none with --state, --name or --label.")
]
States = Annotated[list[JobState] | None, typer.Option("--state", help="Jobs in this state; may be repeated.")]
Name = Annotated[str | None, typer.Option("--name", help="Jobs of this name.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Jobs with this label; may be repeated.")
]


def _verb(verb: str, what: str) -> Callable[..., None]:
    def command(
        jobs: JobIds = None,
        state: States = None,
        name: Name = None,
        label: Labels = None,
        url: UrlOption = DEFAULT_URL,
    ) -> None:
        chosen = _chosen(jobs, state, name, label)
        with connected(url) as client:
            if len(chosen["ids"]) == 1:
                _print_told(getattr(client, verb)(chosen["ids"][0]))
            else:
                _report(client.each(verb, **chosen))

    command.__doc__ = what
    return command


cancel = _verb("cancel", "Cancel jobs that wait, and stop those that run.")
pause = _verb("pause", "Hold jobs; running ones save their state and give their resources back.")
resume = _verb("resume", "Put paused jobs back in the queue.")
retry = _verb("retry", "Queue failed and cancelled jobs again, from their newest checkpoints.")


def change(  # noqa: PLR0913, PLR0917 - options of a command line
    jobs: JobIds = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="Higher goes first.")] = None,
    set_label: Annotated[
        list[str] | None,
        typer.Option("--set-label", metavar="KEY=VALUE", help="Set a label; KEY= removes it. May be repeated."),
    ] = None,
    state: States = None,
    name: Name = None,
    label: Labels = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Change priority and labels of jobs, also while they run."""
    if priority is None and not set_label:
        raise typer.BadParameter("give --priority, --set-label or both")
    pairs = key_values(set_label or [], "--set-label")
    changes = {key: value or None for key, value in pairs.items()} or None
    chosen = _chosen(jobs, state, name, label)
    with connected(url) as client:
        _report(client.update_each(priority=priority, set_labels=changes, **chosen))


def clone(
    job_id: JobIdArgument,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field; may be repeated.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Queue a copy of a job, with changes."""
    with connected(url) as client:
        job = client.clone(job_id, spec_files.from_overrides(overrides or ()))
    out.print(f"Job [bold]{job.id}[/] is {states.state(job)}.")


def _chosen(
    jobs: list[str] | None, state: list[JobState] | None, name: str | None, label: list[str] | None
) -> dict[str, Any]:
    """Return what names the jobs, for the client."""
    labels = key_values(label or [], "--label")
    by_filter = bool(state or name or labels)
    if bool(jobs) == by_filter:
        raise typer.BadParameter("name jobs by id, or say which by --state, --name or --label, and not both")
    return {"ids": jobs or [], "states": state or [], "name": name, "labels": labels}


def _print_told(job: JobRead) -> None:
    if job.state == JobState.RUNNING and job.wish is not None:
        what = {"cancel": "stop", "pause": "save its state and pause"}.get(job.wish, job.wish)
        out.print(f"Job {job.id} was asked to {what}; it does within seconds.")
    else:
        out.print(f"Job {job.id} is {states.state(job)}.")


def _report(found: BulkRead) -> None:
    """Print what came of each job; any refusal makes the command fail, after all others were done."""
    if not found.items:
        err.print("No jobs.")
    for item in found.items:
        if item.is_done:
            out.print(f"{item.job_id}  {item.state}")
        else:
            err.print(f"{item.job_id}  [red]{escape(item.message or item.code or '')}[/]")
    if found.has_more:
        err.print("More jobs match than one call changes: repeat the command.")
    if not all(item.is_done for item in found.items):
        raise typer.Exit(1)
