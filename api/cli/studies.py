"""`xsam study ...`: hyperparameter searches of a running service."""

import importlib
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape

from xsam.api import formats
from xsam.api.cli import spec_files, states, study_views
from xsam.api.cli.code import with_code
from xsam.api.cli.options import DEFAULT_URL, CommandError, UrlOption, connected
from xsam.api.cli.show import Output, OutputOption, err, out, print_next, show
from xsam.api.cli.watching import patiently
from xsam.api.client import Client
from xsam.api.client.jobs import MOST_COMPARED
from xsam.services.jobs.states import FailureKind, JobState, is_terminal
from xsam.services.metrics.schemas import EpochRead
from xsam.services.studies.schemas import StudyRead

app = typer.Typer(help="Hyperparameter searches: submit, steer, read, plot, promote.", no_args_is_help=True)


class ExportTo(StrEnum):
    """Files of all trials."""

    CSV = "csv"
    PARQUET = "parquet"
    OPTUNA = "optuna"


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="The study's id, as `xsam study list` shows it.")]
FileArgument = Annotated[
    str | None, typer.Argument(metavar="FILE", help="YAML or JSON; - reads standard input; none with --preset.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field; may be repeated.")
]
PresetOption = Annotated[str | None, typer.Option(help="rho, rho-k or control: a whole study by name.")]
_POLL_S = 1.0
_PAGE_LIMIT = 200
_NEXT = (("show -f", "watch it"), ("trials", "its trials"), ("plot", "draw it"), ("stop", "end it early"))


@app.command()
def submit(  # noqa: PLR0913, PLR0917 - options of a command line
    source: FileArgument = None,
    preset: PresetOption = None,
    overrides: SetOption = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only print what it would take.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A name for this submit; sent again, it returns the same study.")
    ] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Queue a study from a file, a preset, or both; --preview only prints what it would take."""
    if source is None and preset is None:
        raise typer.BadParameter("give a FILE, or --preset rho, rho-k or control")
    with connected(url) as client:
        document = spec_files.load(source, overrides or ()) if source else spec_files.from_overrides(overrides or ())
        if preset is not None:
            document["preset"] = preset
        document = with_code(client, document, source)
        if preview:
            show(output, client.studies.preview(document), study_views.preview_table)
            return
        study = client.studies.submit(document, idempotency_key=idempotency_key)
        show(
            output,
            study,
            lambda study: f"Study [bold]{study.id}[/] is {_state(study)}: {study.num_trials} trials planned.",
        )
        if output is Output.JSON:
            return
        if follow:
            _follow(client, study.id)
        else:
            _print_next(study.id, *_NEXT)


@app.command("show")
def show_study(
    study_id: StudyArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show a study: best, arms, comparison, progress, cost, best so far, and a map of the first two fields."""
    with connected(url) as client:
        if follow and output is Output.TABLE:
            _follow(client, study_id)
            return
        show(output, client.studies.get(study_id), lambda study: _picture(client, study))


@app.command("list")
def list_studies(
    state: Annotated[list[JobState] | None, typer.Option(help="Only studies in this state; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Only studies of exactly this name.")] = None,
    team: Annotated[str | None, typer.Option(help="Only this team's studies.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE_LIMIT, help="At most so many, newest first.")] = 20,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """List studies, newest first."""
    with connected(url) as client:
        page = client.studies.page(states=state or (), name=name, team=team, limit=limit)
    show(output, page.items, study_views.study_table, nothing="No studies.")


@app.command()
def trials(  # noqa: PLR0913, PLR0917 - options of a command line
    study_id: StudyArgument,
    sort: Annotated[str, typer.Option(help="number, value or grad_evals; a minus before it descends.")] = "number",
    state: Annotated[list[JobState] | None, typer.Option(help="Only trials in this state; may be repeated.")] = None,
    arm: Annotated[str | None, typer.Option(help="Only this optimizer's trials.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all trials to FILE.csv or FILE.parquet instead.")
    ] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """List a study's trials, or write all of them to a file."""
    with connected(url) as client:
        if export is not None:
            file_format = "parquet" if export.suffix == ".parquet" else "csv"
            export.write_bytes(client.studies.export(study_id, file_format=file_format))
            out.print(f"Wrote {export}")
            return
        page = client.studies.trial_page(study_id, states=state or (), arm=arm, sort=sort, limit=limit)
    remark = None if page.next_cursor is None else "There are more; --limit shows up to 500, --export writes all."
    show(output, page.items, study_views.trial_table, remark=remark)


def _add_verb(name: str, what: str, *following: tuple[str, str]) -> None:
    @app.command(name, help=what)
    def tell(study_id: StudyArgument, url: UrlOption = DEFAULT_URL) -> None:
        with connected(url) as client:
            _print_told(getattr(client.studies, name)(study_id), *following)


_add_verb("pause", "Start no new trials; the running ones finish.", ("resume", "go on"))
_add_verb("resume", "Go on after a pause.", ("show -f", "watch it"))
_add_verb(
    "stop", "Let the running trials finish, then end with the answer so far.", ("extend --trials N", "go on later")
)
_add_verb("cancel", "Cancel a study and all its trials.")


@app.command("retry-failed")
def retry_failed(
    study_id: StudyArgument,
    kind: Annotated[FailureKind | None, typer.Option(help="Only trials that failed for this cause.")] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Try failed trials again, from their checkpoints."""
    with connected(url) as client:
        _print_told(client.studies.retry_failed(study_id, kind=kind), ("show -f", "watch it"))


@app.command()
def extend(
    study_id: StudyArgument,
    num_trials: Annotated[int, typer.Option("--trials", min=0, help="Trials to add.")] = 0,
    space: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=DIMENSION", help="A wider dimension of a searched field, as YAML."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Add trials or widen ranges, also after the end."""
    with connected(url) as client:
        wider = {path: spec_files.value(text) for path, _, text in (item.partition("=") for item in space or ())}
        _print_told(client.studies.extend(study_id, num_trials=num_trials, space=wider), ("show -f", "watch it"))


@app.command()
def concurrency(
    study_id: StudyArgument,
    number: Annotated[int, typer.Argument(min=1, help="Trials that run at once.")],
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Let more or fewer trials run at once."""
    with connected(url) as client:
        _print_told(client.studies.set_concurrency(study_id, number))


@app.command()
def plot(
    study_id: StudyArgument,
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="FILE.html.", show_default="ID.html"),
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Write history, parallel coordinates, importances, slices and the map of two fields as one HTML page."""
    with connected(url) as client:
        target = path or Path(f"{study_id}.html")
        plots = importlib.import_module("xsam.api.cli.study_plots")  # slow to load, and no other command needs it
        plots.draw(client.studies.get(study_id), list(client.studies.trials(study_id, phase="search")), target)
    out.print(f"Wrote {target}")


@app.command("export")
def export_study(
    study_id: StudyArgument,
    to: Annotated[ExportTo, typer.Option(help="A table, or a file that Optuna's own tools open.")] = ExportTo.CSV,
    path: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file.", show_default="ID and an ending")
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Write all trials to a file: CSV, Parquet, or a storage of Optuna with every epoch."""
    target = path or Path(f"{study_id}.{'db' if to is ExportTo.OPTUNA else to}")
    with connected(url) as client:
        if to is not ExportTo.OPTUNA:
            target.write_bytes(client.studies.export(study_id, file_format=to))
            out.print(f"Wrote {target}")
            return
        if target.exists():
            raise CommandError(f"{target} exists; allowed is the name of a new file")
        study, trials = client.studies.get(study_id), list(client.studies.trials(study_id))
        epochs: dict[str, Sequence[EpochRead]] = {}
        for first in range(0, len(trials), MOST_COMPARED):
            epochs |= client.metrics_of([trial.id for trial in trials[first : first + MOST_COMPARED]])
    files = importlib.import_module("xsam.services.studies.optuna_file")  # slow to load, as are plots
    name = files.write_optuna(target, study, trials, epochs)
    out.print(f"Wrote {target}; Optuna calls the study {escape(repr(name))}")


@app.command()
def promote(
    study_id: StudyArgument,
    trial: Annotated[int | None, typer.Option(min=1, help="This trial's number.", show_default="the best")] = None,
    overrides: SetOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Queue the winner as a full job, changed as --set says (for example --set epochs=200)."""
    with connected(url) as client:
        job = client.studies.promote(study_id, trial=trial, changes=spec_files.from_overrides(overrides or ()))
    out.print(f"Job [bold]{job.id}[/] is {states.state(job)}: {formats.optimizer(job)}, {job.spec.epochs} epochs.")
    print_next((f"xsam show {job.id}", "state, progress and result"))


def _follow(client: Client, study_id: str) -> None:
    with Live(console=out, refresh_per_second=4) as live:
        try:
            while True:
                study, picture = patiently(partial(_look, client, study_id))
                live.update(picture)
                if is_terminal(study.state) or study.state is JobState.PAUSED:
                    break
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            err.print(f"\nDetached; study {study_id} goes on.")
            return
    if study.state is JobState.FAILED:
        sys.exit(1)


def _look(client: Client, study_id: str) -> tuple[StudyRead, Group]:
    study = client.studies.get(study_id)
    return study, _picture(client, study)


def _picture(client: Client, study: StudyRead) -> Group:
    best = client.studies.trial_page(study.id, sort=study_views.best_first(study), limit=5).items
    running = client.studies.trial_page(study.id, states=[JobState.RUNNING], limit=10).items
    return study_views.picture(study, best, running, client.studies.plots(study.id).model_dump(mode="json"))


def _state(study: StudyRead) -> str:
    return study_views.state_text(study.state, study.hold)


def _print_told(study: StudyRead, *following: tuple[str, str]) -> None:
    out.print(f"Study {study.id} is {_state(study)}.")
    _print_next(study.id, *following)


def _print_next(study_id: str, *commands: tuple[str, str]) -> None:
    print_next(*((f"xsam study {_with(command, study_id)}", meaning) for command, meaning in commands))


def _with(command: str, study_id: str) -> str:
    name, _, options = command.partition(" ")
    return f"{name} {study_id} {options}".rstrip()
