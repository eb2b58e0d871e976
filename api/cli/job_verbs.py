"""`xsam cancel, pause, resume, retry, set, clone`: change jobs of a running service, one or several at once."""

from collections.abc import Callable
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from xsam.api.cli import spec_files, states
from xsam.api.cli.options import (
    DEFAULT_URL,
    FailuresOption,
    JobIdArgument,
    LabelsOption,
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
from xsam.api.cli.show import err, out
from xsam.api.client.jobs import JobsWanted
from xsam.services.jobs.schemas import BulkRead, JobRead
from xsam.services.jobs.states import FailureKind, JobState

JobIds = Annotated[
    list[str] | None, typer.Argument(metavar="JOB...", help="Ids of jobs; none with --state, --label and the like.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many jobs there are, and in which state.")]


def _verb(verb: str, what: str) -> Callable[..., None]:
    def command(  # noqa: PLR0913, PLR0917 - options of a command line
        jobs: JobIds = None,
        state: StatesOption = None,
        name: NameOption = None,
        q: QOption = None,
        user: UserOption = None,
        label: LabelsOption = None,
        optimizer: OptimizerOption = None,
        failure: FailuresOption = None,
        since: SinceOption = None,
        until: UntilOption = None,
        is_dry_run: DryRun = False,
        url: UrlOption = DEFAULT_URL,
    ) -> None:
        by_text = {"name": name, "q": q, "user": user, "optimizer": optimizer, "since": since, "until": until}
        wanted = _wanted(jobs, state, label, failure, **by_text)
        with connected(url) as client:
            if len(jobs or ()) == 1 and not is_dry_run:
                _print_told(getattr(client, verb)(jobs[0]))  # type: ignore[index]
            else:
                _report(client.each(verb, ids=jobs or (), dry_run=is_dry_run, **wanted))

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
    state: StatesOption = None,
    name: NameOption = None,
    q: QOption = None,
    user: UserOption = None,
    label: LabelsOption = None,
    is_dry_run: DryRun = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Change priority and labels of jobs, also while they run."""
    if priority is None and not set_label:
        raise typer.BadParameter("give --priority, --set-label or both")
    pairs = key_values(set_label or [], "--set-label")
    changes = {key: value or None for key, value in pairs.items()} or None
    wanted = _wanted(jobs, state, label, None, name=name, q=q, user=user)
    with connected(url) as client:
        found = client.update_each(priority=priority, set_labels=changes, ids=jobs or (), dry_run=is_dry_run, **wanted)
        _report(found)


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


def _wanted(
    jobs: list[str] | None,
    state: list[JobState] | None,
    label: list[str] | None,
    failure: list[FailureKind] | None,
    **by_text: str | None,
) -> JobsWanted:
    """Return what says which jobs, for the client."""
    labels = key_values(label or [], "--label")
    by_filter = bool(state or labels or failure or any(by_text.values()))
    if bool(jobs) == by_filter:
        raise typer.BadParameter("name jobs by id, or say which by --state, --name, --label or the like, and not both")
    wanted: dict[str, Any] = {"states": state or (), "labels": labels, "failures": failure or (), **by_text}
    return cast("JobsWanted", wanted)


def _print_told(job: JobRead) -> None:
    if job.state == JobState.RUNNING and job.wish is not None:
        what = {"cancel": "stop", "pause": "save its state and pause"}.get(job.wish, job.wish)
        out.print(f"Job {job.id} was asked to {what}; it does within seconds.")
    else:
        out.print(f"Job {job.id} is {states.state(job)}.")


def _report(found: BulkRead) -> None:
    """Print what came of each job; any refusal makes the command fail, after all others were done."""
    if found.would is not None:
        states_found = ", ".join(f"{num} {state}" for state, num in found.would.num_by_state.items())
        users = ", ".join(f"{num} of {escape(user)}" for user, num in found.would.num_by_user.items())
        out.print(f"{found.would.num} jobs: {states_found}; {users}." if found.would.num else "No jobs.")
    elif not found.items:
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
