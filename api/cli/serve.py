"""`xsam serve`: the API and the dispatcher together, on one machine or as the head of a team's cluster."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from xsam.api.app import create_app
from xsam.api.cli.options import CommandError, reported, settings_with
from xsam.api.cli.show import err, out, print_next
from xsam.api.http.dependencies import Service
from xsam.api.server.server import AddressError, Server, bind, url_of
from xsam.api.server.supervisor import DISPATCHER, Supervisor
from xsam.services import logs
from xsam.services.artifacts.privacy import keep_private
from xsam.services.cluster import service as cluster
from xsam.services.db import migrate
from xsam.services.db.session import Database, DatabaseAwayError
from xsam.services.process import hide_memory, stop_with
from xsam.services.settings import Settings, environment_for
from xsam.services.studies import plots
from xsam.services.teams import bootstrap
from xsam.services.teams import service as teams

_LOOK_EVERY_S = 0.2
LOAD_AFTER_S = 30.0
"""After so long, what only some requests need is imported."""


def serve(  # noqa: PLR0913, PLR0917 - options of a command line
    data_dir: Annotated[
        Path | None, typer.Option(help="Everything is kept below this folder.", show_default="xsam-data")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8042")
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="auto|token|none",
            help="token: every call needs one. none: whoever reaches the port may do everything; on loopback only.",
            show_default="auto: none on loopback, token elsewhere",
        ),
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="postgresql+psycopg://... for a team.", show_default="SQLite in the data folder")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="`auto` or HOST:PORT joins a Ray cluster.", show_default="start a local one")
    ] = None,
    num_cpus: Annotated[int | None, typer.Option(help="CPUs of the local Ray.", show_default="all")] = None,
    num_gpus: Annotated[int | None, typer.Option(help="GPUs of the local Ray.", show_default="all")] = None,
    no_dispatcher: Annotated[
        bool,
        typer.Option("--no-dispatcher", help="Only the API; dispatchers run elsewhere (`python -m xsam.workers`)."),
    ] = False,
) -> None:
    """Run the service: REST API, database and dispatcher. Ctrl-C stops it in order.

    Options win over the environment variables XSAM_..., which win over the defaults.
    """
    given: dict[str, Any] = {
        "data_dir": data_dir,
        "api": {"host": host, "port": port, "auth": auth},
        "database": {"url": database_url},
        "ray": {"address": ray_address, "num_cpus": num_cpus, "num_gpus": num_gpus},
    }
    with reported():
        run(settings_with(_without_nones(given)), has_dispatcher=not no_dispatcher)


def run(settings: Settings, *, has_dispatcher: bool) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        CommandError: the address is taken, or the database does not answer.
    """
    hide_memory()
    _on_stop_signals(_leave)
    if settings.parent_pid is not None:
        stop_with(settings.parent_pid)
    keep_private(settings)
    logs.to_file(settings.log_folder / "api.log", settings.logs)
    try:
        listener = bind(settings.api.host, settings.api.port)
    except AddressError as e:
        raise CommandError(str(e)) from e
    database = Database(settings.database_url, pool_size=settings.database.pool_size, scheduling=settings.scheduling)
    supervisor = Supervisor(
        DISPATCHER, environment=environment_for(settings), log_path=settings.log_folder / "dispatcher.err"
    )
    with listener:
        try:
            database.wait(settings.database.wait_s)
            migrate.upgrade(database)
            if has_dispatcher:
                supervisor.start()
            first_token = _prepare_access(settings, database)
            app = create_app(settings, database)
            greeting = _Greeting(
                url_of(listener), app.state.service, supervisor if has_dispatcher else None, first_token
            )
            Server(app, on_ready=greeting.start).run(sockets=[listener])
        except DatabaseAwayError as e:
            raise CommandError(str(e)) from e
        finally:
            _on_stop_signals(signal.SIG_IGN)  # what follows takes a bounded time and must not be cut short
            if has_dispatcher:
                err.print("Stopping: running jobs are given back to the queue ...")
                supervisor.stop()
            database.dispose()


def _prepare_access(settings: Settings, database: Database) -> str | None:
    """Return the first admin's token where nobody could get in without it; otherwise only make the default team."""
    with database.unit_of_work() as session:
        if settings.api.needs_token:
            return bootstrap.first_admin_token(session)
        teams.ensure_team(session, teams.DEFAULT_TEAM)
        return None


class _Greeting:
    """Says where the service is as soon as it answers, and when jobs will run."""

    def __init__(self, url: str, service: Service, supervisor: Supervisor | None, first_token: str | None) -> None:
        self._url = url
        self._service = service
        self._supervisor = supervisor
        self._first_token = first_token

    def start(self) -> None:
        data_dir = escape(str(self._service.settings.data_dir.resolve()))
        out.print(f"[bold]XSAM training service[/] at [bold]{self._url}[/]   data: {data_dir}")
        if self._service.settings.page.enabled:
            out.print(f"The page: [bold]{self._url}/home[/]")
        if self._first_token is not None:
            # On the console alone: it is in no log file, and the database has its digest.
            out.print(f"First admin token, shown this once: [bold]{self._first_token}[/]")
            out.print(f"  {escape(f'xsam login --paste --url {self._url}')}   [dim]# asks for it and remembers it[/]")
            self._first_token = None
        if self._supervisor is not None:
            out.print("The dispatcher is starting Ray; jobs can be submitted already.")
            threading.Thread(target=self._wait_for_dispatcher, name="greeting", daemon=True).start()
        threading.Thread(target=self._load_the_rest, name="imports", daemon=True).start()

    def _load_the_rest(self) -> None:
        # Seconds of work for one core, which the start and the first jobs need more.
        if not self._service.closing.wait(LOAD_AFTER_S):
            plots.load_importances()

    def _wait_for_dispatcher(self) -> None:
        while not self._is_dispatching():
            if self._service.closing.wait(_LOOK_EVERY_S):
                return
        api = self._service.settings.api
        option = "" if api.port == 8042 else f" --url {self._url}"
        header = ' -H "Authorization: Bearer $XSAM_TOKEN"' if api.needs_token else ""
        print_next(
            (f"xsam submit job.yaml --follow{option}", "queue a job and watch it"),
            (f"xsam list{option}", "what is queued, running, done"),
            (f"curl -s {self._url}/v1/jobs -H 'Content-Type: application/json'{header} -d '{{}}'", "XSAM on digits"),
            title="[green]Ready.[/] In another terminal:",
        )

    def _is_dispatching(self) -> bool:
        assert self._supervisor is not None  # noqa: S101 - only then the thread is started
        with self._service.database.read() as session:
            ids = [row.id for row in cluster.live_dispatchers(session)]
        found = [cluster.DispatcherId.parse(one) for one in ids]
        return any(one is not None and one.pid == self._supervisor.pid for one in found)


def _without_nones(options: dict[str, Any]) -> dict[str, Any]:
    kept = {name: _without_nones(value) if isinstance(value, dict) else value for name, value in options.items()}
    return {name: value for name, value in kept.items() if value is not None and value != {}}


def _on_stop_signals(handler: Callable[..., Any] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _leave(*_: Any) -> None:
    # uvicorn handles the signals while it serves and raises them again when it is done. Their default action would
    # end this process before the dispatcher is stopped; an exception runs the clean-up.
    raise SystemExit(0)
